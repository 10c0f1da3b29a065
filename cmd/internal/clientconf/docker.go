package clientconf

import (
	"errors"
	"fmt"
)

const daemonJSON = "/etc/docker/daemon.json"

// hub is the one registry that docker has mirrors for.
const hub = "docker.io"

// docker plans daemon.json. Docker asks its mirrors for names as well as content,
// and does not say which registry it means.
func (p *planner) docker() error {
	s := p.server
	switch {
	case s.Untrusted:
		return errors.New("docker asks its mirrors what names mean, which an untrusted server is not to say: use containerd or podman with it, or leave out --untrusted")
	case !s.Has(hub):
		return fmt.Errorf("docker has mirrors for %s only, which %s does not have; pull by its own name instead: docker pull %s/UPSTREAM/IMAGE", hub, s.URL, s.URL.Host)
	case s.DefaultUpstream != hub:
		return fmt.Errorf("docker does not tell its mirrors which registry it means, and %s takes that for %q: its default_upstream has to be %s", s.URL, s.DefaultUpstream, hub)
	}
	if _, err := p.ca("/etc/docker/certs.d/" + s.URL.Host + "/ca.crt"); err != nil {
		return err
	}
	err := p.file(daemonJSON, "systemctl reload docker", func(old []byte) ([]byte, part, error) {
		mine := part{Form: listForm, Lists: map[string]string{}}
		text := old
		if blank(text) {
			text = []byte("{}\n")
		}
		text, added, err := addToList(text, "registry-mirrors", s.URL.String())
		if err != nil {
			return nil, mine, err
		}
		if added {
			mine.Lists["registry-mirrors"] = s.URL.String()
		}
		if s.plain() && !s.loopback() { // which docker knows by itself
			if text, added, err = addToList(text, "insecure-registries", s.URL.Host); err != nil {
				return nil, mine, err
			}
			if added {
				mine.Lists["insecure-registries"] = s.URL.Host
			}
		}
		return text, mine, nil
	})
	if err != nil {
		return err
	}
	for _, u := range s.Upstreams {
		if u.Name != hub {
			p.note("docker has no mirrors for %s: docker pull %s/%s/IMAGE", u.Name, s.URL.Host, u.Name)
		}
	}
	return nil
}
