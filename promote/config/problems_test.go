package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"entrepot/promote/config"
)

// hex is a digest in the tests below; they are told apart by their first letter.
func hex(letter string) string { return strings.Repeat(letter, 64) }

// thin is a tree of images: of each project its destinations, a space between
// them, and its list.
func thin(projects map[string][2]string) map[string]string {
	files := map[string]string{}
	for name, p := range projects {
		manifest := "registries:\n- name: staging.example.org/staging-" + name + "\n  src: true\n"
		for d := range strings.FieldsSeq(p[0]) {
			manifest += "- name: " + d + "\n"
		}
		files["manifests/"+name+"/promoter-manifest.yaml"] = manifest
		files["images/"+name+"/images.yaml"] = p[1]
	}
	return files
}

// problems reads the files and returns what is wrong with them, in the tree's
// own names, and what images and files still stand.
func problems(t *testing.T, files map[string]string, root string) (told, standing []string) {
	t.Helper()
	dir := write(t, files)
	tree, err := config.Read([]string{filepath.Join(dir, root)}, config.Options{MaxFileSize: 2000})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range tree.Problems {
		text := strings.ReplaceAll(p.String(), dir+string(filepath.Separator), "")
		text = strings.ReplaceAll(text, dir, "ROOT")
		if p.Notice {
			text = "(" + text + ")"
		}
		told = append(told, text)
	}
	for _, p := range tree.Projects {
		for _, i := range p.Images {
			for _, e := range i.Entries {
				standing = append(standing, p.Name+"/"+i.Name+"@"+e.Digest.Encoded()[:1]+strings.Join(e.Tags, ","))
			}
		}
		for _, f := range p.Files {
			standing = append(standing, p.Name+"/"+f.Name+"="+f.SHA256.Encoded()[:1])
		}
		for _, r := range p.Removed {
			standing = append(standing, p.Name+"-"+r.String())
		}
	}
	return told, standing
}

func check(t *testing.T, files map[string]string, root string, told, standing []string) {
	t.Helper()
	gotTold, gotStanding := problems(t, files, root)
	if d := diff(told, gotTold); d != "" {
		t.Errorf("problems (-want +got):\n%s", d)
	}
	if d := diff(standing, gotStanding); d != "" {
		t.Errorf("what stands (-want +got):\n%s", d)
	}
}

