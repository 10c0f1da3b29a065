package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"
)

// secrets are what nobody but whom it is for may see, by what they are.
var secrets = map[string]string{
	"the registry's password":     "registry+pass/word",
	"the token":                   "eyJhbGciOi.upstream-token.x",
	"the file server's password":  "file&server=password",
	"the bucket's key":            "bucket+secret/key0000000000",
	"the signature of a redirect": "signature0123456789abcdef",
	"the user info of a redirect": "userinfo-of-a-redirect",
	"the admin token":             "admin-token-0123456789",
	"a client's password":         "clients-own-password",
}

// tellTale finds secrets in a text, in whichever usual form.
func tellTale(t *testing.T, where, text string) {
	t.Helper()
	for what, secret := range secrets {
		forms := []string{secret, url.QueryEscape(secret), url.PathEscape(secret)}
		for _, name := range []string{"mirror", "alice"} {
			forms = append(forms, base64.StdEncoding.EncodeToString([]byte(name+":"+secret)))
		}
		quoted, err := json.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range append(forms, strings.Trim(string(quoted), `"`)) {
			if at := strings.Index(text, form); at >= 0 {
				t.Errorf("%s tells %s: …%q", where, what, text[max(0, at-200):min(len(text), at+100)])
				break
			}
		}
	}
}

// stranger is a host that upstreams redirect to. It keeps what it is sent.
type stranger struct {
	*httptest.Server

	mu   sync.Mutex
	seen []string
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	s := &stranger{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var headers bytes.Buffer
		_ = r.Header.Write(&headers)
		s.mu.Lock()
		s.seen = append(s.seen, headers.String())
		s.mu.Unlock()
		misbehave(w, r, strings.TrimPrefix(r.URL.Path, "/"))
	}))
	t.Cleanup(s.Close)
	return s
}

// misbehaviours are the ways in which a server fails, or does not. Those for which it
// is left alone a while come last.
var misbehaviours = []string{"well", "missing", "forbidden", "unauthorized", "echo", "encoded", "garbled", "wrong", "cut", "limited", "silent", "broken"}

var content = []byte(strings.Repeat("content ", 64<<10))

