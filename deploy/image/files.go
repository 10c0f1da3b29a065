package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Who runs in the image: nobody that a host knows, by number, so that
// Kubernetes can see that it is not root.
const (
	userID = 65532
	home   = "/var/lib/entrepot"
	binary = "/usr/bin/entrepot"
)

// file is a file or directory of the image.
type file struct {
	name    string // absolute
	mode    os.FileMode
	owner   int // of user and group
	content []byte
}

// certificates is the PEM bundle of public authorities, as Mozilla's programme
// has them. It comes with a pinned module, so that the image does not depend on
// what the builder's system trusts.
func certificates() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		// A few authorities are trusted for what they issued before a date, which
		// PEM cannot say. Distributions' bundles have them without.
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes everything
	}
	return b.Bytes()
}

// base is what is in the image besides the binary, parents first.
func base(licence []byte) []file {
	return []file{
		{name: "/etc", mode: os.ModeDir | 0o755},
		{name: "/etc/entrepot", mode: os.ModeDir | 0o755},
		{name: "/etc/group", mode: 0o644, content: fmt.Appendf(nil, "root:x:0:\nentrepot:x:%d:\n", userID)},
		{name: "/etc/passwd", mode: 0o644, content: fmt.Appendf(nil,
			"root:x:0:0:root:/:/sbin/nologin\nentrepot:x:%d:%[1]d:entrepot:%s:/sbin/nologin\n", userID, home)},
		{name: "/etc/ssl", mode: os.ModeDir | 0o755},
		{name: "/etc/ssl/certs", mode: os.ModeDir | 0o755},
		{name: "/etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: certificates()},
		{name: "/tmp", mode: os.ModeDir | os.ModeSticky | 0o777},
		{name: "/usr", mode: os.ModeDir | 0o755},
		{name: "/usr/share", mode: os.ModeDir | 0o755},
		{name: "/usr/share/licenses", mode: os.ModeDir | 0o755},
		{name: "/usr/share/licenses/entrepot", mode: os.ModeDir | 0o755},
		{name: "/usr/share/licenses/entrepot/LICENSE", mode: 0o644, content: licence},
		{name: "/var", mode: os.ModeDir | 0o755},
		{name: "/var/lib", mode: os.ModeDir | 0o755},
		{name: home, mode: os.ModeDir | 0o750, owner: userID},
	}
}

// program is the binary with its parents.
func program(content []byte) []file {
	return []file{
		{name: "/usr", mode: os.ModeDir | 0o755},
		{name: "/usr/bin", mode: os.ModeDir | 0o755},
		{name: binary, mode: 0o755, content: content},
	}
}

// writeTar writes files as a layer (OCI image specification, layer.md): the
// same bytes for the same files.
func writeTar(w io.Writer, files []file, at time.Time) error {
	archive := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{
			Name: f.name[1:], Mode: int64(f.mode.Perm()), Uid: f.owner, Gid: f.owner,
			Size: int64(len(f.content)), ModTime: at, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
		}
		if f.mode.IsDir() {
			h.Name, h.Typeflag = h.Name+"/", tar.TypeDir
		}
		if f.mode&os.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if _, err := archive.Write(f.content); err != nil {
			return err
		}
	}
	return archive.Close()
}

// emptyDir makes a directory, or takes one that has nothing in it: what is
// there would be taken for part of the image.
func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // what is in it is public
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: it has %s", dir, entries[0].Name())
	}
	return nil
}
