package main

import (
	"net"
	"strings"
	"testing"
)

// TestDefaultsLetNobodyWriteAndTellOperatorsOnly looks at what runs without a file:
// no account, key or password comes with the program.
func TestDefaultsLetNobodyWriteAndTellOperatorsOnly(t *testing.T) {
	cfg := standaloneConfig()
	if cfg.Origin.Htpasswd != "" || len(cfg.Origin.Rules) > 0 {
		t.Errorf("somebody may write: %q, %v", cfg.Origin.Htpasswd, cfg.Origin.Rules)
	}
	if host, _, err := net.SplitHostPort(string(cfg.Admin.Listen)); err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("strangers reach the admin listener at %s", cfg.Admin.Listen)
	}
	if len(cfg.Node.TrustedProxies)+len(cfg.Origin.TrustedProxies)+len(cfg.Router.TrustedProxies) > 0 {
		t.Error("somebody is believed whom they ask for")
	}
	for name, u := range cfg.Node.Upstreams {
		if u.Username != "" || u.Password != "" || u.DockerConfig != "" {
			t.Errorf("%s is asked with credentials", name)
		}
		for _, url := range u.URLs {
			if !strings.HasPrefix(string(url), "https://") {
				t.Errorf("%s is asked at %s", name, url)
			}
		}
	}
	for _, l := range cfg.listeners() {
		if l.MaxConnections == 0 || l.MaxRequests == 0 || l.MinRate == 0 || l.HeaderTimeout == 0 || l.IdleTimeout == 0 || l.MaxHeaderSize == 0 || l.MaxStreams == 0 {
			t.Errorf("a listener is without limits: %+v", l)
		}
	}
}
