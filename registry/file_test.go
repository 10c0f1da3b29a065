package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// fakeFiles answers every request with one file.
type fakeFiles struct {
	file  File
	cs    CacheStatus
	err   error
	asked FileRequest
}

func (f *fakeFiles) File(_ context.Context, req *FileRequest) (File, CacheStatus, error) {
	f.asked = *req
	file := f.file
	if req.Head {
		file.Content = nil
	}
	return file, f.cs, f.err
}

var fileDate = time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)

func alphabetFile() File {
	return File{
		Size: int64(len(alphabet)), ETag: `"abc"`, Modified: fileDate,
		Header: http.Header{
			"Etag": {`"abc"`}, "Last-Modified": {fileDate.Format(http.TimeFormat)}, "Content-Type": {"text/x-alphabet"},
			"Cache-Control": {"max-age=60"}, "Content-Disposition": {"attachment"}, "Repr-Digest": {"sha-256=:AA==:"},
		},
		Content: &memory{bytes: []byte(alphabet)},
	}
}

func TestFileIsServedWithWhatUpstreamSaidOfIt(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		resp := ask(t, NewFileHandler(&fakeFiles{file: alphabetFile()}, Config{}), method, "/up/a", nil)
		want := alphabet
		if method == http.MethodHead {
			want = ""
		}
		if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != want {
			t.Errorf("%s: %d %q", method, resp.StatusCode, got)
		}
		wantHeader(t, resp, map[string]string{
			"Content-Type": "text/x-alphabet", "Content-Length": "26", "Accept-Ranges": "bytes", "ETag": `"abc"`,
			"Last-Modified": "Mon, 23 Nov 2026 01:02:03 GMT", "Cache-Control": "max-age=60",
			"Content-Disposition": "attachment", "Repr-Digest": "sha-256=:AA==:", "Content-Range": "",
		})
	}
}

func TestFileWithoutATypeIsSentWithoutOne(t *testing.T) {
	t.Parallel()
	resp := ask(t, NewFileHandler(&fakeFiles{file: File{Size: 26, Content: &memory{bytes: []byte(alphabet)}}}, Config{}), http.MethodGet, "/a", nil)
	if len(resp.Header["Content-Type"]) != 0 || bodyOf(t, resp) != alphabet {
		t.Errorf("got %v", resp.Header)
	}
}

func TestConditionsAndRangesOfFiles(t *testing.T) {
	t.Parallel()
	date := fileDate.Format(http.TimeFormat)
	later, earlier := fileDate.Add(time.Hour).Format(http.TimeFormat), fileDate.Add(-time.Hour).Format(http.TimeFormat)
	weak := func(f *File) { f.ETag = `W/"abc"` }
	weakDate := func(f *File) { f.DateIsWeak = true }
	untagged := func(f *File) { f.ETag, f.Modified = "", time.Time{} }
	for _, c := range []struct {
		name   string
		change func(*File)
		header http.Header
		status int
		body   string
	}{
		{"its own tag", nil, http.Header{"If-None-Match": {`"abc"`}}, 304, ""},
		{"its own tag, weakly", nil, http.Header{"If-None-Match": {`"x", W/"abc"`}}, 304, ""},
		{"its own weak tag", weak, http.Header{"If-None-Match": {`W/"abc"`}}, 304, ""},
		{"another tag", nil, http.Header{"If-None-Match": {`"x"`}, "If-Modified-Since": {date}}, 200, alphabet},
		{"an empty tag where there is none", untagged, http.Header{"If-None-Match": {`""`}}, 200, alphabet},
		{"not modified since", nil, http.Header{"If-Modified-Since": {date}}, 304, ""},
		{"modified since", nil, http.Header{"If-Modified-Since": {earlier}}, 200, alphabet},
		{"no date to compare", untagged, http.Header{"If-Modified-Since": {later}}, 200, alphabet},
		{"matched", nil, http.Header{"If-Match": {`"abc"`}}, 200, alphabet},
		{"not matched", nil, http.Header{"If-Match": {`"x"`}}, 412, ""},
		{"matched by a weak tag", weak, http.Header{"If-Match": {`W/"abc"`, `"abc"`}}, 412, ""},
		{"anything matched", weak, http.Header{"If-Match": {`*`}}, 200, alphabet},
		{"unmodified since", nil, http.Header{"If-Unmodified-Since": {earlier}}, 412, ""},
		{"range", nil, http.Header{"Range": {"bytes=1-3"}}, 206, "bcd"},
		{"suffix", nil, http.Header{"Range": {"bytes=-2"}}, 206, "yz"},
		{"range past the end", nil, http.Header{"Range": {"bytes=26-"}}, 416, ""},
		{"range of its tag", nil, http.Header{"Range": {"bytes=1-3"}, "If-Range": {`"abc"`}}, 206, "bcd"},
		{"range of another tag", nil, http.Header{"Range": {"bytes=1-3"}, "If-Range": {`"x"`}}, 200, alphabet},
		{"range of a weak tag", weak, http.Header{"Range": {"bytes=1-3"}, "If-Range": {`"abc"`}}, 200, alphabet},
		{"range of its date", nil, http.Header{"Range": {"bytes=1-3"}, "If-Range": {date}}, 206, "bcd"},
		{"range of its date, which is weak", weakDate, http.Header{"Range": {"bytes=1-3"}, "If-Range": {date}}, 200, alphabet},
		{"range of another date", nil, http.Header{"Range": {"bytes=1-3"}, "If-Range": {later}}, 200, alphabet},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := alphabetFile()
			if c.change != nil {
				c.change(&f)
			}
			resp := ask(t, NewFileHandler(&fakeFiles{file: f}, Config{}), http.MethodGet, "/a", c.header)
			got := bodyOf(t, resp)
			if resp.StatusCode != c.status || resp.StatusCode < 400 && got != c.body {
				t.Errorf("%d %q; want %d %q", resp.StatusCode, got, c.status, c.body)
			}
			if c.status == 304 {
				wantHeader(t, resp, map[string]string{"ETag": `"abc"`, "Cache-Control": "max-age=60", "Content-Type": "", "Content-Length": ""})
			}
		})
	}
}

