package clientconf

import (
	"fmt"
	"slices"
	"strings"
)

// kubernetes is where kubeadm's images are.
const kubernetes = "registry.k8s.io"

// kubeadm plans containerd's hosts.toml for Kubernetes' own images: kubeadm has
// the container runtime pull them, by their usual names. What kubeadm could be
// told itself is advice.
func (p *planner) kubeadm() error {
	s := p.server
	i := slices.IndexFunc(s.Upstreams, func(u Upstream) bool { return u.Name == kubernetes })
	if i < 0 {
		return fmt.Errorf("kubeadm pulls from %s, which %s does not have", kubernetes, s.URL)
	}
	if err := p.containerd(s.Upstreams[i : i+1]); err != nil {
		return err
	}
	p.note("with CRI-O instead of containerd: entrepot client-config crio")
	p.plan.Advice = strings.ReplaceAll(strings.ReplaceAll(`# kubeadm needs nothing: its images keep their names, and the container runtime asks
# URL first. Where the runtime cannot be configured, give kubeadm
# other names (v1beta3 before Kubernetes 1.31), and the runtime nothing:
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
imageRepository: HOST/registry.k8s.io
dns:
  imageRepository: HOST/registry.k8s.io/coredns
`, "URL", s.URL.String()), "HOST", s.URL.Host)
	if s.plain() {
		p.plan.Advice += "# Names at " + s.URL.Host + " need HTTPS there, unless the runtime is told otherwise.\n"
	}
	return nil
}

// curl advises how to download files: what downloads has no setting for mirrors
// that would leave other URLs alone.
func (p *planner) curl() {
	s := p.server
	if len(s.Files) == 0 {
		p.plan.Advice = "# " + s.URL.String() + " has no file servers: nothing can be downloaded through it by path.\n"
		return
	}
	base := s.URL.String()
	lines := []string{"# Files come by the name of their server, first in the path:"}
	var hosts []string
	for _, f := range s.Files {
		lines = append(lines, fmt.Sprintf("curl -fLO %s/%s/PATH    # https://%s/PATH", base, f.Name, f.Name))
		hosts = append(hosts, strings.ReplaceAll(f.Name, ".", `\.`))
	}
	lines = append(lines,
		"# In scripts, for curl, wget and others:",
		fmt.Sprintf(`near() { printf '%%s\n' "$1" | sed -E 's#^https?://(%s)/#%s/\1/#'; }`, strings.Join(hosts, "|"), base),
		fmt.Sprintf(`curl -fLO "$(near https://%s/PATH)"`, s.Files[0].Name))
	p.plan.Advice = strings.Join(lines, "\n") + "\n"
}
