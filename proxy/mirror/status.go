package mirror

import (
	"time"

	"entrepot/promote/ledger"
)

// Status is how far a mirror is.
type Status struct {
	Upstreams []UpstreamStatus `json:"upstreams"`
	// Names are selected, and of Held of them everything was there, by the last sync.
	Names int `json:"names"`
	Held  int `json:"held"`
	// Coverage is Held in percent of Names.
	Coverage float64 `json:"coverage_percent"`
	// Blobs and Bytes are held now.
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
	// Started and Finished are of the last sync, of which Failed images and files
	// failed; Rechecked is when all was last looked at.
	Started   time.Time `json:"started,omitzero"`
	Finished  time.Time `json:"finished,omitzero"`
	Rechecked time.Time `json:"rechecked,omitzero"`
	Failed    int       `json:"failed"`
	// Running is the sync that runs.
	Running *Progress `json:"running,omitempty"`
	// Open says whether it may fetch now, and Until up to when that is so.
	Open  bool      `json:"window_open"`
	Until time.Time `json:"window_until,omitzero"`
}

// UpstreamStatus is how far a mirror is behind one upstream's ledger.
type UpstreamStatus struct {
	Name string      `json:"name"`
	Kind ledger.Kind `json:"kind"`
	// Entries are in the ledger as it is known here, and Synced of them are held as far
	// as they are selected.
	Entries uint64 `json:"entries"`
	Synced  uint64 `json:"synced"`
	// Lag is the age of the oldest entry that is not: how long the mirror has not held
	// what it should, in seconds. 0 when it holds all.
	Lag float64 `json:"lag_seconds"`
	// Checked is when the ledger was last seen to be as it is known here; Error is why
	// it was not since.
	Checked time.Time `json:"checked,omitzero"`
	Error   string    `json:"error,omitempty"`
}

// Status tells how far the mirror is.
func (m *Mirror) Status() Status {
	m.mu.Lock()
	k, running := m.kept, m.running
	m.mu.Unlock()
	now := m.cfg.Now()
	s := Status{
		Names: k.Names, Held: k.Held, Started: k.Started, Finished: k.Finished, Rechecked: k.Rechecked,
		Failed: k.Failed, Running: running,
	}
	if running != nil {
		s.Names, s.Held = running.Names, running.Held
	}
	if s.Names > 0 {
		s.Coverage = 100 * float64(s.Held) / float64(s.Names)
	}
	if s.Blobs, s.Bytes = m.contents.usage(); s.Blobs == 0 && m.cfg.Bucket != nil {
		s.Blobs, s.Bytes = k.Blobs, k.Bytes // syncs alone look into a bucket
	}
	s.Open, s.Until = m.cfg.Windows.At(now)
	for i := range m.cfg.Upstreams {
		s.Upstreams = append(s.Upstreams, m.cfg.Upstreams[i].status(k.Entries[m.cfg.Upstreams[i].Name], now))
	}
	return s
}

func (u *Upstream) status(synced uint64, now time.Time) UpstreamStatus {
	state, followed := u.Ledger.State(), u.Ledger.Status()
	s := UpstreamStatus{Name: u.Name, Kind: u.Kind, Entries: state.Len(), Synced: synced, Checked: followed.Checked}
	if followed.Err != nil {
		s.Error = followed.Err.Error()
	}
	for e := range state.Entries(synced) {
		s.Lag = max(0, now.Sub(e.Time).Seconds())
		break
	}
	return s
}
