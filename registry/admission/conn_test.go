package admission

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"entrepot/registry"
)

func TestWhatIsGatheredComesBeforeAFileThatTheKernelSends(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	content := bytes.Repeat([]byte("f"), 100<<10)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(*conn)
		var gatherer registry.Gatherer = c
		gatherer.Gather(int64(6<<10 + len(content)))
		w.Header().Set("Content-Length", strconv.Itoa(6<<10+len(content)))
		_, _ = w.Write(bytes.Repeat([]byte("h"), 6<<10))
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if n, err := w.(io.ReaderFrom).ReadFrom(f); err != nil || n != int64(len(content)) {
			t.Errorf("sent %d bytes of the file, %v", n, err)
		}
	})
	resp := s.get(t, client(t, "127.0.0.2"), "/")
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, append(bytes.Repeat([]byte("h"), 6<<10), content...)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
