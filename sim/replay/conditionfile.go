package replay

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/yamlfile"
	"github.com/gangline/gangline/sim/trace"
)

// maxConditionsBytes bounds a file of conditions.
const maxConditionsBytes = 1 << 20

// Words of a file for values that are no numbers.
const (
	exponentialWord = "exponential" // Exponential
	autoWord        = "auto"        // Auto
)

// condition is one field of a file of conditions: where its value is, and what it may be.
type condition struct {
	name string // "nodes.per_day"
	help string
	most float64 // of a number, or of the seconds of a time
	time *time.Duration
	num  *float64
	int  *int
}

// fields lists what a file may say, in the order in which Format writes it.
func (c *Conditions) fields() []condition {
	const day = 86400
	out := []condition{
		{name: "start.launch", most: day, time: &c.Start.Launch, help: "mean, from the decision until all processes run"},
		{name: "start.warmup", most: day, time: &c.Start.Warmup, help: "mean, from there to the first training step"},
		{name: "start.restart", most: day, time: &c.Start.Restart, help: "more of it in every later epoch"},
		{name: "start.spread", most: maxSpread, num: &c.Start.Spread, help: "0: always the mean"},
		{name: "checkpoint.interval", most: trace.MaxSeconds, time: &c.Checkpoint.Interval, help: "of training; 0s: only when warned; auto: by Young and Daly"},
		{name: "checkpoint.cost", most: day, time: &c.Checkpoint.Cost, help: "training stands still"},
		{name: "checkpoint.jobs", most: 1, num: &c.Checkpoint.Jobs, help: "part of the jobs that write any"},
		{name: "stop.warn", most: day, time: &c.Stop.Warn, help: "from the warning to SIGTERM"},
		{name: "stop.grace", most: day, time: &c.Stop.Grace, help: "from SIGTERM to SIGKILL"},
		{name: "stop.exit", most: day, time: &c.Stop.Exit, help: "until the processes are gone"},
		{name: "elastic.jobs", most: 1, num: &c.Elastic.Jobs, help: "part of the jobs that are elastic"},
		{name: "elastic.min", most: 1, num: &c.Elastic.Min, help: "of a job's GPUs in the trace"},
		{name: "elastic.max", most: maxTimes, num: &c.Elastic.Max},
		{name: "retries", most: cluster.MaxRetries, int: &c.Retries, help: "of a job whose workers fail of themselves"},
	}
	for _, k := range []struct {
		name string
		rate *FaultRate
		help string
	}{
		{"nodes", &c.Nodes, "for each node: the machine dies"},
		{"gpus", &c.GPUs, "for each GPU: it fails with the workers on it"},
		{"workers", &c.Workers, "for each GPU: the process on it fails"},
		{"racks", &c.Racks, "for each rack: all its machines die"},
		{"agents", &c.Agents, "for each node: its agent is away, its workers go on"},
		{"leader", &c.Leader, "the servers lose their leader"},
	} {
		out = append(out, condition{name: k.name + ".per_day", most: maxPerDay, num: &k.rate.PerDay, help: k.help})
		if k.name != "workers" {
			out = append(out,
				condition{name: k.name + ".repair", most: maxRepair.Seconds(), time: &k.rate.Repair, help: "mean"},
				condition{name: k.name + ".spread", most: maxSpread, num: &k.rate.Spread})
		}
		if k.name == "racks" {
			out = append(out, condition{name: "racks.nodes", most: cluster.MaxNodes, int: &c.RackNodes, help: "of a rack, where nodes name none; 0: none is in one"})
		}
	}
	return append(out,
		condition{name: "reports.late", most: day, time: &c.Late, help: "longest way of a report"},
		condition{name: "reports.lost", most: 0.9, num: &c.Lost, help: "part that gets lost"},
		condition{name: "reports.again", most: day, time: &c.Again, help: "said again after"},
		condition{name: "lease", most: day, time: &c.Lease, help: "of a silent node"},
		condition{name: "notice", most: day, time: &c.Notice, help: "until ranks see that one is gone"})
}

// spread reports whether Exponential is one of the field's values.
func (f *condition) spread() bool { return strings.HasSuffix(f.name, "spread") }

// maybeAuto reports whether Auto is one of the field's values.
func (f *condition) maybeAuto() bool { return f.name == "checkpoint.interval" }

// check says what is wrong with a field's value, or nil.
func (f *condition) check() error {
	low, v := 0.0, 0.0
	switch {
	case f.time != nil && f.maybeAuto() && *f.time == Auto:
		return nil
	case f.time != nil:
		if v = f.time.Seconds(); v < 0 || v > f.most {
			return fmt.Errorf("%s: %s is not in 0s..%s", f.name, *f.time, yamlfile.FormatDuration(time.Duration(f.most)*time.Second))
		}
		return nil
	case f.int != nil:
		v = float64(*f.int)
	default:
		v = *f.num
	}
	if f.spread() && v == Exponential {
		return nil
	}
	if !(v >= low && v <= f.most) {
		return fmt.Errorf("%s: %g is not in %g..%g", f.name, v, low, f.most)
	}
	return nil
}