// Each list is that of a plain file and begins on line 6; beside what is wrong
// it has an image "good", which always stands.
func TestBadEntryOfImagesIsSetAsideAndNamed(t *testing.T) {
	a, b := "sha256:"+hex("a"), "sha256:"+hex("b")
	good := "- name: good\n  dmap: {" + a + ": [v1]}\n"
	for name, test := range map[string]struct {
		list     string
		told     []string
		standing []string
	}{
		"a digest of 63 digits": {
			list:     "- name: x\n  dmap:\n    \"" + a[:len(a)-1] + "\": [v1]\n    " + b + ": [v2]\n",
			told:     []string{`f.yaml:10: digest "` + a[:len(a)-1] + `" of image x has 63 hex digits; want 64; the digest and its tags are set aside`},
			standing: []string{"f/x@bv2"},
		},
		"a digest in capitals": {
			list: "- name: x\n  dmap:\n    " + "sha256:" + hex("A") + ": [v1]\n",
			told: []string{`f.yaml:10: digest "sha256:` + hex("A") + `" of image x has the upper-case digit 'A'; want lower case; the digest and its tags are set aside`},
		},
		"a digest of no algorithm": {
			list: "- name: x\n  dmap:\n    " + hex("a") + ": [v1]\n    md5:12: [v2]\n",
			told: []string{
				`f.yaml:10: digest "` + hex("a") + `" of image x has no algorithm; want sha256: and 64 hex digits; the digest and its tags are set aside`,
				`f.yaml:11: digest "md5:12" of image x has the algorithm "md5"; want sha256 or sha512; the digest and its tags are set aside`,
			},
		},
		"a bad tag beside a good one": {
			list: "- name: x\n  dmap:\n    " + b + ": [v1, v1 beta, -v2, \"\", ~]\n",
			told: []string{
				`f.yaml:10: a tag of image x is empty; want a single value`,
				`f.yaml:10: tag "" of image x is empty; the tag is set aside`,
				`f.yaml:10: tag "-v2" of image x begins with "-"; a tag begins with a letter, a digit or '_'; the tag is set aside`,
				`f.yaml:10: tag "v1 beta" of image x has ' ' in it; a tag has letters, digits, '_', '.' and '-'; the tag is set aside`,
			},
			standing: []string{"f/x@bv1"},
		},
		"only bad tags are not the same as none": {
			list: "- name: x\n  dmap:\n    " + b + ": [\"v:1\"]\n",
			told: []string{`f.yaml:10: tag "v:1" of image x has ':' in it; a tag has letters, digits, '_', '.' and '-'; the tag is set aside`},
		},
		"a tag that is no list": {
			list: "- name: x\n  dmap:\n    " + b + ": v1\n",
			told: []string{`f.yaml:10: the tags of sha256:bbbbbbbbbbbb… of image x are "v1"; want a list, [] for none; the digest is set aside`},
		},
		"bad repository names": {
			list: "- name: Nginx\n- name: x/../y\n- name: x:v1\n- name: x//y\n- name: [x]\n",
			told: []string{
				`f.yaml:8: image name "Nginx" has an upper-case letter; want lower-case letters and digits, joined by '.', '_', '__' or dashes, in elements separated by '/'; the image is set aside`,
				`f.yaml:9: image name "x/../y" has ".." as an element; want lower-case letters and digits, joined by '.', '_', '__' or dashes, in elements separated by '/'; the image is set aside`,
				`f.yaml:10: image name "x:v1" has a colon; tags are the values of dmap; want lower-case letters and digits, joined by '.', '_', '__' or dashes, in elements separated by '/'; the image is set aside`,
				`f.yaml:11: image name "x//y" has an empty element: a slash at an end, or two in a row; want lower-case letters and digits, joined by '.', '_', '__' or dashes, in elements separated by '/'; the image is set aside`,
				`f.yaml:12: the name of an image is a list; want a single value`,
			},
		},
		"a misspelt key": {
			list: "- name: x\n  dmpa:\n    " + b + ": [v1]\n- nome: x\n",
			told: []string{
				`f.yaml:9: unknown key "dmpa" in an image; did you mean "dmap"?; known keys: name, dmap`,
				`f.yaml:11: unknown key "nome" in an image; did you mean "name"?; known keys: name, dmap`,
			},
		},
		"a key twice": {
			list: "- name: x\n  dmap: {}\n  dmap: {}\n",
			told: []string{`f.yaml:10: the key dmap is given twice in an image; keep one`},
		},
		"an image without digests": {
			list: "- name: x\n- dmap: {" + b + ": [v1]}\n",
			told: []string{`(f.yaml:8: image x has no digests)`, `f.yaml:9: an image has no name:; it is set aside`},
		},
		"a tag on two digests belongs to neither": {
			list:     "- name: x\n  dmap:\n    " + a + ": [v1, v2]\n- name: x\n  dmap:\n    " + b + ": [v1]\n",
			told:     []string{`f.yaml:13: tag v1 of image x is given to sha256:bbbbbbbbbbbb… here and to sha256:aaaaaaaaaaaa… on line 10; the tag is set aside in both`},
			standing: []string{"f/x@av2"},
		},
		"the same twice is harmless": {
			list:     "- name: x\n  dmap:\n    " + b + ": [v1]\n    " + b + ": [v2, v1]\n",
			told:     []string{`(f.yaml:11: sha256:bbbbbbbbbbbb… of image x is listed already, on line 10, with nothing new here)`},
			standing: []string{"f/x@bv1,v2"},
		},
		"an alias": {
			list:     "- &one\n  name: x\n  dmap: {" + b + ": [v1]}\n- *one\n",
			told:     []string{`f.yaml:11: an image is an alias, which is not followed; want keys with values: name, dmap`},
			standing: []string{"f/x@bv1"},
		},
		"a removal without a reason": {
			list: "- removed: x:v1\n- revoked: " + b + "\n  reason: \" \"\n",
			told: []string{
				`f.yaml:8: removed has no reason:; say why, for those who read the ledger; it is set aside`,
				`f.yaml:9: revoked has no reason:; say why, for those who read the ledger; it is set aside`,
			},
		},
		"a bad removal": {
			list: "- removed: [x:-1, X, \"x@sha256:12\", gone]\n  reason: old\n- revoked: v1\n  reason: old\n",
			told: []string{
				`f.yaml:8: removed "X" names an image that has an upper-case letter; want lower-case letters and digits, joined by '.', '_', '__' or dashes, in elements separated by '/'; it is set aside`,
				`f.yaml:8: removed "x:-1" begins with "-"; a tag begins with a letter, a digit or '_'; it is set aside`,
				`f.yaml:8: removed "x@sha256:12" has 2 hex digits; want 64; it is set aside`,
				`f.yaml:10: revoked digest "v1" has no algorithm; want sha256: and 64 hex digits; it is set aside`,
			},
			standing: []string{"f-gone"},
		},
		"removed and still listed": {
			list: "- name: x\n  dmap:\n    " + b + ": [v1]\n- removed: [x:v1, \"x@" + b + "\", x, x:v0, x:v0]\n  reason: old\n",
			told: []string{
				`f.yaml:11: x is removed, and listed on line 10; take it from one of them; the removal is set aside`,
				`(f.yaml:11: x:v0 is removed already, on line 11)`,
				`f.yaml:11: x:v1 is removed, and listed on line 10; take it from one of them; the removal is set aside`,
				`f.yaml:11: x@` + b + ` is removed, and listed on line 10; take it from one of them; the removal is set aside`,
			},
			standing: []string{"f/x@bv1", "f-x:v0"},
		},
		"revoked and still listed": {
			list: "- name: x\n  dmap:\n    " + b + ": [v1]\n- revoked: " + b + "\n  reason: leaks\n",
			told: []string{`f.yaml:10: x has the digest sha256:bbbbbbbbbbbb…, which is revoked on line 11; it is set aside`},
		},
		"keys that belong elsewhere": {
			list:     "removed: []\n",
			told:     []string{`f.yaml:8: unknown key "removed" in the file; it is written as an item of the list: "- removed: …" with a "reason: …"; known keys: registries, prune, mutable_tags, images`},
			standing: []string{"none"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			standing := append([]string{"f/good@av1"}, test.standing...)
			if name == "keys that belong elsewhere" {
				standing = nil
			}
			check(t, map[string]string{"f.yaml": plainImages(good + test.list)}, "f.yaml", test.told, standing)
		})
	}
}

