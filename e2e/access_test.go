package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
)

// guarded is a node with a public upstream and a private one, whose repositories are
// two teams'.
type guarded struct {
	*testenv.Node
	public, teamA, teamB testenv.Artifact
}

func startGuarded(t *testing.T, access map[string]any, extra map[string]any) guarded {
	t.Helper()
	open, private := testenv.StartRegistry(t), testenv.StartRegistry(t)
	g := guarded{
		public: testenv.PushIndex(t, open.Host(), "library/app", "1"),
		teamA:  testenv.PushIndex(t, private.Host(), "team-a/app", "1"),
		teamB:  testenv.PushFile(t, private.Host(), "team-b/app", "1", 1<<20),
	}
	node := map[string]any{
		"upstreams": map[string]any{
			"docker.io":    map[string]any{"urls": []string{open.URL()}},
			"private.test": map[string]any{"urls": []string{private.URL()}, "private": true},
		},
		"access": access,
	}
	maps.Copy(node, extra)
	g.Node = testenv.StartNode(t, testenv.NodeConfig{DefaultUpstream: "docker.io", Extra: node})
	return g
}

// wantTogether checks that all of a client's commands go well, or that one does not.
func wantTogether(t *testing.T, want bool, home, program string, commands ...[]string) {
	t.Helper()
	for _, args := range commands {
		if testenv.Run(t, testenv.ClientIn(t, home, program, args...)).Status != 0 {
			if want {
				t.Errorf("%s %q failed", filepath.Base(program), args)
			}
			return
		}
	}
	if !want {
		t.Errorf("%s %q went well", filepath.Base(program), commands)
	}
}

// pullsBy are the commands by which real clients pull from an address, after they
// logged in where there is a name.
func pullsBy(t *testing.T, address, name, password string) map[string]func(want bool, image string) {
	t.Helper()
	home := func() string { return testenv.Home(t, address, name, password) }
	crane, skopeo, oras := testenv.Tool(t, "crane"), testenv.Debian(t, "skopeo", "skopeo"), testenv.Tool(t, "oras")
	return map[string]func(bool, string){
		"crane": func(want bool, image string) {
			h := home()
			wantTogether(t, want, h, crane, []string{"pull", "--insecure", "--format", "oci", "--platform", "linux/amd64", address + "/" + image, filepath.Join(h, "out")})
		},
		"skopeo": func(want bool, image string) {
			h := home()
			wantTogether(t, want, h, skopeo, []string{"copy", "--insecure-policy", "--src-tls-verify=false", "--override-os", "linux", "--override-arch", "amd64", "docker://" + address + "/" + image, "dir:" + filepath.Join(h, "out")})
		},
		"oras": func(want bool, image string) {
			wantTogether(t, want, home(), oras, []string{"copy", "--no-tty", "--from-plain-http", "--platform", "linux/amd64", address + "/" + image, "--to-oci-layout", "out:1"})
		},
	}
}

