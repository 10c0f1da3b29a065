package promote

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"entrepot/promote/config"
	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Snapshot describes what a registry (below "host" or "host/prefix") or a file
// store (a URL) holds as a project that promotes it there from source.
// Signatures and attestations at cosign's tags are left out: they go with their
// image. Errors: those of package transfer.
func Snapshot(ctx context.Context, client *transfer.Client, location, source string) (*config.Project, error) {
	location = strings.TrimRight(location, "/")
	p := &config.Project{
		Name: path.Base(location), Kind: config.Images, Source: source, Destinations: []string{location},
	}
	var err error
	if strings.Contains(location, "://") {
		p.Kind = config.Files
		p.Files, err = snapshotFiles(ctx, client, location)
	} else {
		p.Images, err = snapshotImages(ctx, client, location)
	}
	if err != nil {
		return nil, fmt.Errorf("taking a snapshot of %s: %w", location, err)
	}
	return p, nil
}

// snapshotTasks is how many names are looked up at once.
const snapshotTasks = 16

func snapshotFiles(ctx context.Context, client *transfer.Client, location string) ([]config.File, error) {
	store, err := client.OpenFileStore(ctx, location)
	if err != nil {
		return nil, err
	}
	var files []config.File
	for info, err := range store.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		files = append(files, config.File{Name: info.Name})
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(snapshotTasks)
	for i := range files {
		group.Go(func() error {
			info, err := client.SumFile(ctx, store, files[i].Name, false)
			files[i].SHA256 = info.SHA256
			return err
		})
	}
	return files, group.Wait()
}

func snapshotImages(ctx context.Context, client *transfer.Client, location string) ([]config.Image, error) {
	host, prefix, _ := strings.Cut(location, "/")
	repositories, err := client.Repositories(ctx, host)
	if err != nil {
		return nil, err
	}
	var images []config.Image
	for _, name := range repositories {
		below, ok := strings.CutPrefix(name, prefix)
		if below = strings.TrimPrefix(below, "/"); !ok || below == "" || prefix != "" && name != prefix+"/"+below {
			continue
		}
		image, err := snapshotImage(ctx, client, transfer.Repository{Host: host, Name: name})
		if err != nil {
			return nil, err
		}
		if image.Name = below; len(image.Entries) > 0 {
			images = append(images, image)
		}
	}
	return images, nil
}

// snapshotImage lists the tags of a repository by their digests.
func snapshotImage(ctx context.Context, client *transfer.Client, repository transfer.Repository) (config.Image, error) {
	tags, err := client.Tags(ctx, repository)
	if err != nil && !errors.Is(err, transfer.ErrNotFound) {
		return config.Image{}, err
	}
	tags = slices.DeleteFunc(tags, companion)
	var mu sync.Mutex
	byDigest := map[digest.Digest][]string{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(snapshotTasks)
	for _, tag := range tags {
		group.Go(func() error {
			desc, err := client.Resolve(ctx, transfer.Ref{Repository: repository, Tag: tag})
			if errors.Is(err, transfer.ErrNotFound) {
				return nil // it was deleted meanwhile
			}
			mu.Lock()
			byDigest[desc.Digest] = append(byDigest[desc.Digest], tag)
			mu.Unlock()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return config.Image{}, err
	}
	var image config.Image
	for d, tags := range byDigest {
		slices.Sort(tags)
		image.Entries = append(image.Entries, config.Entry{Digest: d, Tags: tags})
	}
	slices.SortFunc(image.Entries, func(a, b config.Entry) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return image, nil
}
