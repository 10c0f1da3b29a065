package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ReadRule lets an identity read some names. What no rule lets is denied.
type ReadRule struct {
	// Identity is who may: in it, "*" stands for any characters, so that alone
	// it means everybody who is known. Among those of [ReadersConfig.Anonymous]
	// it is empty.
	Identity string
	// Upstreams are those whose names are meant. Without any, all are: for
	// Anonymous, all that are not private.
	Upstreams []string
	// Repositories and Files are patterns of names at those upstreams: see
	// [Pattern].
	Repositories []string
	Files        []string
}

// name is what somebody wants to read: a repository or a file of an upstream.
type name struct {
	kind     kind
	upstream string // "" for one that is none's
	private  bool   // the upstream is
	name     string // for a file the decoded path
}

func (n *name) String() string {
	if n.upstream == "" {
		return n.name
	}
	return n.upstream + "/" + n.name
}

// readRule is a ReadRule that was read.
type readRule struct {
	identity  string
	upstreams []string
	patterns  [2][]Pattern // by kind
}

// newReadRules reads rules. Its error names every problem; which upstreams there
// are is known.
func newReadRules(configured []ReadRule, anonymous bool, known []string) ([]readRule, error) {
	var all []readRule
	var problems []error
	for i, c := range configured {
		r := readRule{identity: c.Identity, upstreams: c.Upstreams}
		problem := func(format string, args ...any) {
			problems = append(problems, fmt.Errorf("rule %d: %w", i+1, fmt.Errorf(format, args...)))
		}
		switch {
		case anonymous && c.Identity != "":
			problem("it names identity %q, and is for those who have none", c.Identity)
		case !anonymous && c.Identity == "":
			problem(`it names no identity: "*" means everybody who is known`)
		}
		if len(c.Repositories)+len(c.Files) == 0 {
			problem("it names neither repositories nor files")
		}
		for _, upstream := range c.Upstreams {
			if !slices.Contains(known, upstream) {
				problem("%q is not an upstream here: there are %s", upstream, strings.Join(known, ", "))
			}
		}
		for kind, texts := range [2][]string{kindRepository: c.Repositories, kindFile: c.Files} {
			for _, text := range texts {
				pattern, err := ParsePattern(text)
				if err != nil {
					problem("%w", err)
					continue
				}
				r.patterns[kind] = append(r.patterns[kind], pattern)
			}
		}
		all = append(all, r)
	}
	return all, errors.Join(problems...)
}

// means says whether a rule is about a name, whoever asks.
func (r *readRule) means(n *name) bool {
	if len(r.upstreams) > 0 && !slices.Contains(r.upstreams, n.upstream) {
		return false
	}
	return slices.ContainsFunc(r.patterns[n.kind], func(p Pattern) bool { return p.matchPath(n.name) })
}

// matchPath is [Pattern.Match] for paths of files, which may be those of folders,
// and may have empty elements, which servers read in more than one way: such are
// meant only by what means all.
func (p Pattern) matchPath(path string) bool {
	if p.text == "**" {
		return true
	}
	return !strings.HasPrefix(path, "/") && !strings.Contains(path, "//") && p.Match(path)
}

// letAnybody says whether a name may be read by those of whom nothing is known.
func letAnybody(rules []readRule, n *name) bool {
	return slices.ContainsFunc(rules, func(r readRule) bool {
		return (len(r.upstreams) > 0 || !n.private) && r.means(n)
	})
}

// let is nil when an identity may read a name, else an error for the client that
// says what it may read instead.
func let(rules []readRule, identity string, n *name) error {
	var others []string
	for i := range rules {
		r := &rules[i]
		if identity == "" || !matchElement(r.identity, identity) {
			continue
		}
		if r.means(n) {
			return nil
		}
		for _, p := range r.patterns[n.kind] {
			text := p.String()
			if len(r.upstreams) > 0 {
				text += " of " + strings.Join(r.upstreams, ", ")
			}
			if !slices.Contains(others, text) {
				others = append(others, text)
			}
		}
	}
	if len(others) == 0 {
		return fmt.Errorf("identity %q may not pull any %v: no rule lets it", identity, n.kind)
	}
	return fmt.Errorf("identity %q may not pull %v %.200q: its rules have %s", identity, n.kind, n, strings.Join(others, "; "))
}
