package policyfile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

const (
	// MaxBytes bounds a policy file: a policy must fit into one log entry of
	// 1 MiB, and its YAML is longer than its encoding.
	MaxBytes = 4 << 20
	// maxProblems is how many problems of one file are told.
	maxProblems = 50
)

// Parse reads a policy file. What it does not name is as in
// cluster.DefaultPolicy. All problems are returned at once, joined, in the
// order of the file: each is a *yamlfile.Error, with line and column where the
// problem has a place. Lists of the policy come out sorted, as cluster wants
// them.
func Parse(data []byte) (*cluster.Policy, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("the policy is %d bytes, at most %d are read", len(data), MaxBytes)
	}
	root, err := yamlfile.Document(data)
	if errors.Is(err, yamlfile.ErrEmpty) {
		return nil, errors.New("the policy is empty: write {} to have all defaults")
	}
	if err != nil {
		return nil, err
	}
	r := &reader{policy: cluster.DefaultPolicy(), places: map[string]*yaml.Node{}}
	r.fields(root, "", r.sections())
	r.sort()
	r.validate()
	if err := r.problems(); err != nil {
		return nil, err
	}
	return r.policy, nil
}

// ForServers returns an error for people if only the simulator can follow the
// policy.
func ForServers(p *cluster.Policy) error {
	if p.Order == cluster.OrderSJF || p.Order == cluster.OrderSRTF {
		return fmt.Errorf("order: %s needs the exact lengths of jobs, which only the simulator has: servers take gangline, fifo, las or qssf", p.Order)
	}
	return nil
}

// reader collects a policy and the problems of its file.
type reader struct {
	policy *cluster.Policy
	errs   []*yamlfile.Error
	places map[string]*yaml.Node // where each thing is, by the words with which cluster's errors begin
	failed []string              // things that could not be read: what cluster says of them would only confuse
}

// field is one field of a map, and how its value is read. Key is the place of
// the value in words, such as "preemption.min_runtime".
type field struct {
	name  string
	read  func(r *reader, key string, n *yaml.Node)
	below []field // instead of read: the fields of a map
}

// Fields names all fields of a policy file, in the order in which Format writes
// them: "order", "preemption.min_runtime", "queues.quota".
func Fields() []string {
	r := &reader{policy: &cluster.Policy{}}
	var out []string
	for _, f := range r.sections() {
		below := f.below
		switch f.name {
		case "topology":
			below = levelFields(&cluster.Level{}, nil)
		case "reservations":
			below = windowFields(&cluster.Window{})
		case "queues":
			below = queueFields(&cluster.QueuePolicy{})
		}
		if below == nil {
			out = append(out, f.name)
		}
		for _, b := range below {
			out = append(out, f.name+"."+b.name)
		}
	}
	return out
}

// fields reads a map with known fields. Prefix goes before the names of fields
// in errors; nothing at all stands for an empty map.
func (r *reader) fields(n *yaml.Node, prefix string, fields []field) {
	r.pairs(n, prefix, func(key, value *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		if i < 0 {
			names := make([]string, len(fields))
			for i := range fields {
				names[i] = fields[i].name
			}
			r.add(prefix, yamlfile.Unknown(key, "field", names))
			return
		}
		r.places[prefix+key.Value] = value
		if below := fields[i].below; below != nil {
			r.fields(value, prefix+key.Value+".", below)
			return
		}
		fields[i].read(r, prefix+key.Value, value)
	})
}

// pairs calls f for each key of a map, once.
func (r *reader) pairs(n *yaml.Node, prefix string, f func(key, value *yaml.Node)) {
	if yamlfile.Null(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.bad(strings.TrimRight(prefix, ":. "), n, "expected a map, not a %s", yamlfile.Kind(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch line, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			r.add(prefix, yamlfile.At(key, "expected a name, not a %s", yamlfile.Kind(key)))
		case twice:
			r.add(prefix, yamlfile.At(key, "%q is given twice, first on line %d", key.Value, line))
		default:
			seen[key.Value] = key.Line
			f(key, value)
		}
	}
}

// items calls f for each item of a list.
func (r *reader) items(key string, n *yaml.Node, f func(*yaml.Node)) {
	if yamlfile.Null(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.bad(key, n, "expected a list, not a %s", yamlfile.Kind(n))
		return
	}
	for _, c := range n.Content {
		f(c)
	}
}

// bad records a problem with the thing that key names.
func (r *reader) bad(key string, n *yaml.Node, format string, args ...any) {
	r.failed = append(r.failed, key)
	if key != "" {
		key += ": "
	}
	r.add(key, yamlfile.At(n, format, args...))
}

// add records a problem, with words before it.
func (r *reader) add(prefix string, err error) {
	var e *yamlfile.Error
	if !errors.As(err, &e) {
		e = &yamlfile.Error{Text: err.Error()}
	}
	r.errs = append(r.errs, &yamlfile.Error{Line: e.Line, Column: e.Column, Text: withPrefix(prefix, e.Text)})
}

// withPrefix puts the place in words before a text: "preemption." becomes
// "preemption: " there.
func withPrefix(prefix, text string) string {
	if p, ok := strings.CutSuffix(prefix, "."); ok {
		prefix = p + ": "
	}
	return prefix + text
}

// sort puts the policy's lists into the order that cluster wants. Equal
// neighbours are left for its Validate to name.
func (r *reader) sort() {
	p := r.policy
	slices.SortStableFunc(p.Weights, func(a, b cluster.TypeWeight) int { return cmp.Compare(a.Type, b.Type) })
	slices.SortStableFunc(p.Queues, func(a, b cluster.QueuePolicy) int { return cmp.Compare(a.Path, b.Path) })
	slices.SortStableFunc(p.Windows, func(a, b cluster.Window) int { return cmp.Compare(a.Name, b.Name) })
}

// validate adds what cluster says of the policy as a whole, each problem with
// the place of the thing that it begins with.
func (r *reader) validate() {
	for _, err := range flatten(r.policy.Validate()) {
		e := &yamlfile.Error{Text: err.Error()}
		known := false
		for i := len(e.Text); i > 0 && !known; i-- {
			if i < len(e.Text) && !strings.ContainsRune(":. ", rune(e.Text[i])) {
				continue
			}
			key := e.Text[:i]
			known = slices.Contains(r.failed, key)
			if n, ok := r.places[key]; ok && e.Line == 0 {
				e.Line, e.Column = n.Line, n.Column
			}
		}
		if !known {
			r.errs = append(r.errs, e)
		}
	}
}

// flatten returns the single errors of a joined one.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}

// problems joins what was found, in the order of the file.
func (r *reader) problems() error {
	slices.SortStableFunc(r.errs, func(a, b *yamlfile.Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var out []error
	for _, e := range r.errs {
		if len(out) == maxProblems {
			out = append(out, &yamlfile.Error{Text: fmt.Sprintf("and %d more problems", len(r.errs)-maxProblems)})
			break
		}
		out = append(out, e)
	}
	return errors.Join(out...)
}
