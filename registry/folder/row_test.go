package folder

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestPlainRowIsAsAnyOther(t *testing.T) {
	at := root() + "a%20b/"
	var fetch markup
	fetch.text(strings.TrimSuffix(string(appendFetch(nil, at, "")), "'"))
	for _, name := range []string{"a", "kubectl-v1.36.0_linux.tar.gz", "A-Z0-9", "..x", "_"} {
		e := &Entry{Name: name, SHA256: strings.Repeat("0f", 32), Size: 5000, Modified: time.Unix(1e9, 0)}
		var plain, other markup
		plain.plainFile(e, string(fetch))
		other.file(e, at)
		if !isPlain(name) || string(plain) != string(other) {
			t.Errorf("%s: got\n%swant\n%s", name, plain, other)
		}
	}
	for _, name := range []string{"", "-", "-x", "a b", "a'b", "a<b", "a%b", "a:b", "~a", "é", "a\n"} {
		if isPlain(name) {
			t.Errorf("%q is taken for plain", name)
		}
	}
}

// root ends in what a shell and HTML have to be told apart.
func root() string { return "https://files.example.org/it's&/" }

func TestSizesAreReadable(t *testing.T) {
	for size, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 58982400: "56.2 MiB", 1<<30 - 1: "1.0 GiB",
		2 << 30: "2.0 GiB", 1<<50 - 1: "1.0 PiB", math.MaxInt64: "8.0 EiB",
	} {
		if got := string(appendSize(nil, size)); got != want {
			t.Errorf("%d is %s, want %s", size, got, want)
		}
	}
}