func TestSeveralRangesOfAFileAreSentInOneAnswer(t *testing.T) {
	t.Parallel()
	resp := ask(t, NewFileHandler(&fakeFiles{file: alphabetFile()}, Config{}), http.MethodGet, "/a", http.Header{"Range": {"bytes=0-1,-1"}})
	body := bodyOf(t, resp)
	if resp.StatusCode != http.StatusPartialContent || !strings.HasPrefix(resp.Header.Get("Content-Type"), "multipart/byteranges; boundary=") ||
		strings.Count(body, "Content-Type: text/x-alphabet\r\n") != 2 || !strings.Contains(body, "Content-Range: bytes 25-25/26\r\n\r\nz\r\n") {
		t.Errorf("%d %v %q", resp.StatusCode, resp.Header, body)
	}
}

func TestPathOfAFileIsKeptAsItWasSentUnlessItCouldLeadOut(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]int{
		"/up/a%2Fb/C%2fd/%e2%82%ac":       200,
		"/up/a..b/...c/.d/e./x":           200,
		"/up//a":                          200,
		"/":                               200,
		"/up/%25":                         200,
		"/up/../a":                        400,
		"/up/./a":                         400,
		"/up/a/..":                        400,
		"/up/%2e%2E/a":                    400,
		"/up/.%2e/a":                      400,
		"/up/a%2f..%2fb":                  400,
		"/up/..%5ca":                      400,
		"/up/%252e%252e/a":                400,
		"/up/%25252e%25252e%25252fa":      400,
		"/up/..;x/a":                      400,
		"/up/%00":                         400,
		"/up/a%0d%0aX-Evil:%20b":          400,
		"/up/" + strings.Repeat("a", 9e3): 414,
	} {
		files := &fakeFiles{file: alphabetFile()}
		resp := ask(t, NewFileHandler(files, Config{}), http.MethodGet, path+"?q=%2F", nil)
		if resp.StatusCode != want {
			t.Errorf("%s: %d %s; want %d", path, resp.StatusCode, bodyOf(t, resp), want)
		}
		if want == 200 && (files.asked.Path != path[1:] || files.asked.Query != "q=%2F") {
			t.Errorf("%s became %+v", path, files.asked)
		}
	}
}

func TestErrorsAboutFilesAreTextUnlessJSONIsWanted(t *testing.T) {
	t.Parallel()
	h := NewFileHandler(&fakeFiles{err: Errorf(errcode.ErrorCodeNameUnknown, "there is no file a")}, Config{})
	resp := ask(t, h, http.MethodGet, "/a", nil)
	if got := bodyOf(t, resp); resp.StatusCode != http.StatusNotFound || got != "there is no file a\n" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%d %v %q", resp.StatusCode, resp.Header, got)
	}
	resp = ask(t, h, http.MethodGet, "/a", http.Header{"Accept": {"application/json"}})
	if got := bodyOf(t, resp); !strings.Contains(got, `"NAME_UNKNOWN"`) || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%v %q", resp.Header, got)
	}
	resp = ask(t, h, http.MethodPut, "/a", nil)
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func TestFileThatBreaksIsCut(t *testing.T) {
	t.Parallel()
	f := alphabetFile()
	f.Content = &memory{bytes: []byte(alphabet), failAt: 10}
	defer func() {
		if r := recover(); fmt.Sprint(r) != fmt.Sprint(http.ErrAbortHandler) {
			t.Errorf("the handler ended with %v", r)
		}
	}()
	ask(t, NewFileHandler(&fakeFiles{file: f}, Config{}), http.MethodGet, "/a", nil)
	t.Error("the answer is complete")
}
