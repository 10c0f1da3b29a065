package folder

import (
	"cmp"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Bounds of a page, in entries.
const (
	defaultPage = 1000
	maxPage     = 10000
)

// sorting is what entries are sorted by.
type sorting uint8

const (
	byName sorting = iota
	bySize
	byDate
)

// sortings are how queries call them.
func sortings() [3]string { return [...]string{byName: "name", bySize: "size", byDate: "date"} }

// query is a parsed query.
type query struct {
	limit      int // entries on a page
	sort       sorting
	descending bool
	// last and at are the entry that the page comes after: its name and, by size
	// or date, its value of that. last is "" at the start.
	last string
	at   int64
}

// parseQuery reads a query. Errors: ErrRequest.
func parseQuery(text string) (query, error) {
	q := query{limit: defaultPage}
	values, err := url.ParseQuery(text)
	if err != nil {
		return q, fmt.Errorf("%w: the query: %w", ErrRequest, err)
	}
	if n := values.Get("n"); n != "" {
		q.limit, err = strconv.Atoi(n)
		if err != nil || q.limit < 1 {
			return q, fmt.Errorf("%w: n is %.40q: want how many entries to list, 1 to %d", ErrRequest, n, maxPage)
		}
		q.limit = min(q.limit, maxPage)
	}
	switch text := cmp.Or(values.Get("sort"), "name"); text {
	case "name":
	case "size":
		q.sort = bySize
	case "date":
		q.sort = byDate
	default:
		return q, fmt.Errorf("%w: sort is %.40q: want name, size or date", ErrRequest, text)
	}
	switch text := cmp.Or(values.Get("order"), "asc"); text {
	case "asc":
	case "desc":
		q.descending = true
	default:
		return q, fmt.Errorf("%w: order is %.40q: want asc or desc", ErrRequest, text)
	}
	q.last = values.Get("last")
	if at := values.Get("at"); at != "" && q.sort != byName {
		if q.at, err = strconv.ParseInt(at, 10, 64); err != nil {
			return q, fmt.Errorf("%w: at is %.40q: want a number, as links to the next page have it", ErrRequest, at)
		}
	}
	return q, nil
}

// String is the query as it is sent.
func (q query) String() string {
	var parameters []string
	add := func(name, value string) {
		parameters = append(parameters, name+"="+url.QueryEscape(value))
	}
	if q.sort != byName {
		add("sort", sortings()[q.sort])
	}
	if q.descending {
		add("order", "desc")
	}
	if q.last != "" {
		add("last", q.last)
		if q.sort != byName {
			add("at", strconv.FormatInt(q.at, 10))
		}
	}
	if q.limit != defaultPage {
		add("n", strconv.Itoa(q.limit))
	}
	return strings.Join(parameters, "&")
}