func TestRealClientsPullWhatTheirPasswordLets(t *testing.T) {
	passwords := map[string]string{"alice": "wonderland", "bob": "builder"}
	g := startGuarded(t, map[string]any{
		"htpasswd":  testenv.Htpasswd(t, passwords),
		"anonymous": []any{map[string]any{"upstreams": []string{"docker.io"}, "repositories": []string{"library/**"}}},
		"rules": []any{
			map[string]any{"identity": "alice", "upstreams": []string{"private.test"}, "repositories": []string{"team-a/**"}},
			map[string]any{"identity": "bob", "upstreams": []string{"private.test"}, "repositories": []string{"team-b/**"}},
		},
	}, nil)
	publicImage, image := "docker.io/"+g.public.Name(), "private.test/"+g.teamA.Name()
	for who, c := range map[string]struct {
		name, password  string
		private, public bool
	}{
		"alice":            {"alice", "wonderland", true, true},
		"bob":              {"bob", "builder", false, true},
		"nobody":           {"", "", false, true},
		"a wrong password": {"alice", "builder", false, false},
	} {
		for client, pull := range pullsBy(t, g.Address(), c.name, c.password) {
			t.Log(client, who)
			pull(c.private, image)
			if who == "a wrong password" && client == "oras" {
				continue // it sends none where none is asked for
			}
			pull(c.public, publicImage)
		}
	}

	skopeo, oras := testenv.Debian(t, "skopeo", "skopeo"), testenv.Tool(t, "oras")
	for password, want := range map[string]bool{"wonderland": true, "wrong": false} {
		home := testenv.Home(t, "", "", "")
		wantTogether(t, want, home, skopeo, []string{"login", "--tls-verify=false", "--username", "alice", "--password", password, g.Address()})
		wantTogether(t, want, home, oras, []string{"login", "--plain-http", "--username", "alice", "--password", password, g.Address()})
	}

	// Alice's pulls have her blobs in the store. Bob knows their digests.
	get := func(name, path string) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if name != "" {
			r.SetBasicAuth(name, passwords[name])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, string(body)
	}
	blob := "/blobs/" + string(g.teamA.Blobs[0].Digest)
	for _, c := range []struct {
		name, path string
		want       int
	}{
		{"alice", "/v2/private.test/team-a/app" + blob, 200},
		{"bob", "/v2/private.test/team-a/app" + blob, 403},
		{"bob", "/v2/private.test/team-b/app" + blob, 404},
		{"bob", "/v2/docker.io/library/app" + blob, 404},
		{"", "/v2/docker.io/library/app" + blob, 404},
		{"bob", "/v2/private.test/team-a/app/tags/list", 403},
		{"bob", "/v2/private.test/team-a/nowhere/tags/list", 403},
		{"", "/v2/private.test/team-a/app/tags/list", 401},
		{"", "/v2/private.test/team-a/nowhere/tags/list", 401},
		{"", "/v2/nowhere.test/team-a/app/tags/list", 401},
	} {
		status, header, body := get(c.name, c.path)
		if status != c.want {
			t.Errorf("%q gets %d for %s; want %d: %.200s", c.name, status, c.path, c.want, body)
		}
		if status == 200 && !strings.HasPrefix(header.Get("Cache-Control"), "private") {
			t.Errorf("%s has Cache-Control %q", c.path, header.Get("Cache-Control"))
		}
	}
}

func TestRealClientsGetTokensFromATokenServer(t *testing.T) {
	server := testenv.StartTokenServer(t, map[string]string{"alice": "wonderland", "bob": "builder"}, map[string][]string{
		"":      {"docker.io/library/app", "library/app"},
		"alice": {"private.test/team-a/app"},
		"bob":   {"private.test/team-b/app", "team-a/app"}, // the second is of the default upstream
	})
	g := startGuarded(t, map[string]any{"tokens": server.Config()}, nil)
	publicImage, image := "docker.io/"+g.public.Name(), "private.test/"+g.teamA.Name()
	for who, c := range map[string]struct {
		name, password string
		image          string
		want           bool
	}{
		"alice":                          {"alice", "wonderland", image, true},
		"bob":                            {"bob", "builder", image, false},
		"nobody":                         {"", "", image, false},
		"a wrong password":               {"alice", "builder", image, false},
		"nobody, what is public":         {"", "", publicImage, true},
		"nobody, the default's":          {"", "", g.public.Name(), true},
		"alice, what only others may":    {"alice", "wonderland", publicImage, false},
		"bob, what another upstream has": {"bob", "builder", "team-a/app:1", false},
	} {
		for client, pull := range pullsBy(t, g.Address(), c.name, c.password) {
			if client == "oras" {
				continue // it takes no token server on loopback
			}
			t.Log(client, who)
			pull(c.want, c.image)
		}
	}
	if scopes := strings.Join(server.Scopes(), " "); !strings.Contains(scopes, "repository:private.test/team-a/app:pull") {
		t.Errorf("clients asked for %s", scopes)
	}
}

