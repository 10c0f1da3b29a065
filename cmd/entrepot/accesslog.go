package main

import (
	"context"
	"errors"
	"log/slog"
	"math"

	"entrepot/registry"
	"entrepot/registry/filestore"
)

// observe returns what the registry handler tells about each request to: the
// metrics, and the access log unless it is nil.
func observe(metrics *requestMetrics, access slog.Handler) func(*registry.Observation) {
	return func(o *registry.Observation) {
		outcome := outcomeOf(o)
		metrics.count(o.Request.Kind, o.Cache.Upstream, outcome, o.Bytes, o.Duration)
		metrics.fail(o.Status, o.Err != nil && !errors.Is(o.Err, registry.ErrClientGone) && o.Status < 400)
		if access != nil && access.Enabled(context.Background(), slog.LevelInfo) {
			logRequest(access, o, outcome)
		}
	}
}

// outcomeOf is how a request was served. One that was refused before the
// cache had a say was not served.
func outcomeOf(o *registry.Observation) registry.Outcome {
	if o.Cache.Outcome == registry.OutcomeNone && o.Status >= 400 {
		return registry.OutcomeError
	}
	return o.Cache.Outcome
}

// logRequest writes the access log's line. The duration is in seconds, to the
// microsecond. It speaks to the handler, because a [slog.Logger] looks up its
// caller for every line.
func logRequest(access slog.Handler, o *registry.Observation, outcome registry.Outcome) {
	reference := o.Request.Tag
	if reference == "" {
		reference = string(o.Request.Digest)
	}
	attrs := [14]slog.Attr{
		slog.String("id", o.ID),
		slog.String("client", o.Client),
		slog.String("method", o.Method),
		slog.String("path", o.Path),
		slog.String("upstream", o.Cache.Upstream),
		slog.String("name", o.Request.Repository),
		slog.String("reference", reference),
		slog.Int("status", o.Status),
		slog.String("cache", outcomeLabel(outcome)),
		slog.Int64("bytes", o.Bytes),
		slog.Float64("duration", math.Round(o.Duration.Seconds()*1e6)/1e6),
	}
	n := 11
	if o.Identity != "" {
		attrs[n] = slog.String("identity", o.Identity)
		n++
	}
	if o.Cache.Detail != "" {
		attrs[n] = slog.String("detail", o.Cache.Detail)
		n++
	}
	switch {
	case errors.Is(o.Err, registry.ErrClientGone):
		attrs[n] = slog.Bool("client_left", true)
		n++
	case o.Err != nil:
		attrs[n] = slog.String("error", reason(o.Err))
		n++
	}
	line := slog.NewRecord(o.Start.Add(o.Duration), slog.LevelInfo, "request", 0)
	line.AddAttrs(attrs[:n]...)
	_ = access.Handle(context.Background(), line) // where would one tell that the log failed?
}

// observeFiles returns what a file store tells about each request to: the
// access log, unless it is nil.
func observeFiles(access slog.Handler) func(*filestore.Observation) {
	if access == nil {
		return nil
	}
	return func(o *filestore.Observation) {
		if !access.Enabled(context.Background(), slog.LevelInfo) {
			return
		}
		line := slog.NewRecord(o.Start.Add(o.Duration), slog.LevelInfo, "file request", 0)
		line.AddAttrs(
			slog.String("id", o.ID),
			slog.String("client", o.Client),
			slog.String("method", o.Method),
			slog.String("path", o.Path),
			slog.Int("status", o.Status),
			slog.Int64("bytes", o.Bytes),
			slog.Float64("duration", math.Round(o.Duration.Seconds()*1e6)/1e6),
		)
		if o.Identity != "" {
			line.AddAttrs(slog.String("identity", o.Identity))
		}
		if o.Err != nil {
			line.AddAttrs(slog.String("error", o.Err.Error()))
		}
		_ = access.Handle(context.Background(), line) // where would one tell that the log failed?
	}
}

// reason is why a request failed: the cause where the client was told less.
func reason(err error) string {
	if told, ok := errors.AsType[*registry.Error](err); ok && told.Err != nil {
		return told.Err.Error()
	}
	return err.Error()
}
