package testenv

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Place is where on a network a process is. The zero Place is that of the test,
// where all have the address 127.0.0.1.
type Place struct {
	namespace string // file of a network namespace
	address   string // that processes at the place have
	outside   string // that the test has for them
}

// Network is the address range of all places, for who has to trust them.
const Network = "10.87.0.0/16"

// host is the address that a process at the place listens on.
func (p Place) host() string {
	if p.address == "" {
		return "127.0.0.1"
	}
	return p.address
}

// server is the address at which the test listens for processes at the place.
func (p Place) server() string {
	if p.outside == "" {
		return "127.0.0.1"
	}
	return p.outside
}

// listen is a free host:port for a process at the place.
func (p Place) listen(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort(p.host(), strconv.Itoa(FreePort(t)))
}

// AdminToken is what the admin listeners of processes want that are not where the test
// is.
const AdminToken = "the-admin-of-this-test"

// admin is the admin section of a configuration: a listener that others can reach
// takes a token.
func (p Place) admin(address string) map[string]any {
	section := map[string]any{"listen": address}
	if p.address != "" {
		section["token"] = AdminToken
	}
	return section
}

// command is a program that runs at the place. nsenter becomes the program, so that
// signals reach it.
func (p Place) command(path string, args ...string) *exec.Cmd {
	if p.namespace == "" {
		return exec.Command(path, args...)
	}
	return exec.Command("nsenter", append([]string{"--net=" + p.namespace, "--", path}, args...)...)
}

// Cables are places, each a network namespace with a cable to that of the test. They
// break as networks do: packets vanish, and nobody is told. They are part of the
// machine of a process with [AloneAttr], and are gone with it.
type Cables struct {
	t       testing.TB
	ip, tc  string // programs
	nft     string
	places  map[string]Place
	devices map[string]string // the test's ends of cables
}

// cutRules drop the packets of a place to or from a port, at either end.
const cutRules = `table inet cables {
	set cut { type ipv4_addr . inet_service; counter; }
	chain in { type filter hook input priority 0; ip saddr . tcp dport @cut drop; ip saddr . tcp sport @cut drop; }
	chain out { type filter hook output priority 0; ip daddr . tcp dport @cut drop; ip daddr . tcp sport @cut drop; }
}
`

// LayCables makes places with the names, until the test ends. The calling process has
// to have [AloneAttr].
func LayCables(t testing.TB, names ...string) *Cables {
	t.Helper()
	c := &Cables{
		t: t, ip: Debian(t, "ip", "iproute2"), tc: Debian(t, "tc", "iproute2"), nft: Debian(t, "nft", "nftables"),
		places: map[string]Place{}, devices: map[string]string{},
	}
	const named = "/run/netns" // of this machine alone
	err := os.MkdirAll(named, 0o755)
	if err == nil {
		err = unix.Mount("places", named, "tmpfs", 0, "")
	}
	if err != nil {
		t.Fatalf("making room for network namespaces: %v", err)
	}
	t.Cleanup(func() {
		c.run(c.nft, "delete", "table", "inet", "cables")
		for name, device := range c.devices {
			c.run(c.ip, "link", "delete", device)
			c.run(c.ip, "netns", "delete", name)
		}
		if err := unix.Unmount(named, 0); err != nil {
			t.Errorf("taking network namespaces away: %v", err)
		}
	})
	for i, name := range names {
		p := Place{namespace: named + "/" + name, address: fmt.Sprintf("10.87.%d.2", i+1), outside: fmt.Sprintf("10.87.%d.1", i+1)}
		device := "cable-" + name
		c.run(c.ip, "netns", "add", name)
		c.run(c.ip, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name)
		c.run(c.ip, "address", "add", p.outside+"/24", "dev", device)
		c.run(c.ip, "link", "set", device, "up")
		c.run(c.ip, "-n", name, "address", "add", p.address+"/24", "dev", "eth0")
		c.run(c.ip, "-n", name, "link", "set", "lo", "up")
		c.run(c.ip, "-n", name, "link", "set", "eth0", "up")
		c.places[name], c.devices[name] = p, device
	}
	c.feed(cutRules, c.nft, "-f", "-")
	return c
}

// Place is the place with a name.
func (c *Cables) Place(name string) Place { return c.places[name] }

// Cut has what passes between a place and the server at an address, host:port,
// vanish, in both directions. Either of them may be the one at the place.
func (c *Cables) Cut(name, server string) { c.element("add", name, server) }

// Mend ends [Cables.Cut], and says how many packets had vanished.
func (c *Cables) Mend(name, server string) (packets int) {
	said := c.element("get", name, server)
	if found := packetsPattern.FindStringSubmatch(said); found != nil {
		packets, _ = strconv.Atoi(found[1]) // they are digits
	}
	c.element("delete", name, server)
	return packets
}

var packetsPattern = regexp.MustCompile(`counter packets (\d+)`)

func (c *Cables) element(verb, name, server string) string {
	_, port, err := net.SplitHostPort(server)
	if err != nil {
		c.t.Errorf("cutting the cable of %s: %v", name, err)
	}
	return c.run(c.nft, verb, "element", "inet", "cables", "cut", "{ "+c.places[name].address+" . "+port+" }")
}

// Unplug pulls the cable of a place, and Plug puts it back.
func (c *Cables) Unplug(name string) { c.run(c.ip, "-n", name, "link", "set", "eth0", "down") }

// Plug ends [Cables.Unplug].
func (c *Cables) Plug(name string) { c.run(c.ip, "-n", name, "link", "set", "eth0", "up") }

// Crowd lets so many bytes a second through to a place, by a queue so short that
// packets are lost, as on a line that others fill.
func (c *Cables) Crowd(name string, rate int) {
	c.run(c.tc, "qdisc", "replace", "dev", c.devices[name], "root", "tbf", "rate", strconv.Itoa(rate*8)+"bit", "burst", "16k", "limit", "24k")
}

// Clear ends [Cables.Crowd], and says how many packets were lost.
func (c *Cables) Clear(name string) (packets int) {
	said := c.run(c.tc, "-s", "qdisc", "show", "dev", c.devices[name])
	if found := droppedPattern.FindStringSubmatch(said); found != nil {
		packets, _ = strconv.Atoi(found[1]) // they are digits
	}
	c.run(c.tc, "qdisc", "delete", "dev", c.devices[name], "root")
	return packets
}

var droppedPattern = regexp.MustCompile(`\(dropped (\d+),`)

func (c *Cables) run(program string, args ...string) string { return c.feed("", program, args...) }

func (c *Cables) feed(input, program string, args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(c.t.Context()), program, args...) // also to tidy up
	cmd.Stdin = strings.NewReader(input)
	said, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Errorf("%s: %v\n%s", cmd, err, said)
	}
	return string(said)
}
