package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"entrepot/promote/ledger"
	"entrepot/proxy"
	"entrepot/proxy/mirror"

	"github.com/prometheus/client_golang/prometheus"
)

// openMirror prepares the holding of what the node's ledgers have.
func (n *node) openMirror(cfg *NodeConfig, engine *proxy.Config, logs *loggers, reg prometheus.Registerer) error {
	rules, err := cfg.Mirror.rules()
	if err != nil {
		return err
	}
	windows, err := cfg.Mirror.windows()
	if err != nil {
		return err
	}
	n.mirror = mirror.New(context.Background(), mirror.Config{
		Node: n.engine, Store: n.dir, Bucket: n.remote, Upstreams: n.ledgerUpstreams(cfg, engine), Rules: rules,
		Bandwidth: int64(cfg.Mirror.Bandwidth), Windows: windows,
		Every: time.Duration(cfg.Mirror.Every), Recheck: time.Duration(cfg.Mirror.Recheck),
		Parallel: cfg.Mirror.Parallel, Logger: logs.main,
	})
	reg.MustRegister(mirrorMetrics(n.mirror)...)
	return nil
}

// ledgerUpstreams are the upstreams that have a ledger.
func (n *node) ledgerUpstreams(cfg *NodeConfig, engine *proxy.Config) []mirror.Upstream {
	var ups []mirror.Upstream
	for _, u := range engine.Upstreams {
		if l := cfg.Upstreams[u.Name].Ledger; l != nil {
			ups = append(ups, mirror.Upstream{Name: u.Name, Kind: ledger.Image, Ledger: n.ledgers[ledgerID(l)], Names: u.Ledger.Names})
		}
	}
	for _, f := range engine.Files {
		if l := cfg.Files[f.Name].Ledger; l != nil {
			ups = append(ups, mirror.Upstream{Name: f.Name, Kind: ledger.File, Ledger: n.ledgers[ledgerID(l)], Names: f.Ledger.Names})
		}
	}
	return ups
}

// mirrorMetrics are what an operator of a mirror watches.
func mirrorMetrics(m *mirror.Mirror) []prometheus.Collector {
	gauge := func(name, help string, value func(*mirror.Status) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s := m.Status()
			return value(&s)
		})
	}
	return []prometheus.Collector{
		gauge("entrepot_mirror_names", "Names that are selected to be held.", func(s *mirror.Status) float64 { return float64(s.Names) }),
		gauge("entrepot_mirror_names_held", "Names of which everything is held.", func(s *mirror.Status) float64 { return float64(s.Held) }),
		gauge("entrepot_mirror_bytes", "Bytes that are held.", func(s *mirror.Status) float64 { return float64(s.Bytes) }),
		gauge("entrepot_mirror_failed", "Images and files that failed in the last sync.", func(s *mirror.Status) float64 { return float64(s.Failed) }),
		gauge("entrepot_mirror_lag_seconds", "Age of the oldest entry of a ledger that is not held yet.", func(s *mirror.Status) float64 {
			lag := 0.0
			for _, u := range s.Upstreams {
				lag = max(lag, u.Lag)
			}
			return lag
		}),
	}
}

// mirrorPath is where the admin listener tells of the mirror, and is told what to do.
const mirrorPath = "/mirror"

// mirrorEvent is a line of what a sync or a verification says.
type mirrorEvent struct {
	Event    string           `json:"event"` // "progress", "fetched", "failed", "finding", "done"
	Progress *mirror.Progress `json:"progress,omitempty"`
	Item     *mirror.Item     `json:"item,omitempty"`
	Verified *mirror.Verified `json:"verified,omitempty"`
	Finding  *mirror.Finding  `json:"finding,omitempty"`
	Error    string           `json:"error,omitempty"`
}

