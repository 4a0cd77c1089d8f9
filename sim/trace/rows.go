package trace

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	maxBadToTell = 20      // malformed rows that one error tells
	maxBadToFind = 1 << 16 // rows read on to find more of them
	maxTexts     = 1 << 20 // names kept to be shared
)

// badRow is what is wrong with a row that could be passed over, unlike a file that cannot be read on.
type badRow struct{ error }

// Unwrap gives errors.Is and errors.As the cause.
func (b badRow) Unwrap() error { return b.error }

// errPassed is returned by a parser for a row that is whole but no job that could be replayed: it never ran, or has not
// ended. Such rows are counted as skipped.
var errPassed = errors.New("passed over")

// rows is a source of jobs that a format's parser reads row by row.
type rows struct {
	name string
	// parse reads the next row into a job. It returns io.EOF at the end, a badRow for what --skip-bad may pass over, or errPassed.
	parse func(*Job) error
	close func() error
	skip  bool // malformed rows are counted, not told
	bad   int  // rows passed over: malformed ones, if skip is set, and those that are errPassed
}

// Next implements Source. Of malformed rows that are not to be passed over several are told at once.
func (r *rows) Next(j *Job) error {
	err := r.parse(j)
	if err == nil {
		return nil
	}
	return r.pass(j, err)
}

// pass looks for the next job behind a row that is none.
func (r *rows) pass(j *Job, err error) error {
	var tells []error
	for after := 0; ; after++ {
		if after > 0 {
			err = r.parse(j)
		}
		if err == nil && tells == nil {
			return nil
		}
		var bad badRow
		switch {
		case err == nil && after < maxBadToFind:
		case errors.Is(err, errPassed):
			r.bad++
		case errors.As(err, &bad):
			if r.bad++; !r.skip {
				tells = append(tells, err)
			}
			if len(tells) < maxBadToTell {
				continue
			}
			tells = append(tells, fmt.Errorf("%s: and perhaps more: --skip-bad passes over such rows and counts them", r.name))
			return errors.Join(tells...)
		case tells != nil:
			return errors.Join(tells...)
		default:
			return err
		}
	}
}

// Skipped implements Source.
func (r *rows) Skipped() int { return r.bad }

// Close implements Source.
func (r *rows) Close() error { return r.close() }

// each calls f for every row of a table, telling several malformed ones at once.
func each(t *table, f func() error) error {
	r := rows{name: t.name, parse: func(*Job) error {
		if err := t.next(); err != nil {
			return err
		}
		return f()
	}}
	for {
		if err := r.Next(nil); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// names keeps one copy of each of few names, such as users and queues. The zero value is ready.
type names struct {
	known map[string]string
	lists map[string][]string
}

// keep returns the one copy of a string, which is not part of a reader's buffer.
func (n *names) keep(s string) string {
	if s == "" {
		return ""
	}
	if known, ok := n.known[s]; ok {
		return known
	}
	if n.known == nil || len(n.known) >= maxTexts {
		n.known = map[string]string{} // not so few: begin anew, which costs memory for copies only
	}
	s = strings.Clone(s)
	n.known[s] = s
	return s
}

// list splits a name such as "A100|H100". Equal ones are one list.
func (n *names) list(s string) []string {
	if known, ok := n.lists[s]; ok {
		return known
	}
	if n.lists == nil || len(n.lists) >= maxTexts {
		n.lists = map[string][]string{}
	}
	s = strings.Clone(s)
	l := strings.Split(s, "|")
	n.lists[s] = l
	return l
}
