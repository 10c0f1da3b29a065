package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"entrepot/promote"
	"entrepot/promote/config"
	"entrepot/promote/transfer"

	"github.com/spf13/cobra"
)

func snapshotCommand() *cobra.Command {
	var p promotion
	var source, dir string
	cmd := &cobra.Command{
		Use:   "snapshot --source STAGING LOCATION",
		Short: "Write what a registry or bucket holds as configuration",
		Long: `Snapshot writes what production holds today as configuration, to begin promotion
with. LOCATION is a registry with or without a prefix ("registry.example.org/app")
or the URL of a file store ("s3://bucket/release"); --source is the staging
registry or store that its content will come from. The result is a plain file on
standard output, or a thin tree in a new directory with --out.`,
		Args: cobra.ExactArgs(1),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if source == "" {
				return errors.New("snapshot needs --source, the staging registry or store of this project")
			}
			return p.check(cmd, args)
		},
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := p.open(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer p.close()
			project, err := promote.Snapshot(cmd.Context(), p.client, args[0], source)
			if err != nil {
				return err
			}
			if dir != "" {
				return config.WriteThin(dir, []*config.Project{project})
			}
			_, err = cmd.OutOrStdout().Write(config.FormatPlain(project))
			return err
		}),
	}
	cmd.Flags().StringVar(&source, "source", "", "`STAGING` registry or file store of the project")
	p.hostFlags(cmd)
	cmd.Flags().StringVar(&dir, "out", "", "write a thin tree into `DIR` instead")
	return cmd
}

func addCommand() *cobra.Command {
	var p promotion
	cmd := &cobra.Command{
		Use:   "add IMAGE:TAG|URL ROOT...",
		Short: "Write an image or file of staging into the configuration",
		Long: `Add resolves what a tag in staging stands for, or hashes a file, and writes the
entry into the right list of the configuration, sorted, for review. IMAGE may be
written by its staging or its production name; IMAGE:TAG@DIGEST asks nobody.`,
		Args:    cobra.MinimumNArgs(2),
		PreRunE: p.check,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := p.open(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer p.close()
			tree, err := p.read(args[1:])
			if err != nil {
				return err
			}
			add := p.addImage
			if strings.Contains(args[0], "://") {
				add = p.addFile
			}
			file, changed, err := add(cmd.Context(), tree, args[0])
			if err != nil {
				return err
			}
			done := "added to"
			if !changed {
				done = "is in already:"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s\n", args[0], done, file)
			return err
		}),
	}
	p.hostFlags(cmd)
	return cmd
}

// addImage lists an image, and returns the file and whether that changed it.
func (p *promotion) addImage(ctx context.Context, tree *config.Tree, image string) (string, bool, error) {
	ref, err := transfer.ParseRef(image)
	if err != nil {
		return "", false, err
	}
	if ref.Tag == "" && ref.Digest == "" {
		return "", false, fmt.Errorf("%s has neither tag nor digest: write IMAGE:TAG", image)
	}
	project, below, err := tree.Locate(ref.Repository.String())
	if err != nil {
		return "", false, err
	}
	if ref.Digest == "" {
		staged, err := transfer.ParseRepository(project.Source + "/" + below)
		if err != nil {
			return "", false, err
		}
		desc, err := p.client.Resolve(ctx, transfer.Ref{Repository: staged, Tag: ref.Tag})
		if err != nil {
			return "", false, err
		}
		ref.Digest = desc.Digest
	}
	var tags []string
	if ref.Tag != "" {
		tags = append(tags, ref.Tag)
	}
	return project.AddImage(below, ref.Digest, tags...)
}

func (p *promotion) addFile(ctx context.Context, tree *config.Tree, url string) (string, bool, error) {
	project, below, err := tree.Locate(url)
	if err != nil {
		return "", false, err
	}
	store, err := p.client.OpenFileStore(ctx, project.Source)
	if err != nil {
		return "", false, err
	}
	info, err := p.client.SumFile(ctx, store, below, true)
	if err != nil {
		return "", false, err
	}
	return project.AddFile(below, info.SHA256)
}
