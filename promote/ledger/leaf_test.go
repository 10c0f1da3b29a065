package ledger

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

var someTime = time.Date(2026, 11, 23, 10, 0, 0, 120e6, time.UTC)

func fullEntry() Entry {
	e := setEntry("coredns", "coredns:v1.9.3")
	e.Sequence, e.Time = 17, someTime
	e.Previous = testDigest("before")
	e.Reason = "quotes \" and \\, a tab\t, a newline\n, \x01, <&>, ü, \u2028, 🚢"
	return e
}

func TestALeafIsCanonicalJSON(t *testing.T) {
	e := fullEntry()
	e.Destinations = []string{"a.example.org/x", "b.example.org"}
	leaf := string(encodeLeaf(&e, leafSet{}))
	want := `{"action":"set","destinations":["a.example.org/x","b.example.org"],"digest":"` + string(e.Digest) +
		`","kind":"image","mediaType":"application/vnd.oci.image.index.v1+json","name":"coredns:v1.9.3","previous":"` + string(e.Previous) +
		`","project":"coredns","reason":"quotes \" and \\, a tab\t, a newline\n, \u0001, <&>, ü, ` + "\u2028" + `, 🚢"` +
		`,"revision":"0123456789abcdef0123456789abcdef01234567","sequence":17,"size":1234,"time":"2026-11-23T10:00:00.120Z"}`
	if leaf != want {
		t.Errorf("the leaf is\n%s\nwant\n%s", leaf, want)
	}
	var decoded struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal([]byte(leaf), &decoded); err != nil || decoded.Reason != e.Reason {
		t.Errorf("any JSON reader reads %q, %v", decoded.Reason, err)
	}
}

func TestALeafIsReadAsItWasWritten(t *testing.T) {
	full, small := fullEntry(), Entry{Action: Delete, Kind: File, Name: "x", Destinations: []string{"s3://b"}, Time: someTime}
	revoke := Entry{Action: Revoke, Name: string(testDigest("bad")), Digest: testDigest("bad"), Time: someTime, Reason: "CVE"}
	for _, e := range []Entry{full, small, revoke} {
		var r leafReader
		got, set, err := r.read(encodeLeaf(&e, leafSet{}))
		if err != nil || set.refers || !reflect.DeepEqual(got, e) {
			t.Errorf("read %+v, %v, %v\nwant %+v", got, set, err, e)
		}
	}
	var r leafReader
	_, set, err := r.read(encodeLeaf(&full, leafSet{refers: true, leaf: 7}))
	if err != nil || !set.refers || set.leaf != 7 {
		t.Errorf("read a reference as %v, %v", set, err)
	}
}

// Every other way of writing the same JSON, and every piece of it, is refused.
func TestALeafInAnyOtherFormIsCorrupt(t *testing.T) {
	e := fullEntry()
	e.Reason = "why"
	leaf := string(encodeLeaf(&e, leafSet{}))
	bad := map[string]string{
		"a space":           strings.Replace(leaf, `,"digest"`, `, "digest"`, 1),
		"a space behind":    leaf + " ",
		"a byte behind":     leaf + "}",
		"an unknown key":    strings.Replace(leaf, `,"kind"`, `,"extra":"x","kind"`, 1),
		"a key twice":       strings.Replace(leaf, `,"kind"`, `,"kind":"image","kind"`, 1),
		"another order":     strings.Replace(strings.Replace(leaf, `"action":"set",`, ``, 1), `}`, `,"action":"set"}`, 1),
		"an empty string":   strings.Replace(leaf, `"why"`, `""`, 1),
		"a needless escape": strings.Replace(leaf, `"why"`, `"wh\u0079"`, 1),
		"an escaped slash":  strings.Replace(leaf, `"why"`, `"wh\/"`, 1),
		"a Go escape":       strings.Replace(leaf, `"why"`, `"\x41"`, 1),
		"not UTF-8":         strings.Replace(leaf, `"why"`, "\"\xff\"", 1),
		"a raw newline":     strings.Replace(leaf, `"why"`, "\"\n\"", 1),
		"a leading zero":    strings.Replace(leaf, `"sequence":17`, `"sequence":017`, 1),
		"a fraction":        strings.Replace(leaf, `"sequence":17`, `"sequence":17.0`, 1),
		"a negative size":   strings.Replace(leaf, `"size":1234`, `"size":-1`, 1),
		"a size of zero":    strings.Replace(leaf, `"size":1234`, `"size":0`, 1),
		"a huge size":       strings.Replace(leaf, `"size":1234`, `"size":9007199254740992`, 1),
		"another time zone": strings.Replace(leaf, `.120Z`, `.120+00:00`, 1),
		"seconds only":      strings.Replace(leaf, `.120Z`, `Z`, 1),
		"no time":           strings.Replace(leaf, `,"time":"2026-11-23T10:00:00.120Z"`, ``, 1),
		"no such day":       strings.Replace(leaf, `2026-11-23`, `2026-02-30`, 1),
		"no such action":    strings.Replace(leaf, `"set"`, `"move"`, 1),
		"no such kind":      strings.Replace(leaf, `"image"`, `"chart"`, 1),
		"no destinations":   strings.Replace(leaf, leaf[strings.Index(leaf, `[`):strings.Index(leaf, `]`)+1], `[]`, 1),
		"nothing":           "",
		"null":              "null",
	}
	for i := range leaf {
		bad["cut at "+leaf[:i]] = leaf[:i]
	}
	for name, text := range bad {
		var r leafReader
		if got, _, err := r.read([]byte(text)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: read %+v, %v, want ErrCorrupt", name, got, err)
		}
	}
}

// Whatever is read is written as the same bytes again: nothing hides in a leaf.
func FuzzLeaf(f *testing.F) {
	e := fullEntry()
	f.Add(encodeLeaf(&e, leafSet{}))
	f.Add(encodeLeaf(&e, leafSet{refers: true, leaf: 3}))
	f.Add([]byte(`{"action":"delete","destinations":["a\\\"b"],"sequence":0,"time":"2026-11-23T10:00:00.120Z"}`))
	f.Fuzz(func(t *testing.T, leaf []byte) {
		var r leafReader
		e, set, err := r.read(leaf)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("an error that is not ErrCorrupt: %v", err)
			}
			return
		}
		if again := encodeLeaf(&e, set); string(again) != string(leaf) {
			t.Errorf("read\n%s\nand would write\n%s", leaf, again)
		}
		if !json.Valid(leaf) {
			t.Errorf("%s is no JSON", leaf)
		}
	})
}