// set reads a field's value.
func (f *condition) set(text string) (err error) {
	switch {
	case f.maybeAuto() && text == autoWord:
		*f.time = Auto
	case f.time != nil:
		*f.time, err = yamlfile.ParseDuration(text)
	case f.int != nil:
		if *f.int, err = strconv.Atoi(text); err != nil {
			err = fmt.Errorf("%q is not a whole number", text)
		}
	case f.spread() && text == exponentialWord:
		*f.num = Exponential
	default:
		if *f.num, err = strconv.ParseFloat(text, 64); err != nil || math.IsInf(*f.num, 0) || math.IsNaN(*f.num) || *f.num < 0 {
			err = fmt.Errorf("%q is not a number of at least 0", text)
			if f.spread() {
				err = fmt.Errorf("%w, and not %s", err, exponentialWord)
			}
		}
	}
	return err
}

// text is a field's value as a file has it.
func (f *condition) text() string {
	switch {
	case f.time != nil && *f.time == Auto:
		return autoWord
	case f.time != nil:
		return yamlfile.FormatDuration(*f.time)
	case f.int != nil:
		return strconv.Itoa(*f.int)
	case *f.num == Exponential:
		return exponentialWord
	default:
		return strconv.FormatFloat(*f.num, 'g', 4, 64)
	}
}

// ParseConditions reads a file of conditions. What it does not name is as in the preset that its key preset names
// ("default" if there is none). All problems are returned at once, joined, each with its line and column.
func ParseConditions(data []byte) (*Conditions, error) {
	if len(data) > maxConditionsBytes {
		return nil, fmt.Errorf("the file is %d bytes, at most %d are read", len(data), maxConditionsBytes)
	}
	root, err := yamlfile.Document(data)
	if errors.Is(err, yamlfile.ErrEmpty) {
		return nil, errors.New("the file is empty: write \"preset: default\" to have all defaults")
	}
	if err != nil {
		return nil, err
	}
	r := conditionReader{seen: map[string]bool{}}
	r.c, _ = Preset("default")
	if root.Kind == yaml.MappingNode {
		r.preset(root)
	}
	r.byName = map[string]*condition{}
	fields := r.c.fields()
	for i := range fields {
		r.byName[fields[i].name] = &fields[i]
		r.names = append(r.names, fields[i].name)
	}
	r.names = append(r.names, "elastic.curve", "preset")
	r.read("", root)
	if len(r.errs) == 0 {
		if err := r.c.Validate(); err != nil {
			r.errs = append(r.errs, err)
		}
	}
	return r.c, errors.Join(r.errs...)
}

type conditionReader struct {
	c      *Conditions
	byName map[string]*condition
	names  []string
	seen   map[string]bool
	errs   []error
}

func (r *conditionReader) bad(n *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, yamlfile.At(n, format, args...))
}

// preset takes the conditions that all others are changes of.
func (r *conditionReader) preset(root *yaml.Node) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if v := root.Content[i+1]; root.Content[i].Value == "preset" {
			if c, ok := Preset(v.Value); ok {
				r.c = c
			} else {
				r.bad(v, "preset: %q is not one of %s", v.Value, strings.Join(Presets(), ", "))
			}
		}
	}
}

// read takes in a map of fields, or of maps of them.
func (r *conditionReader) read(at string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		r.bad(n, "%s must be a map of fields", cmp.Or(strings.TrimSuffix(at, "."), "the file"))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := at + key.Value
		f := r.byName[name]
		switch {
		case r.seen[name]:
			r.bad(key, "%s is given twice", name)
		case name == "preset":
		case name == "elastic.curve":
			r.curve(value)
		case f != nil && value.Kind == yaml.ScalarNode:
			if err := f.set(value.Value); err != nil {
				r.bad(value, "%s: %s", name, err)
			}
		case f != nil:
			r.bad(value, "%s must be one value", name)
		case slices.ContainsFunc(r.names, func(s string) bool { return strings.HasPrefix(s, name+".") }):
			r.read(name+".", value)
		default:
			r.bad(key, "there is no field %s%s", name, yamlfile.Suggest(name, r.names))
		}
		r.seen[name] = true
	}
}

// curve reads a list of [GPUs, speed].
func (r *conditionReader) curve(n *yaml.Node) {
	r.c.Elastic.Curve = nil
	for _, p := range n.Content {
		var v [2]float64
		ok := n.Kind == yaml.SequenceNode && p.Kind == yaml.SequenceNode && len(p.Content) == 2
		for i := 0; ok && i < 2; i++ {
			var err error
			v[i], err = strconv.ParseFloat(p.Content[i].Value, 64)
			ok = err == nil
		}
		if !ok {
			r.bad(p, "elastic.curve: each point is [GPUs, speed], such as [2, 1.9]")
			return
		}
		r.c.Elastic.Curve = append(r.c.Elastic.Curve, CurvePoint{v[0], v[1]})
	}
}

// Format writes conditions as a file that ParseConditions reads, up to the fourth digit of numbers.
func (c *Conditions) Format() string {
	var b strings.Builder
	section := ""
	for _, f := range c.fields() {
		name := f.name
		if top, rest, ok := strings.Cut(f.name, "."); ok {
			if top != section {
				fmt.Fprintf(&b, "%s:\n", top)
			}
			section, name = top, "  "+rest
		}
		if line := name + ": " + f.text(); f.help == "" {
			fmt.Fprintf(&b, "%s\n", line)
		} else {
			fmt.Fprintf(&b, "%-22s # %s\n", line, f.help)
		}
		if f.num == &c.Elastic.Max {
			b.WriteString("  curve: [")
			for i, p := range c.Elastic.Curve {
				b.WriteString([]string{"", ", "}[min(i, 1)])
				fmt.Fprintf(&b, "[%g, %g]", p.GPUs, p.Speed)
			}
			b.WriteString("] # [GPUs, speed], multiples of the trace's\n")
		}
	}
	return b.String()
}
