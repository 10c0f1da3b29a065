// Command image makes the container image of entrepot: one static binary, the
// certificates of public authorities, and a user that is not root, on nothing.
//
//	go run ./deploy/image -o build/image               # an OCI layout for amd64 and arm64
//	go run ./deploy/image -rootfs build/rootfs.tar     # the files alone, for the Containerfile
//
// The image is a function of the source tree, the Go toolchain and the flags:
// two builds give one digest, on any machine. It is written with no container
// engine, and any client can push it: oras cp --from-oci-layout, skopeo copy
// oci:, crane push.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, env func(string) string, stdout io.Writer) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	out := flags.String("o", "", "write an OCI layout to this directory, which must not exist or be empty")
	rootfs := flags.String("rootfs", "", "write the files of the image for one platform to this archive")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64", "what to build for")
	version := flags.String("version", "devel", "the version that the binary tells, and the image's tag in the layout")
	if err := flags.Parse(args); err != nil {
		return err
	}
	created, err := sourceDate(env("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	spec := spec{version: *version, created: created}
	for text := range strings.SplitSeq(*platforms, ",") {
		p, err := parsePlatform(text)
		if err != nil {
			return err
		}
		spec.platforms = append(spec.platforms, p)
	}
	switch {
	case (*out == "") == (*rootfs == ""):
		return errors.New("one of -o DIR and -rootfs FILE is needed")
	case *out != "":
		digest, err := spec.writeLayout(ctx, *out)
		if err != nil {
			return fmt.Errorf("writing the image to %s: %w", *out, err)
		}
		_, err = fmt.Fprintln(stdout, digest)
		return err
	case len(spec.platforms) != 1:
		return errors.New("-rootfs is of one platform: say which by -platforms")
	}
	if err := spec.writeRootfs(ctx, *rootfs); err != nil {
		return fmt.Errorf("writing the image's files to %s: %w", *rootfs, err)
	}
	return nil
}

// sourceDate is the time that everything in the image has: SOURCE_DATE_EPOCH
// (seconds since 1970, as reproducible-builds.org specifies it), else 1970.
func sourceDate(text string) (time.Time, error) {
	if text == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q: it is a number of seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
