package access

import (
	"strings"
	"testing"

	"entrepot/registry"

	"golang.org/x/crypto/bcrypt"
)

// hash is one of the password "right".
const hash = "$2a$04$qWMSkZQmFRRkcWmmfCd0o.FnLO9bDtMX3Xf4/rgjGzKSMeTP7Yk0K"

func TestEveryProblemOfAFileIsNamedWithItsLine(t *testing.T) {
	_, err := parseTable(strings.Join([]string{
		"# fine",
		"fine:" + hash,
		"alice",
		"bob:$apr1$abc$def",
		"carol:{SHA}5siv5c0SHx681xU6GiSx9ZQryqs=",
		":" + hash,
		"fine:" + hash,
		"dave:" + hash[:50],
		"erin:secret",
		"frank:$6$salt$hash",
		"grace:" + strings.Replace(hash, "$04$", "$31$", 1),
		"heidi:" + strings.Replace(hash, ".", ":", 1),
		"*:" + hash,
		"ivan:",
		"judy:" + strings.Replace(hash, "$04$", "$03$", 1),
		"karl:$2z" + hash[3:],
	}, "\n"))
	const want = `line 3: want identity:hash, as htpasswd -B writes it
line 4: identity "bob" has an MD5 hash ($apr1$): only bcrypt is taken, as htpasswd -B writes it
line 5: identity "carol" has a SHA-1 hash ({SHA}): only bcrypt is taken, as htpasswd -B writes it
line 6: identity "": want 1 to 255 characters, none of them control characters
line 7: identity "fine" is on line 2 already
line 8: identity "dave" has a damaged bcrypt hash of 50 characters: want 60, as htpasswd -B writes it
line 9: identity "erin" has a crypt hash or a plain password: only bcrypt is taken, as htpasswd -B writes it
line 10: identity "frank" has a SHA-512 hash ($6$): only bcrypt is taken, as htpasswd -B writes it
line 11: identity "grace" has a bcrypt hash of cost 31, which takes too long to verify: want at most 15
line 12: identity "heidi" has a damaged bcrypt hash of 60 characters: want 60, as htpasswd -B writes it
line 13: an identity cannot be named "*", which means everyone in rules
line 14: identity "ivan" has no hash: only bcrypt is taken, as htpasswd -B writes it
line 15: identity "judy" has a damaged bcrypt hash: crypto/bcrypt: cost 3 is outside allowed inclusive range 4..31
line 16: identity "karl" has a bcrypt hash of a version that is not known: only bcrypt is taken, as htpasswd -B writes it`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestTheDummyHasTheHighestCostOfTheFile(t *testing.T) {
	table, err := parseTable("a:" + hash + "\nb:" + strings.Replace(hash, "$04$", "$07$", 1) + "\nc:" + hash)
	if err != nil {
		t.Fatal(err)
	}
	if cost, err := bcrypt.Cost(table.dummy); cost != 7 || err != nil {
		t.Errorf("cost %d, %v", cost, err)
	}
	if err := checkHash(string(table.dummy)); err != nil {
		t.Error(err)
	}
}

func FuzzHtpasswd(f *testing.F) {
	f.Add("a:" + hash + "\n")
	f.Add("# c\r\n\r\n a : b\n")
	f.Add("x:$2y$99$" + strings.Repeat("a", 53))
	f.Fuzz(func(t *testing.T, content string) {
		table, err := parseTable(content)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") {
				t.Errorf("an error without a line: %v", err)
			}
			return
		}
		for identity, hash := range table.hashes {
			if cost, err := bcrypt.Cost(hash); err != nil || cost > maxCost || identity == "" {
				t.Errorf("identity %q has hash %q of cost %d: %v", identity, hash, cost, err)
			}
			if cost, _ := bcrypt.Cost(table.dummy); cost > maxCost {
				t.Errorf("the dummy has cost %d", cost)
			}
		}
	})
}

func FuzzRules(f *testing.F) {
	f.Add("promoter", "**", "release/**", "push", "release/v1")
	f.Add("", "a**", "", "pull", "")
	f.Fuzz(func(t *testing.T, identity, repository, file, action, name string) {
		all, err := newRules([]Rule{{Identity: identity, Repositories: []string{repository}, Files: []string{file}, Actions: actions(action)}})
		if err != nil {
			return
		}
		if all.allow(identity+"x", "push", kindFile, name) == nil && identity != everyone {
			t.Error("a rule lets another identity")
		}
		if all.allow(identity, "other", kindRepository, name) == nil {
			t.Error("a rule lets another action")
		}
	})
}

func actions(text string) (all []registry.Action) {
	for action := range strings.SplitSeq(text, ",") {
		all = append(all, registry.Action(action))
	}
	return all
}
