package filestore_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestWhoAsksFirstSendsNothingInVain(t *testing.T) {
	s := newSite(t, openDir(t))
	s.put("/a", "x").want(http.StatusCreated)
	server := s.serve()
	for want, request := range map[string]string{
		"409": "/a?digest=" + string(digest.FromString("other")),
		"200": "/a?digest=" + string(digest.FromString("x")),
		"201": "/b?digest=" + string(digest.FromString("x")),
	} {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", request)
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+want) {
			t.Errorf("%s: %s %v, want %s before any content", request, line, err, want)
		}
		c.Close()
	}
}

func TestABodyThatBreaksStoresNothing(t *testing.T) {
	s := newSite(t, openDir(t))
	done := make(chan struct{})
	s.config.Done = func(o *observation) {
		if o.Status != 400 && o.Status != 499 {
			t.Errorf("status %d: %v", o.Status, o.Err)
		}
		close(done)
	}
	s.open()
	server := s.serve()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "PUT /a?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", digest.FromString("half of it"))
	c.Close()
	<-done
	s.config.Done = nil
	s.open()
	s.ask(http.MethodGet, "/a", "").want(http.StatusNotFound)
	s.put("/a", "half of it").want(http.StatusCreated)
}

func TestABodyThatStallsIsGivenUp(t *testing.T) {
	s := newSite(t, openDir(t))
	s.config.WriteTimeout = 50 * time.Millisecond
	s.open()
	server := s.serve()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PUT /a?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", digest.FromString("half of it"))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 408") {
		t.Errorf("got %q, %v", line, err)
	}
}

// The server reads what it can of a body before it answers.
func TestARefusalDoesNotWaitForTheRestOfTheBody(t *testing.T) {
	s := newSite(t, openDir(t))
	s.config.WriteTimeout = 50 * time.Millisecond
	s.open()
	s.put("/a", "x").want(http.StatusCreated)
	server := s.serve()
	for want, request := range map[string]string{
		"409": "PUT /a?digest=" + string(digest.FromString("half of it")),
		"400": "PUT /a?digest=x",
		"405": "POST /a",
	} {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", request)
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+want) {
			t.Errorf("%s: got %q, %v", request, line, err)
		}
		c.Close()
	}
}

func TestAContentOfUnknownLengthIsTaken(t *testing.T) {
	s := newSite(t, openDir(t))
	server := s.serve()
	for range 2 { // new, and there already
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+"/a", io.MultiReader(strings.NewReader("in "), strings.NewReader("chunks")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Repr-Digest", field("in chunks"))
		response, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode >= 300 || r.ContentLength > 0 {
			t.Errorf("status %s", response.Status)
		}
	}
	s.holds("/a", "in chunks")
}
