package assertion

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/gangline/gangline/scheduler/yamlfile"
)

// Base is the name of the first run of a file.
const Base = "base"

// Assertion is one thing that must hold: Left Op Right, where Right is a value or a multiple of another quantity.
type Assertion struct {
	Name         string // what people call it; empty: its text says it
	Text         string // as written
	Line, Column int
	Left         Quantity
	Op           string    // one of ops
	Value        float64   // of Left's unit; times in seconds. With Other: what that is multiplied by
	Other        *Quantity // nil: Value is all
}

// Quantity is something that a replay has: a metric of some of a run's jobs.
type Quantity struct {
	Run    string // Base or one of File.Runs
	Scope  Scope
	Name   string // of that queue, user or job; empty for all
	Metric string
	metric metric
}

// Scope says of which jobs a quantity is.
type Scope uint8

// Scopes.
const (
	All   Scope = 0
	Queue Scope = 1
	User  Scope = 2
	Job   Scope = 3
)

// scopeWords begin a quantity that is not of all jobs.
var scopeWords = map[string]Scope{"queue": Queue, "user": User, "job": Job} //nolint:gochecknoglobals // table

// String is the scope's word.
func (s Scope) String() string { return [...]string{"all", "queue", "user", "job"}[s] }

// unit is what a metric is counted in.
type unit uint8

const (
	number  unit = 0 // a count, or a ratio that may be above 1
	seconds unit = 1
	part    unit = 2 // 0..1
)

// metric is what may be asked for.
type metric struct {
	measure  string  // of each job, or of the whole; a key of measures
	quantile float64 // of a distribution, 0..1
	mean     bool    // of a distribution, instead
	spread   bool    // it is of a distribution
}

// measure is one thing that is known of each job, or of many.
type measure struct {
	unit   unit
	spread bool // it has a value for each job: ask for avg_, max_ or a quantile of it
	one    bool // it may be asked of one job, by its own name
	scopes []Scope
}

// measures are all that may be asked for.
var measures = map[string]measure{ //nolint:gochecknoglobals // table
	"wait":           {unit: seconds, spread: true, one: true},
	"jct":            {unit: seconds, spread: true, one: true},
	"first_wait":     {unit: seconds, spread: true, one: true},
	"fairness":       {unit: number, spread: true, one: true},
	"longest_wait":   {unit: seconds, scopes: []Scope{All, Queue, User, Job}},
	"jobs":           {unit: number, scopes: []Scope{All, Queue, User}},
	"finished":       {unit: number, scopes: []Scope{All, Queue, User, Job}},
	"unfinished":     {unit: number, scopes: []Scope{All, Queue, User, Job}},
	"failed":         {unit: number, scopes: []Scope{All, Queue, User, Job}},
	"refused":        {unit: number, scopes: []Scope{All, Queue, User, Job}},
	"preemptions":    {unit: number, scopes: []Scope{All, Queue, User, Job}},
	"preempted_jobs": {unit: number, scopes: []Scope{All, Queue, User}},
	"gpu_allocation": {unit: part, scopes: []Scope{All, Queue}},
	"gpu_goodput":    {unit: part, scopes: []Scope{All, Queue}},
	"makespan":       {unit: seconds, scopes: []Scope{All}},
	"started":        {unit: seconds, scopes: []Scope{Job}},
	"ended":          {unit: seconds, scopes: []Scope{Job}},
}

// Metrics names all metrics that a scope has, sorted; distributions as avg_NAME, which stands for max_NAME, p95_NAME
// and so on.
func Metrics(s Scope) []string {
	var out []string
	for name, m := range measures { // any order: sorted below
		switch {
		case m.spread && s != Job:
			out = append(out, "avg_"+name)
		case m.spread && m.one || slices.Contains(m.scopes, s):
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

var ops = []string{"<=", ">=", "==", "!=", "<", ">"} //nolint:gochecknoglobals // table

// words cuts a text at white space, but not between double quotes. Operators and "*" are words of their own.
func words(text string) ([]string, error) {
	var out []string
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimLeftFunc(rest, unicode.IsSpace) {
		if rest[0] == '"' {
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				return nil, fmt.Errorf("the quote before %q is never closed", rest[1:])
			}
			out, rest = append(out, rest[1:1+end]), rest[2+end:]
			continue
		}
		end := strings.IndexFunc(rest, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("<>=!*", r) })
		if end == 0 {
			end = 1
			for _, op := range ops {
				if strings.HasPrefix(rest, op) {
					end = len(op)
					break
				}
			}
		}
		if end < 0 {
			end = len(rest)
		}
		out, rest = append(out, rest[:end]), rest[end:]
	}
	return out, nil
}

// parse reads an assertion's text. Runs are the names that a quantity may be of.
func (a *Assertion) parse(runs []string) error {
	all, err := words(a.Text)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(w string) bool { return slices.Contains(ops, w) })
	if at < 0 {
		return fmt.Errorf("there is nothing that it is compared with: write it like p95_wait < 10m, with one of %s", strings.Join(ops, " "))
	}
	if a.Left, err = quantity(all[:at], runs); err != nil {
		return err
	}
	a.Op = all[at]
	right, want := all[at+1:], a.Left.unit()
	switch star := slices.Index(right, "*"); {
	case len(right) == 0:
		return fmt.Errorf("nothing follows %s", a.Op)
	case star >= 0 && star != 1:
		return fmt.Errorf("a quantity is multiplied like 0.9 * %s", a.Left.Metric)
	case star == 1:
		if a.Value, err = strconv.ParseFloat(right[0], 64); err != nil {
			return fmt.Errorf("%q is not a number to multiply with", right[0])
		}
		return a.other(right[2:], want, runs)
	case len(right) == 1:
		if a.Value, err = want.parse(right[0]); err == nil {
			return nil
		}
		if c := right[0][0]; c >= '0' && c <= '9' || c == '-' || c == '.' {
			return err
		}
	}
	a.Value = 1
	return a.other(right, want, runs)
}