func TestRealClientsAreKnownByTheirCertificates(t *testing.T) {
	ours, theirs := testenv.NewAuthority(t), testenv.NewAuthority(t)
	cert, key := ours.Issue("node")
	g := startGuarded(t, map[string]any{
		"client_ca": ours.File,
		"rules":     []any{map[string]any{"identity": "alice", "repositories": []string{"team-a/**"}}},
	}, map[string]any{"tls": map[string]any{"cert": cert, "key": key}})

	curl, skopeo := testenv.Debian(t, "curl", "curl"), testenv.Debian(t, "skopeo", "skopeo")
	url := "https://" + g.Address()
	for who, c := range map[string]struct {
		authority *testenv.Authority
		name      string
		want      bool
	}{
		"alice":               {ours, "alice", true},
		"bob":                 {ours, "bob", false},
		"alice of another CA": {theirs, "alice", false},
		"nobody":              {ours, "", false},
	} {
		t.Log(who)
		home := testenv.Home(t, "", "", "")
		args := []string{"--silent", "--show-error", "--fail", "--cacert", ours.File, url + "/v2/private.test/team-a/app/tags/list"}
		copyCert := func(from, to string) {
			t.Helper()
			text, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(filepath.Join(home, to), text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		copyCert(ours.File, "ca.crt")
		if c.name != "" {
			cert, key := c.authority.Issue(c.name)
			args = append(args, "--cert", cert, "--key", key)
			copyCert(cert, "client.cert")
			copyCert(key, "client.key")
		}
		wantTogether(t, c.want, home, curl, args)
		wantTogether(t, c.want, home, skopeo, []string{
			"copy", "--insecure-policy", "--src-cert-dir", home, "--override-os", "linux", "--override-arch", "amd64",
			"docker://" + g.Address() + "/private.test/" + g.teamA.Name(), "dir:" + filepath.Join(home, "out"),
		})
	}

	// The chain has to be verified, not only presented.
	pool := x509.NewCertPool()
	text, err := os.ReadFile(ours.File)
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal("no authority", err)
	}
	forgedCert, forgedKey := theirs.Issue("alice")
	forged, err := tls.LoadX509KeyPair(forgedCert, forgedKey)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs:              pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &forged, nil },
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url + "/v2/private.test/team-a/app/tags/list")
	if err == nil {
		resp.Body.Close()
		t.Errorf("a forged certificate was answered %s", resp.Status)
	}
}

// The daemons send what they are given by their command lines.
func TestDaemonsPullWhatTheirPasswordLets(t *testing.T) {
	const image = "private.test/"
	g := startGuarded(t, map[string]any{
		"htpasswd": testenv.Htpasswd(t, map[string]string{testenv.Promoter: testenv.PromoterPassword, "bob": "builder"}),
		"rules":    []any{map[string]any{"identity": testenv.Promoter, "repositories": []string{"team-a/**"}}},
	}, nil)
	t.Run("containerd", func(t *testing.T) {
		source := testenv.Source{Address: g.Address(), Upstream: "private.test", Login: true}
		for _, version := range []int{1, 2} {
			puller{"containerd", testenv.Containerd{Version: version}, []testenv.Artifact{g.teamA}}.pull(t, source)
		}
	})
	socket, stop := testenv.StartDockerd(t)
	defer stop()
	docker := testenv.Debian(t, "docker", "docker.io")
	for who, c := range map[string]struct {
		name, password string
		want           bool
	}{
		"who may":          {testenv.Promoter, testenv.PromoterPassword, true},
		"who may not":      {"bob", "builder", false},
		"a wrong password": {testenv.Promoter, "builder", false},
		"nobody":           {"", "", false},
	} {
		t.Run(who, func(t *testing.T) {
			name := g.Address() + "/" + image + g.teamA.Name()
			home := testenv.Home(t, g.Address(), c.name, c.password)
			wantTogether(t, c.want, home, docker, []string{"--host", "unix://" + socket, "pull", "--platform", "linux/amd64", name})
			if c.want {
				wantTogether(t, true, home, docker, []string{"--host", "unix://" + socket, "image", "rm", name})
			}
			if c.name != "" {
				login := testenv.Home(t, "", "", "")
				known := c.password == testenv.PromoterPassword || c.name == "bob"
				wantTogether(t, known, login, docker, []string{"--host", "unix://" + socket, "login", "--username", c.name, "--password", c.password, g.Address()})
			}
		})
	}
}
