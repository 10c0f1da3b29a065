package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"entrepot/registry"
)

// everyone is the identity of a rule for all that the file has.
const everyone = "*"

// Rule lets an identity write to some names. What no rule lets is denied.
type Rule struct {
	// Identity is one of the htpasswd file, or "*" for all of them.
	Identity string
	// Repositories and Files are patterns: see [Pattern].
	Repositories []string
	Files        []string
	// Actions are what may be done: registry.ActionPush, registry.ActionDelete.
	Actions []registry.Action
}

// kind is what a name is a name of.
type kind uint8

const (
	kindRepository kind = iota
	kindFile
)

func (k kind) String() string {
	if k == kindFile {
		return "file"
	}
	return "repository"
}

// rule is a Rule that was read.
type rule struct {
	identity string
	actions  []registry.Action
	patterns [2][]Pattern // by kind
}

// rules are what was configured; none let everybody do everything.
type rules []rule

// newRules reads rules. Its error names every problem.
func newRules(configured []Rule) (rules, error) {
	var all rules
	var problems []error
	for i, c := range configured {
		r := rule{identity: c.Identity, actions: c.Actions}
		problem := func(format string, args ...any) {
			problems = append(problems, fmt.Errorf("rule %d (identity %q): %w", i+1, c.Identity, fmt.Errorf(format, args...)))
		}
		if c.Identity == "" {
			problem(`it names no identity: "*" means all of the htpasswd file`)
		}
		if len(c.Repositories)+len(c.Files) == 0 {
			problem("it names neither repositories nor files")
		}
		if len(c.Actions) == 0 {
			problem("it names no actions: want %s, %s or both", registry.ActionPush, registry.ActionDelete)
		}
		for _, action := range c.Actions {
			if action != registry.ActionPush && action != registry.ActionDelete {
				problem("there is no action %q: want %s or %s", action, registry.ActionPush, registry.ActionDelete)
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
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return all, nil
}

// identities are those that the rules name.
func (all rules) identities() []string {
	var names []string
	for _, r := range all {
		if r.identity != everyone && !slices.Contains(names, r.identity) {
			names = append(names, r.identity)
		}
	}
	return names
}

// allow is nil when an identity may do something, else an error for the client
// that says what it may do instead.
func (all rules) allow(identity string, action registry.Action, kind kind, name string) error {
	if len(all) == 0 {
		return nil
	}
	var others []string
	for _, r := range all {
		if r.identity != identity && r.identity != everyone || !slices.Contains(r.actions, action) {
			continue
		}
		for _, pattern := range r.patterns[kind] {
			if pattern.Match(name) {
				return nil
			}
			if text := pattern.String(); !slices.Contains(others, text) {
				others = append(others, text)
			}
		}
	}
	if len(others) == 0 {
		return fmt.Errorf("identity %q may not %s any %v: no rule lets it", identity, action, kind)
	}
	return fmt.Errorf("identity %q may not %s %v %.200q: its rules have %s", identity, action, kind, name, strings.Join(others, ", "))
}