// other reads the quantity on the right.
func (a *Assertion) other(text []string, want unit, runs []string) error {
	q, err := quantity(text, runs)
	if err == nil && q.unit() != want {
		err = fmt.Errorf("%s and %s cannot be compared: they are counted in different units", a.Left.Metric, q.Metric)
	}
	a.Other = &q
	return err
}

// parse reads a value of a unit.
func (u unit) parse(text string) (float64, error) {
	if u == seconds {
		d, err := yamlfile.ParseDuration(text)
		return d.Seconds(), err
	}
	times := 1.0
	bare := strings.TrimSuffix(text, "%")
	if bare != text {
		times = 0.01
	}
	v, err := strconv.ParseFloat(bare, 64)
	if err != nil || v < 0 || bare != text && u != part {
		return 0, fmt.Errorf("%q is not a number of at least 0%s", text, map[unit]string{part: ", such as 0.8 or 80%"}[u])
	}
	return v * times, nil
}

// quantity reads "[queue NAME|user NAME|job NAME] [RUN.]METRIC".
func quantity(text, runs []string) (Quantity, error) {
	q := Quantity{Run: Base}
	if len(text) > 0 {
		if scope, ok := scopeWords[text[0]]; ok {
			if len(text) < 2 {
				return q, fmt.Errorf("which %s? write it like %s NAME p95_wait", scope, scope)
			}
			q.Scope, q.Name, text = scope, text[1], text[2:]
		} else if text[0] == All.String() {
			text = text[1:]
		}
	}
	if len(text) != 1 {
		return q, fmt.Errorf("%q is not [queue NAME | user NAME | job NAME] [RUN.]METRIC", strings.Join(text, " "))
	}
	q.Metric = text[0]
	if run, name, ok := strings.Cut(text[0], "."); ok && slices.Contains(runs, run) {
		q.Run, q.Metric = run, name
	} else if ok && !strings.HasPrefix(run, "p") { // p99.9_wait has a point, too
		return q, fmt.Errorf("%q is not a run of this file%s: there are %s", run, yamlfile.Suggest(run, runs), strings.Join(runs, ", "))
	}
	return q, q.resolve()
}

// resolve finds the metric that a quantity names.
func (q *Quantity) resolve() error {
	if m, ok := measures[q.Metric]; ok && (m.one && q.Scope == Job || slices.Contains(m.scopes, q.Scope)) {
		q.metric = metric{measure: q.Metric}
		return nil
	}
	known := Metrics(q.Scope)
	how, name, _ := strings.Cut(q.Metric, "_")
	m, ok := measures[name]
	if !ok || !m.spread || q.Scope == Job {
		return fmt.Errorf("%q is nothing that %s jobs have%s: there are %s (and p95_, max_ as avg_)", q.Metric,
			map[Scope]string{All: "all", Queue: "a queue's", User: "a user's", Job: "single"}[q.Scope], yamlfile.Suggest(q.Metric, known), strings.Join(known, ", "))
	}
	q.metric = metric{measure: name, spread: true}
	switch percent, err := strconv.ParseFloat(strings.TrimPrefix(how, "p"), 64); {
	case how == "avg":
		q.metric.mean = true
	case how == "max":
		q.metric.quantile = 1
	case strings.HasPrefix(how, "p") && err == nil && percent > 0 && percent < 100:
		q.metric.quantile = percent / 100
	default:
		return fmt.Errorf("%q: of a distribution ask for avg_%s, max_%s, or a quantile such as p95_%s", q.Metric, name, name, name)
	}
	return nil
}

func (q *Quantity) unit() unit { return measures[q.metric.measure].unit }

// String is the quantity as it may be written.
func (q *Quantity) String() string {
	text := q.Metric
	if q.Run != Base {
		text = q.Run + "." + text
	}
	if q.Scope != All {
		text = q.Scope.String() + " " + q.Name + " " + text
	}
	return text
}
