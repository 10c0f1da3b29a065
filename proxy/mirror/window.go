package mirror

import (
	"fmt"
	"strings"
	"time"
)

// Windows are the times of the day at which a mirror may fetch; none are all times.
type Windows struct {
	Spans []Span
	// Zone is that of the spans; nil is UTC.
	Zone *time.Location
}

// Span is a part of each day, from a minute on up to but not including another. One
// that ends before it begins goes on over midnight.
type Span struct{ From, To int } // minutes since midnight

const day = 24 * 60 // minutes

// ParseSpan reads a span such as "22:00-06:00".
func ParseSpan(text string) (Span, error) {
	from, to, _ := strings.Cut(text, "-")
	var s Span
	for _, part := range []struct {
		text string
		into *int
	}{{from, &s.From}, {to, &s.To}} {
		if part.text == "24:00" {
			*part.into = day
			continue
		}
		t, err := time.Parse("15:04", part.text)
		if err != nil {
			return Span{}, fmt.Errorf("%q is no part of a day: want two times such as 22:00-06:00", text)
		}
		*part.into = t.Hour()*60 + t.Minute()
	}
	if s.From == s.To {
		return Span{}, fmt.Errorf("%q is empty: leave it out for all of the day", text)
	}
	return s, nil
}

// has says whether a minute of the day is in the span.
func (s Span) has(minute int) bool {
	if s.From < s.To {
		return s.From <= minute && minute < s.To
	}
	return minute >= s.From || minute < s.To
}

// At says whether it is time at a moment, and the moment up to which that is so; zero
// when it never changes.
func (w *Windows) At(now time.Time) (open bool, until time.Time) {
	if len(w.Spans) == 0 {
		return true, time.Time{}
	}
	zone := w.Zone
	if zone == nil {
		zone = time.UTC
	}
	open = w.open(now.In(zone))
	// Minute by minute, by the clock on the wall, which is put forward and back.
	t := now.In(zone).Truncate(time.Minute)
	for range 2 * day {
		t = t.Add(time.Minute)
		if w.open(t) != open {
			return open, t
		}
	}
	return open, time.Time{}
}

func (w *Windows) open(t time.Time) bool {
	minute := t.Hour()*60 + t.Minute()
	for _, s := range w.Spans {
		if s.has(minute) {
			return true
		}
	}
	return false
}
