package main

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAProcessOutOfHandlesRecovers(t *testing.T) {
	up := newCrowdedUpstream(t, 64<<10, 0)
	p := start(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: 127.0.0.1:0
  store: {dir: store}
  limits: {max_connections: 0, max_requests: 0}
  upstreams: {up.example: {urls: [%q]}}`, up.URL))
	most := p.files(t) + 40
	limit := unix.Rlimit{Cur: uint64(most), Max: uint64(most)}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	var crowd []net.Conn
	for range 60 { // more than there are handles; of the last the kernel keeps a list
		crowd = append(crowd, connect(t, p.node))
	}
	eventually(t, "the process is out of handles", func() bool { return p.files(t) >= most-1 })
	for _, c := range crowd {
		c.Close()
	}
	for i := range 20 {
		path, content := up.blob(fmt.Sprint(i))
		var a answer
		eventually(t, "a blob is served again", func() bool {
			a = ask(t.Context(), clientAt("127.0.0.3"), "http://"+p.node+path)
			return a.status == http.StatusOK && string(a.body) == string(content)
		})
	}
}
