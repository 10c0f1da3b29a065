package blobstore

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// scrubState is how far scrubbing is, as JSON in the file "scrub" of a store.
type scrubState struct {
	Started  time.Time     `json:"started,omitzero"`  // of the pass
	Running  bool          `json:"running"`           // it has not come to its end
	Finished time.Time     `json:"finished,omitzero"` // of the last pass that came to its end
	After    digest.Digest `json:"after,omitempty"`   // the last blob that was read
	Rotten   int64         `json:"rotten"`            // found to be wrong in this pass
}

// parseScrubState reads a state that text wrote.
func parseScrubState(text []byte) (scrubState, error) {
	var s scrubState
	if err := json.Unmarshal(text, &s); err != nil {
		return scrubState{}, fmt.Errorf("reading the state of scrubbing: %w", err)
	}
	if s.After != "" {
		if err := checkDigest(s.After); err != nil {
			return scrubState{}, fmt.Errorf("reading the state of scrubbing: %w", err)
		}
	}
	return s, nil
}

func (s *scrubState) text() ([]byte, error) {
	text, err := json.Marshal(s)
	return append(text, '\n'), err
}

// raw is the raw value of After, which is valid or empty.
func (s *scrubState) raw() string {
	sum, err := parseDigest(s.After)
	if err != nil {
		return ""
	}
	return string(sum.bytes())
}

// compareSums orders raw digests: sha256 before sha512, each by its bytes.
func compareSums(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}
