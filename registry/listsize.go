package registry

import (
	"unicode/utf8"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tagsSize is how many bytes tags take in JSON, about.
func tagsSize(tags []string) int64 {
	var n int64
	for _, t := range tags {
		n += jsonSize(t) + 1
	}
	return n
}

// descriptorsSize is how many bytes descriptors take in JSON, about, and not less.
func descriptorsSize(all []ocispec.Descriptor) int64 {
	const keys = 200 // of a descriptor with all that it can have, and of its platform
	var n int64
	for i := range all {
		d := &all[i]
		n += keys + jsonSize(d.MediaType) + jsonSize(string(d.Digest)) + jsonSize(d.ArtifactType) + int64(len(d.Data))*4/3
		for _, u := range d.URLs {
			n += jsonSize(u) + 1
		}
		for k, v := range d.Annotations {
			n += jsonSize(k) + jsonSize(v) + 2
		}
		if p := d.Platform; p != nil {
			n += jsonSize(p.Architecture) + jsonSize(p.OS) + jsonSize(p.OSVersion) + jsonSize(p.Variant)
			for _, f := range p.OSFeatures {
				n += jsonSize(f) + 1
			}
		}
	}
	return n
}

// jsonSize is how many bytes encoding/json makes of a text, or some more.
func jsonSize(s string) int64 {
	n := int64(len(s)) + 2
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '<' || c == '>' || c == '&' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			n += 5 // \u003c, and for what is no UTF-8 \ufffd
		}
	}
	return n
}
