package blobstore

import (
	"errors"
	"path"
	"strings"
	"testing"
)

func TestRecordPathIsOneThatEveryMediumTakes(t *testing.T) {
	for key, want := range map[string]string{
		"a":                            "a~",
		"a/b":                          "a/b~",
		"a:b":                          "a%3Ab~",
		"%2F":                          "%252F~",
		"...":                          "%2E.%2E~",
		"tags/docker.io/nginx/1.29":    "tags/docker.io/nginx/1.29~",
		"a+":                           "a%2B~",
		strings.Repeat("n", 254):       strings.Repeat("n", 254) + "~",
		strings.Repeat("n", 255):       strings.Repeat("n", 254) + "+/n~",
		strings.Repeat(":", 85):        strings.Repeat("%3A", 84) + "%3+/A~",
		strings.Repeat(":", 85) + "/x": strings.Repeat("%3A", 84) + "%3+/A/x~",
	} {
		if got := recordPath(key); got != want {
			t.Errorf("recordPath(%q) = %q, want %q", key, got, want)
		}
	}
}

func TestRecordKeyRefusesPathsThatNoKeyHas(t *testing.T) {
	for _, p := range []string{
		"", "~", "a", "a/", "a/~", "/a~", "a~/b~", "%61~", "%3a~", "%3~", "%~", "a%", "a+~", "a+/b~", ".~", "..~", "../a~", "a//b~", "é~",
	} {
		if key, ok := recordKey(p); ok {
			t.Errorf("recordKey(%q) = %q, want none", p, key)
		}
	}
}

func FuzzRecordPathRoundTrips(f *testing.F) {
	for _, key := range []string{"a", "a/b", "a:b", "%2F", "..", "a/../b", "...", "~", "+/~", strings.Repeat("+", 255), "é", ""} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if err := checkKey(key); err != nil {
			if !errors.Is(err, ErrInvalidKey) {
				t.Fatalf("checkKey(%q) = %v, want ErrInvalidKey", key, err)
			}
			return
		}
		p := recordPath(key)
		if p != path.Clean(p) || path.IsAbs(p) || strings.HasPrefix(p, "..") {
			t.Fatalf("recordPath(%q) = %q, which is not a clean relative path", key, p)
		}
		for name := range strings.SplitSeq(p, "/") {
			if len(name) > 255 {
				t.Fatalf("recordPath(%q) has an element of %d bytes", key, len(name))
			}
		}
		if !strings.HasPrefix(p, strings.TrimSuffix(recordDir(path.Dir(key)), "./")) && strings.Contains(key, "/") {
			t.Fatalf("recordPath(%q) = %q is not below the directory of its parent", key, p)
		}
		if back, ok := recordKey(p); !ok || back != key {
			t.Fatalf("recordKey(recordPath(%q)) = %q, %v", key, back, ok)
		}
	})
}

// FuzzRecordKeyOfAnyPath checks the other way round: a path that is read as a
// key is the path of that key and no other, so nothing on disk has two names.
func FuzzRecordKeyOfAnyPath(f *testing.F) {
	for _, p := range []string{"a~", "a/b~", "a%3Ab~", "%61~", "a+/b~", "../a~", "~", strings.Repeat("n", 254) + "+/n~"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		key, ok := recordKey(p)
		if !ok {
			return
		}
		if err := checkKey(key); err != nil {
			t.Fatalf("recordKey(%q): %v", p, err)
		}
		if recordPath(key) != p {
			t.Fatalf("recordKey(%q) = %q, whose path is %q", p, key, recordPath(key))
		}
	})
}
