package config

import "errors"

// FormatPlain is the project as one plain file, in the canonical style: sorted,
// digests and tags quoted. Reading it back gives the same project.
func FormatPlain(p *Project) []byte { return nil }

// WriteThin writes projects, all of one kind, as a thin tree into dir, which
// must not hold one yet. Reading it back gives the same projects.
func WriteThin(dir string, projects []*Project) error { return errors.ErrUnsupported }