// misbehave answers with content, or fails as it is told; with all that it knows, in
// headers and body.
func misbehave(w http.ResponseWriter, r *http.Request, how string) {
	status := map[string]int{
		"missing": 404, "forbidden": 403, "unauthorized": 401, "limited": 429, "broken": 500, "echo": 418,
	}[how]
	switch {
	case status != 0:
		w.Header().Set("X-Request", r.Header.Get("Authorization")+r.URL.RawQuery)
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"%s %s"}]}`, r.Header.Get("Authorization"), r.URL.String())
	case how == "cut":
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:len(content)/2])
	case how == "wrong":
		_, _ = w.Write(bytes.ToUpper(content))
	case how == "garbled":
		w.Header().Set("Content-Range", "bytes what?")
		w.WriteHeader(http.StatusPartialContent)
	case how == "silent":
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	case how == "encoded":
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(content)
	default:
		_, _ = w.Write(content)
	}
}

// newKeeper is a registry and file server that wants credentials: a token of its
// own token server, or a password. It misbehaves as the repository says, itself or by
// a redirect to a stranger.
func newKeeper(t *testing.T, elsewhere *stranger) *httptest.Server {
	t.Helper()
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		knows := func(what string) bool { return name == "mirror" && password == secrets[what] }
		image := strings.HasPrefix(r.URL.Path, "/v2/")
		switch {
		case r.URL.Path == "/token" && knows("the registry's password"):
			_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, secrets["the token"])
			return
		case r.URL.Path == "/token":
			misbehave(w, r, "unauthorized")
			return
		case image && r.Header.Get("Authorization") != "Bearer "+secrets["the token"]:
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s"`, s.URL))
			misbehave(w, r, "unauthorized")
			return
		case !image && !knows("the file server's password"):
			w.Header().Set("Www-Authenticate", `Basic realm="files"`)
			misbehave(w, r, "unauthorized")
			return
		}
		elements := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2"), "/")
		how := elements[2]
		target := elsewhere.URL + "/" + how + "?X-Amz-Signature=" + secrets["the signature of a redirect"]
		switch elements[1] {
		case "redirect":
			http.Redirect(w, r, target, http.StatusTemporaryRedirect) //nolint:gosec // to a server of the test
		case "userinfo":
			http.Redirect(w, r, strings.Replace(target, "://", "://me:"+secrets["the user info of a redirect"]+"@", 1), http.StatusTemporaryRedirect) //nolint:gosec // to a server of the test
		case "down":
			http.Redirect(w, r, "http://127.0.0.1:1/x?X-Amz-Signature="+secrets["the signature of a redirect"], http.StatusTemporaryRedirect)
		case "nonsense":
			w.Header().Set("Location", "ftp://me:"+secrets["the user info of a redirect"]+"@host/?"+secrets["the signature of a redirect"])
			w.WriteHeader(http.StatusFound)
		default:
			misbehave(w, r, how)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// Upstream's credentials, the bucket's, the operator's and clients' are in no log,
// answer, metric, redirect or message, and are sent to nobody else, whatever fails.
func TestCredentialsAreToldToNobodyWhateverFails(t *testing.T) {
	elsewhere := newStranger(t)
	keeper := newKeeper(t, elsewhere)
	bucket := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { misbehave(w, r, "forbidden") }))
	t.Cleanup(bucket.Close)
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte(secrets["a client's password"]), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("FILES_PASSWORD", secrets["the file server's password"])
	t.Setenv("ADMIN_TOKEN", secrets["the admin token"])
	config := fmt.Sprintf(`
log: {level: debug}
admin: {listen: "127.0.0.1:0", token: "${ADMIN_TOKEN}"}
node:
  listen: 127.0.0.1:0
  store:
    s3: {endpoint: %q, bucket: mirror, access_key: key, secret_key: "${file:%s}", redirect: true}
    cache: {dir: %q}
  access: {htpasswd: %q}
  upstreams:
    private.test: {urls: [%q], private: true, username: mirror, password: "${file:%s}", response_timeout: 2s, stall_timeout: 2s}
    wrong.test: {urls: [%q], username: mirror, password: "${FILES_PASSWORD}", response_timeout: 2s}
  files:
    files.test: {urls: [%q], private: true, username: mirror, password: "${FILES_PASSWORD}", redirect_hosts: ["127.0.0.1"], response_timeout: 2s, stall_timeout: 2s}
`, bucket.URL, writeFile(t, dir, "bucket", secrets["the bucket's key"]+"\n"), dir+"/cache",
		writeFile(t, dir, "htpasswd", "alice:"+string(hash)+"\n"), keeper.URL,
		writeFile(t, dir, "password", secrets["the registry's password"]), keeper.URL, keeper.URL)
	p := start(t, config)

	served := 0
	ask := func(method, target string, with func(*http.Request)) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.node+target, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		with(r)
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var all bytes.Buffer
		_ = resp.Header.Write(&all)
		_, _ = io.Copy(&all, resp.Body) // which is cut where upstream was
		if bytes.Contains(all.Bytes(), content) {
			served++
		}
		tellTale(t, method+" "+target, all.String())
	}
	alice := func(r *http.Request) { r.SetBasicAuth("alice", secrets["a client's password"]) }
	for _, how := range misbehaviours {
		for _, way := range []string{"direct", "redirect", "userinfo", "down", "nonsense"} {
			if how != "well" && (way == "down" || way == "nonsense") {
				continue // they get no further
			}
			repository := way + "/" + how
			for _, upstream := range []string{"private.test", "wrong.test"} {
				for _, target := range []string{"/manifests/1", "/manifests/sha256:" + strings.Repeat("a", 64), "/blobs/" + digest.FromBytes(content).String(), "/tags/list", "/referrers/sha256:" + strings.Repeat("a", 64)} {
					ask(http.MethodGet, "/v2/"+upstream+"/"+repository+target, alice)
				}
				ask(http.MethodHead, "/v2/"+upstream+"/"+repository+"/blobs/"+digest.FromBytes(content).String(), alice)
			}
			ask(http.MethodGet, "/files.test/"+repository, alice)
			ask(http.MethodHead, "/files.test/"+repository+"?head", alice)
		}
	}
	for _, with := range []func(*http.Request){
		func(r *http.Request) { r.SetBasicAuth("alice", secrets["a client's password"]+"x") },
		func(r *http.Request) { r.SetBasicAuth("bob", secrets["a client's password"]) },
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secrets["the token"]) },
		func(*http.Request) {},
	} {
		ask(http.MethodGet, "/v2/", with)
		ask(http.MethodGet, "/v2/private.test/direct/well/blobs/"+digest.FromBytes(content).String(), with)
	}
	if served < 4 {
		t.Errorf("%d requests were served: this shows little", served)
	}

	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.admin+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secrets["the admin token"])
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(metrics, []byte("entrepot_requests_total")) {
		t.Fatalf("metrics: %v, %.200s", err, metrics)
	}
	tellTale(t, "/metrics", string(metrics))
	for _, path := range []string{"/metrics", "/", "/nowhere"} {
		_, body := get(t, "http://"+p.admin+path)
		tellTale(t, "the admin listener", body)
	}

	elsewhere.mu.Lock()
	seen := slices.Clone(elsewhere.seen)
	elsewhere.mu.Unlock()
	if len(seen) == 0 {
		t.Error("no redirect was followed: this shows little")
	}
	for _, headers := range seen {
		tellTale(t, "a request to another host", headers)
		if strings.Contains(headers, "Authorization") {
			t.Errorf("a request to another host is authorized: %s", headers)
		}
	}

	right := command(t, "config", "check", writeFile(t, dir, "right.yaml", config))
	stdout, stderr, status := finish(t, right)
	if status != 0 {
		t.Errorf("config check: status %d, %s", status, stderr)
	}
	tellTale(t, "config check", stdout+stderr)
	for what, change := range map[string][2]string{
		"a secret as a number":  {"response_timeout: 2s", `response_timeout: "${ADMIN_TOKEN}"`},
		"a secret as a URL":     {"endpoint: ", `endpoint: "${FILES_PASSWORD}" #`},
		"a secret as a pattern": {`access: {`, `access: {anonymous: [{repositories: ["//${ADMIN_TOKEN}"]}], `},
		"a secret as an issuer": {`access: {`, `access: {tokens: {issuer: "${ADMIN_TOKEN}", audience: a, jwks: "http://${ADMIN_TOKEN}.test/"}, `},
		"a secret as a name":    {`access: {`, `access: {rules: [{identity: "${ADMIN_TOKEN}"}], `},
	} {
		wrong := strings.Replace(config, change[0], change[1], 1)
		stdout, stderr, status := finish(t, command(t, "config", "check", writeFile(t, dir, "wrong.yaml", wrong)))
		if status == 0 {
			t.Errorf("%s is right", what)
		}
		tellTale(t, what+" in config check", stdout+stderr)
	}

	p.signal(t, syscall.SIGTERM)
	p.exit(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		text, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		tellTale(t, "the log", string(text))
	}
	if len(p.lines) < 100 {
		t.Errorf("the log has %d lines: this shows little", len(p.lines))
	}
}
