package assertion

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/scheduler/yamlfile"
)

// Bounds of a file.
const (
	MaxBytes      = 1 << 20
	maxRuns       = 32
	maxAssertions = 1000
)

// File is a workload, the ways to replay it, and what must hold.
type File struct {
	Runs       []Run // the first is Base
	Assertions []Assertion
}

// Run is one way to replay: settings are those of the base run, then its own.
type Run struct {
	Name     string
	Settings []Setting
}

// Setting is a flag of `gangline sim run` and its value.
type Setting struct {
	Name, Value  string
	Parts        []Setting // of a map such as synthetic's, instead of Value
	Line, Column int
}

// Error makes an error about the setting, with its place.
func (s *Setting) Error(err error) error {
	return &yamlfile.Error{Line: s.Line, Column: s.Column, Text: s.Name + ": " + err.Error()}
}

// maxRunName is the longest name of a run, in bytes.
const maxRunName = 63

// isRunName tells what a run may be called: no point, since that stands between it and a metric. It is no regular
// expression, because every command of the program would pay for compiling it.
func isRunName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20 // a letter in lower case
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || (s[i] < '0' || s[i] > '9') && s[i] != '_' && s[i] != '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxRunName
}

// Parse reads a file of assertions. All problems are returned at once, joined; each is a *yamlfile.Error with its place,
// but for those of the whole file.
func Parse(data []byte) (*File, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("the file is %d bytes, at most %d are read", len(data), MaxBytes)
	}
	root, err := yamlfile.Document(data)
	if err != nil {
		return nil, err
	}
	r := &reader{file: &File{}}
	top := map[string]*yaml.Node{}
	r.pairs(root, "the file", func(key, value *yaml.Node) {
		if !slices.Contains(sections, key.Value) {
			r.errs = append(r.errs, yamlfile.Unknown(key, "field", sections))
		}
		top[key.Value] = value
	})
	r.runs(root, top["run"], top["runs"])
	r.assertions(root, top["assert"])
	slices.SortStableFunc(r.errs, func(a, b error) int { return cmp.Or(cmp.Compare(place(a), place(b))) })
	return r.file, errors.Join(r.errs...)
}

// sections are the fields of a file.
var sections = []string{"run", "runs", "assert"} //nolint:gochecknoglobals // table

func place(err error) int {
	var e *yamlfile.Error
	if errors.As(err, &e) {
		return e.Line<<16 + e.Column
	}
	return 0
}

type reader struct {
	file *File
	errs []error
}

func (r *reader) bad(n *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, yamlfile.At(n, format, args...))
}

// pairs calls f for each key of a map, once.
func (r *reader) pairs(n *yaml.Node, what string, f func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.bad(n, "%s must be a map, not a %s", what, yamlfile.Kind(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if seen[key.Value] || key.Kind != yaml.ScalarNode {
			r.bad(key, "%q is given twice, or is no name", key.Value)
			continue
		}
		seen[key.Value] = true
		f(key, n.Content[i+1])
	}
}

// runs reads the base run and what others change of it.
func (r *reader) runs(root, base, others *yaml.Node) {
	if base == nil {
		r.bad(root, "run is missing: a map of what to replay, such as {jobs: jobs.csv, nodes: nodes.csv}")
		return
	}
	r.file.Runs = []Run{{Base, r.settings("run", base)}}
	if others == nil {
		return
	}
	r.pairs(others, "runs", func(key, value *yaml.Node) {
		switch {
		case !isRunName(key.Value) || key.Value == Base:
			r.bad(key, "%q cannot be a run's name: use letters, digits, _ and -, not %s, which is the run that \"run\" describes", key.Value, Base)
		case len(r.file.Runs) >= maxRuns:
			r.bad(key, "more than %d runs", maxRuns)
		default:
			r.file.Runs = append(r.file.Runs, Run{key.Value, append(slices.Clone(r.file.Runs[0].Settings), r.settings("runs."+key.Value, value)...)})
		}
	})
}

// settings reads the flags of a run.
func (r *reader) settings(what string, n *yaml.Node) []Setting {
	var out []Setting
	r.pairs(n, what, func(key, value *yaml.Node) {
		s := Setting{Name: key.Value, Line: value.Line, Column: value.Column}
		switch {
		case value.Kind == yaml.MappingNode:
			s.Parts = r.settings(what+"."+key.Value, value)
		case value.Kind == yaml.SequenceNode:
			var items []string
			for _, c := range value.Content {
				if c.Kind != yaml.ScalarNode {
					r.bad(c, "%s.%s: expected a single value, not a %s", what, key.Value, yamlfile.Kind(c))
				}
				items = append(items, c.Value)
			}
			s.Value = strings.Join(items, ",")
		case yamlfile.Null(value):
			r.bad(key, "%s.%s has no value", what, key.Value)
		default:
			s.Value = value.Value
		}
		out = append(out, s)
	})
	return out
}

// assertions reads what must hold.
func (r *reader) assertions(root, n *yaml.Node) {
	if n == nil || len(n.Content) == 0 || n.Kind != yaml.SequenceNode {
		if n == nil {
			n = root
		}
		r.bad(n, "assert must be a list of what must hold, such as [p95_wait < 10m]: without one the file tests nothing")
		return
	}
	var names []string
	for _, run := range r.file.Runs {
		names = append(names, run.Name)
	}
	for i, c := range n.Content {
		if i == maxAssertions {
			r.bad(c, "more than %d assertions", maxAssertions)
			return
		}
		a := Assertion{Line: c.Line, Column: c.Column}
		switch c.Kind {
		case yaml.ScalarNode:
			a.Text = c.Value
		case yaml.MappingNode:
			r.pairs(c, "an assertion", func(key, value *yaml.Node) {
				to := map[string]*string{"name": &a.Name, "that": &a.Text}[key.Value]
				if to == nil || value.Kind != yaml.ScalarNode {
					r.errs = append(r.errs, yamlfile.Unknown(key, "field of an assertion", []string{"name", "that"}))
					return
				}
				*to = value.Value
				if key.Value == "that" {
					a.Line, a.Column = value.Line, value.Column
				}
			})
		default:
			r.bad(c, "expected an assertion such as p95_wait < 10m, not a %s", yamlfile.Kind(c))
			continue
		}
		if err := a.parse(names); err != nil {
			r.errs = append(r.errs, &yamlfile.Error{Line: a.Line, Column: a.Column, Text: fmt.Sprintf("%q: %s", a.Text, err)})
		}
		r.file.Assertions = append(r.file.Assertions, a)
	}
}