// write writes the event as a line.
func (e *mirrorEvent) write(w io.Writer) error {
	b, err := json.Marshal(e)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

// mirrorTask is what is asked of a mirror.
type mirrorTask struct {
	verify, repair bool
	rate           int64
	sync           mirror.SyncConfig
}

// run does a task and tells how it goes on. The error is told in the last event, too.
func (t *mirrorTask) run(ctx context.Context, m *mirror.Mirror, tell func(mirrorEvent)) error {
	done := mirrorEvent{Event: "done"}
	var err error
	if t.verify {
		verified, failed := m.Verify(ctx, mirror.VerifyConfig{Repair: t.repair, Rate: t.rate, Report: func(v mirror.Verified, f *mirror.Finding) {
			if f != nil {
				tell(mirrorEvent{Event: "finding", Verified: &v, Finding: f})
			} else {
				tell(mirrorEvent{Event: "progress", Verified: &v})
			}
		}})
		done.Verified, err = &verified, failed
	} else {
		t.sync.Report = func(p mirror.Progress, i *mirror.Item) {
			switch {
			case i == nil:
				tell(mirrorEvent{Event: "progress", Progress: &p})
			case i.Err != nil:
				tell(mirrorEvent{Event: "failed", Progress: &p, Item: i, Error: i.Err.Error()})
			default:
				tell(mirrorEvent{Event: "fetched", Progress: &p, Item: i})
			}
		}
		progress, failed := m.Sync(ctx, t.sync)
		done.Progress, err = &progress, failed
	}
	if err != nil {
		done.Error = err.Error()
	}
	tell(done)
	return err
}

// query is the task in a URL, and parseMirrorTask its reverse.
func (t *mirrorTask) query() string {
	return fmt.Sprintf("verify=%t&repair=%t&rate=%d&dry_run=%t&any_time=%t&recheck=%t",
		t.verify, t.repair, t.rate, t.sync.DryRun, t.sync.AnyTime, t.sync.Recheck)
}

func parseMirrorTask(r *http.Request) (*mirrorTask, error) {
	t := new(mirrorTask)
	query := r.URL.Query()
	for key, into := range map[string]*bool{
		"verify": &t.verify, "repair": &t.repair,
		"dry_run": &t.sync.DryRun, "any_time": &t.sync.AnyTime, "recheck": &t.sync.Recheck,
	} {
		var err error
		if text := query.Get(key); text == "" {
			continue
		} else if *into, err = strconv.ParseBool(text); err != nil {
			return nil, err
		}
	}
	if text := query.Get("rate"); text != "" {
		var err error
		if t.rate, err = strconv.ParseInt(text, 10, 64); err != nil || t.rate < 0 {
			return nil, errors.Join(errors.New("want bytes a second"), err)
		}
	}
	return t, nil
}

// mirrorAdmin is the mirror's part of the admin listener: GET tells how far it is, POST
// has it sync or verify and tells how that goes on, a JSON value a line, until whoever
// asked leaves. find is nil while there is no mirror.
func mirrorAdmin(find func() *mirror.Mirror) http.Handler {
	mux := http.NewServeMux()
	with := func(do func(http.ResponseWriter, *http.Request, *mirror.Mirror)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if m := find(); m != nil {
				do(w, r, m)
				return
			}
			say(w, http.StatusNotFound, "there is no mirror in this process, or not yet: node.mirror configures one")
		}
	}
	mux.HandleFunc("GET "+mirrorPath, with(func(w http.ResponseWriter, _ *http.Request, m *mirror.Mirror) {
		w.Header().Set("Content-Type", "application/json")
		_ = writeJSON(w, m.Status()) // whoever asked is gone then
	}))
	mux.HandleFunc("POST "+mirrorPath, with(func(w http.ResponseWriter, r *http.Request, m *mirror.Mirror) {
		task, err := parseMirrorTask(r)
		if err != nil {
			say(w, http.StatusBadRequest, "the query is malformed: want true or false, and as rate bytes a second")
			return
		}
		w.Header().Set("Content-Type", "application/jsonl")
		out := http.NewResponseController(w)
		_ = task.run(r.Context(), m, func(e mirrorEvent) { // the last event has the error
			_ = e.write(w) // whoever asked is gone then, and its context ends
			_ = out.Flush()
		})
	}))
	// A page in the operator's browser must not be able to have it done.
	return http.NewCrossOriginProtection().Handler(mux)
}
