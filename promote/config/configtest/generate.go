// Package configtest makes promotion configurations of any size for tests and
// benchmarks. What it makes depends on the Shape alone.
package configtest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"

	"github.com/opencontainers/go-digest"

	"entrepot/promote/config"
)

// Shape is how large a configuration is.
type Shape struct {
	Seed     uint64
	Projects int
	Images   int // in all projects together
	Pairs    int // of digest and tag, in all images together
	// Source is the registry of the staging repositories, such as "gcr.io";
	// project p reads from Source/staging-p.
	Source string
	// Destinations are what projects' prefixes stand in; project p writes to
	// each of them, with /p appended.
	Destinations []string
}

// TwiceToday is twice the size of the Kubernetes project's configuration, with
// the 22 regional destinations that it lists.
func TwiceToday() Shape {
	s := Shape{Seed: 1, Projects: 150, Images: 1700, Pairs: 45000, Source: "staging.example.org"}
	for i := range 22 {
		s.Destinations = append(s.Destinations, fmt.Sprintf("region%02d-docker.example.org/artifacts-prod/images", i))
	}
	return s
}

// Generate makes the projects. As in real trees, a few images have most of the
// digests. Every tag of an image stands on one digest, and every digest has one
// tag. Of fewer pairs than images, some images stay out.
func (s Shape) Generate() []*config.Project {
	random := rand.New(rand.NewPCG(s.Seed, 0))
	projects := make([]*config.Project, s.Projects)
	for i := range projects {
		p := &config.Project{Name: fmt.Sprintf("staging-project%03d", i), Kind: config.Images}
		p.Source = s.Source + "/" + p.Name
		for _, d := range s.Destinations {
			p.Destinations = append(p.Destinations, fmt.Sprintf("%s/project%03d", d, i))
		}
		projects[i] = p
	}
	for i, pairs := range s.split(random) {
		image := config.Image{Name: fmt.Sprintf("image%04d", i)}
		for n := range pairs {
			image.Entries = append(image.Entries, config.Entry{
				Digest: Digest(random), Tags: []string{fmt.Sprintf("v1.%d.%d", n/20, n%20)},
			})
		}
		p := projects[i%len(projects)]
		p.Images = append(p.Images, image)
	}
	return projects
}

// split divides the pairs among the images: one each, and the rest by Zipf's
// law.
func (s Shape) split(random *rand.Rand) []int {
	images := min(s.Images, s.Pairs)
	if images == 0 || s.Projects == 0 {
		return nil
	}
	pairs := make([]int, images)
	for i := range pairs {
		pairs[i] = 1
	}
	zipf := rand.NewZipf(random, 1.1, 8, uint64(images-1))
	for range s.Pairs - images {
		pairs[zipf.Uint64()]++
	}
	random.Shuffle(images, func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	return pairs
}

// Write writes the configuration as a thin tree into dir.
func (s Shape) Write(dir string) error { return config.WriteThin(dir, s.Generate()) }

// Digest is a digest of nothing in particular.
func Digest(random *rand.Rand) digest.Digest {
	var raw [32]byte
	for i := 0; i < len(raw); i += 8 {
		binary.LittleEndian.PutUint64(raw[i:], random.Uint64())
	}
	return digest.Digest("sha256:" + hex.EncodeToString(raw[:]))
}