func TestBadFileIsSetAsideAndNamed(t *testing.T) {
	head := "filestores:\n- base: gs://staging-x/\n  src: true\n- base: s3://prod/x\nfiles:\n- name: good\n  sha256: " + hex("a") + "\n"
	for name, test := range map[string]struct {
		list     string
		told     []string
		standing []string
	}{
		"bad names": {
			list: "- {name: ../up, sha256: " + hex("b") + "}\n- {name: /root, sha256: " + hex("b") + "}\n- {name: a//b, sha256: " + hex("b") + "}\n" +
				"- {name: a/, sha256: " + hex("b") + "}\n- {name: 'a\\b', sha256: " + hex("b") + "}\n- {name: \"a\\nb\", sha256: " + hex("b") + "}\n",
			told: []string{
				`f.yaml:8: file name "../up" has ".." as an element of its path; the file is set aside`,
				`f.yaml:9: file name "/root" begins with a slash; want it relative to the stores' base; the file is set aside`,
				`f.yaml:10: file name "a//b" has "" as an element of its path; the file is set aside`,
				`f.yaml:11: file name "a/" ends with a slash; want a file, not a folder; the file is set aside`,
				`f.yaml:12: file name "a\\b" has "\" in it; want "/" between folders; the file is set aside`,
				`f.yaml:13: file name "a\nb" has a control character in it; the file is set aside`,
			},
		},
		"bad sha256": {
			list: "- name: a\n  sha256: " + hex("b")[1:] + "\n- name: b\n  sha256: \"sha256:" + hex("b") + "\"\n- name: c\n- sha256: " + hex("c") + "\n",
			told: []string{
				`f.yaml:9: sha256 "` + hex("b")[1:] + `" of file "a" has 63 hex digits; want 64; the file is set aside`,
				`f.yaml:11: sha256 "sha256:` + hex("b") + `" of file "b" begins with sha256:; want the 64 hex digits alone; the file is set aside`,
				`f.yaml:12: a file has no sha256:; it is set aside`,
				`f.yaml:13: a file has no name:; it is set aside`,
			},
		},
		"a name with two contents": {
			list: "- name: x\n  sha256: " + hex("b") + "\n- name: x\n  sha256: " + hex("c") + "\n",
			told: []string{`f.yaml:10: file x has sha256 sha256:cccccccccccc… here and sha256:bbbbbbbbbbbb… on line 8; the file is set aside`},
		},
		"the same twice is harmless": {
			list: "- name: good\n  sha256: " + hex("a") + "\n",
			told: []string{`(f.yaml:8: file good is listed already, in f.yaml, with the same sha256)`},
		},
		"removed and still listed": {
			list:     "- removed: [good, bad]\n  reason: old\n",
			told:     []string{`f.yaml:8: good is removed, and listed on line 6; take it from one of them; the removal is set aside`},
			standing: []string{"f-bad"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, map[string]string{"f.yaml": head + test.list}, "f.yaml", test.told, append([]string{"f/good=a"}, test.standing...))
		})
	}
}

