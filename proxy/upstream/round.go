package upstream

import (
	"fmt"
	"slices"
)

// round gathers what stood in the way while the endpoints were asked for one
// request.
type round struct {
	failures []failed
}

type failed struct {
	endpoint *Endpoint // nil when it was left alone
	err      *Error
}

func (r *round) failed(e *Endpoint, err *Error) { r.failures = append(r.failures, failed{e, err}) }

func (r *round) refused(err *Error) { r.failures = append(r.failures, failed{nil, err}) }

// worthAnother is the endpoint asked last, if its failure may pass in a moment:
// a broken connection or a 5xx. One that took its time, or is left alone now, is
// not asked again at once.
func (r *round) worthAnother() *Endpoint {
	i := r.lastAsked()
	if i < 0 {
		return nil
	}
	last := r.failures[i]
	if last.err.Kind != Unavailable || last.err.RetryAfter > 0 || last.err.Timeout {
		return nil
	}
	return last.endpoint
}

// takeBack forgets the failure of the endpoint asked last, which is asked
// again.
func (r *round) takeBack() {
	i := r.lastAsked()
	r.failures = append(r.failures[:i], r.failures[i+1:]...)
}

func (r *round) lastAsked() int {
	for i, f := range slices.Backward(r.failures) {
		if f.endpoint != nil {
			return i
		}
	}
	return -1
}

// verdict is the one error for all of them. Its RetryAfter is the longest that
// was named among failures of its kind, or, when no endpoint could be asked at
// all, the time until one can.
func (r *round) verdict(name string) *Error {
	if len(r.failures) == 0 {
		return invalidf("no URL of %s is left to ask", name)
	}
	worst := 0
	for i, f := range r.failures {
		if f.err.Kind.weight() > r.failures[worst].err.Kind.weight() {
			worst = i
		}
	}
	told := *r.failures[worst].err
	told.RetryAfter = 0
	noneAsked := r.lastAsked() < 0
	for i, f := range r.failures {
		if i != worst {
			told.Err = fmt.Errorf("%w; %w", told.Err, f.err)
		}
		switch wait := f.err.RetryAfter; {
		case wait <= 0:
		case noneAsked && (told.RetryAfter == 0 || wait < told.RetryAfter),
			!noneAsked && f.err.Kind == told.Kind && wait > told.RetryAfter:
			told.RetryAfter = wait
		}
	}
	return &told
}