func TestManifestThatCannotBePromotedSetsItsProjectAside(t *testing.T) {
	list := "images:\n- name: x\n  dmap: {sha256:" + hex("a") + ": [v1]}\n"
	src := "- name: staging.example.org/x\n  src: true\n"
	dst := "- name: registry.example.org/x\n"
	stands := []string{"f/x@av1"}
	for name, test := range map[string]struct {
		file     string
		told     []string
		standing []string
	}{
		"no source":                     {"registries:\n" + dst + list, []string{`f.yaml:2: no one of the registries has src: true; want one source; the project is set aside`}, nil},
		"two sources":                   {"registries:\n" + src + src + dst + list, []string{`f.yaml:4: staging.example.org/x is a second source, after staging.example.org/x on line 2; want one; the project is set aside`}, nil},
		"no destination":                {"registries:\n" + src + list, []string{`f.yaml:2: the registries have no destination, only a source; the project is set aside`}, nil},
		"source as its own destination": {"registries:\n" + src + dst + "- name: staging.example.org/x/\n" + list, []string{`f.yaml:5: destination staging.example.org/x is the source as well; the destination is set aside`}, stands},
		"a destination twice":           {"registries:\n" + src + dst + dst + list, []string{`(f.yaml:5: destination registry.example.org/x is listed already, on line 4)`}, stands},
		"bad registries": {
			"registries:\n" + src + dst + "- name: https://example.org/x\n- name: nohost/x\n- name: example.org/X\n- name: example.org:port/x\n- naem: a.b/c\n- name: a.b/c\n  src: maybe\n" + list,
			[]string{
				`f.yaml:5: registry "https://example.org/x" has a scheme; want it without "https://"; it is set aside`,
				`f.yaml:6: registry "nohost/x" does not begin with a registry's host: "nohost" has no dot and no port; it is set aside`,
				`f.yaml:7: registry "example.org/X" has an upper-case letter; want lower-case letters and digits, joined by '.', '_', '__' or dashes, in elements separated by '/'; it is set aside`,
				`f.yaml:8: registry "example.org:port/x" begins with "example.org:port", which is no host name; it is set aside`,
				`f.yaml:9: unknown key "naem" in an item of registries; did you mean "name"?; known keys: name, src, service-account`,
				`f.yaml:11: src is "maybe"; want true or false`,
			},
			stands,
		},
		"bad file stores": {
			"filestores:\n- base: gs://staging\n  src: true\n- base: s3://prod/x\n- base: ftp://a/b\n- base: /srv/x\n- base: s3:///x\n- base: https://user:secret@a/b\n- base: file://srv/x\n- base: gs://a/../b\n- base: https://a/b?c=d\n" +
				"files:\n- name: x\n  sha256: " + hex("a") + "\n",
			[]string{
				`f.yaml:5: file store "ftp://a/b" has the scheme "ftp"; want s3, gs, https or file; it is set aside`,
				`f.yaml:6: file store "/srv/x" has no scheme; want s3://, gs://, https:// or file://; it is set aside`,
				`f.yaml:7: file store "s3:///x" names no bucket or host; it is set aside`,
				`f.yaml:8: a file store has credentials in its name; they do not belong into the configuration; it is set aside`,
				`f.yaml:9: file store "file://srv/x" names the host "srv"; want three slashes: file:///folder; it is set aside`,
				`f.yaml:10: file store "gs://a/../b" has "//", "." or ".." in its path; it is set aside`,
				`f.yaml:11: file store "https://a/b?c=d" has a query or fragment; want a base that names are appended to; it is set aside`,
			},
			[]string{"f/x=a"},
		},
		"bad patterns": {
			"registries:\n" + src + dst + "mutable_tags: [\"[\", latest]\n" + list,
			[]string{`f.yaml:5: "[" in mutable_tags is no pattern: want a tag in which * and ? stand for others; it is set aside`},
			stands,
		},
		"a misspelt key of the file": {
			"registries:\n" + src + dst + "prun: true\n" + list,
			[]string{`f.yaml:5: unknown key "prun" in the file; did you mean "prune"?; known keys: registries, prune, mutable_tags, images`},
			nil,
		},
		"no list": {
			"registries:\n" + src + dst,
			[]string{`f.yaml: the file has no images:; of a thin tree, give the folder that holds manifests/ and images/; the project is set aside`},
			nil,
		},
		"a list alone":     {list, []string{`f.yaml:1: the file has no registries:; the project is set aside`}, nil},
		"no YAML":          {"registries:\n- name: [\n", []string{`f.yaml:2: this is no valid YAML: did not find expected node content; the file is set aside`}, nil},
		"two documents":    {"registries:\n" + src + dst + list + "---\nimages: []\n", []string{`f.yaml:8: a second YAML document begins here; want one document a file; the file is set aside`}, nil},
		"nothing":          {"# soon\n", []string{`f.yaml: the file is empty; want registries:`}, nil},
		"a file too large": {"# " + strings.Repeat("x", 2000), []string{`f.yaml: is larger than 2000 bytes; the file is set aside`}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, map[string]string{"f.yaml": test.file}, "f.yaml", test.told, test.standing)
		})
	}
}

func TestPruneIsHeldOffWhileAnythingIsSetAside(t *testing.T) {
	for list, want := range map[string]bool{
		"- name: x\n  dmap: {sha256:" + hex("a") + ": [v1]}\n":  true,
		"- name: x\n  dmap: {sha256:" + hex("a") + ": [v 1]}\n": false,
		"- name: x\n": true,
	} {
		dir := write(t, map[string]string{"f.yaml": "prune: true\n" + plainImages(list)})
		tree, err := config.Read([]string{filepath.Join(dir, "f.yaml")}, config.Options{})
		if err != nil || len(tree.Projects) != 1 {
			t.Fatalf("error %v, tree %v; want one project", err, tree)
		}
		if tree.Projects[0].Prune != want {
			t.Errorf("%q: prune is %v, want %v: %v", list, !want, want, tree.Problems)
		}
	}
}
