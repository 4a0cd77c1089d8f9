package policyfile

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// sections are the fields of a policy file, in the order in which Format
// writes them and docs/policy.md explains them.
func (r *reader) sections() []field {
	p := r.policy
	pre, back, def := &p.Preemption, &p.Backfill, &p.Defrag
	return []field{
		{name: "order", read: text(func(v string) { p.Order = cluster.OrderName(v) })},
		{name: "score", read: text(func(v string) { p.Score = cluster.ScoreName(v) })},
		{name: "fair_share", below: []field{
			{name: "half_life", read: span(&p.HalfLife)},
			{name: "setback", read: span(&p.Setback)},
			{name: "gpu_weights", read: readWeights},
		}},
		{name: "topology", read: readLevels},
		{name: "preemption", below: []field{
			{name: "enabled", read: boolean(func(on bool) { pre.Off = !on })},
			{name: "min_runtime", read: span(&pre.MinRuntime)},
			{name: "restart_cost", read: span(&pre.RestartCost)},
			{name: "max_per_job", read: count(func(v int64) { pre.MaxPerJob = int32(v) }, math.MaxInt32)}, //nolint:gosec // within the bound
			{name: "min_gain", read: thousandths(&pre.MinGain)},
		}},
		{name: "backfill", below: []field{
			{name: "enabled", read: boolean(func(on bool) { back.Off = !on })},
			{name: "reserve", read: count(func(v int64) { back.Reserve = int32(v) }, math.MaxInt32)}, //nolint:gosec // within the bound
			{name: "hold_after", read: span(&back.HoldAfter)},
		}},
		{name: "defragmentation", below: []field{
			{name: "enabled", read: boolean(func(on bool) { def.On = on })},
			{name: "max_per_hour", read: count(func(v int64) { def.MaxPerHour = int32(v) }, math.MaxInt32)}, //nolint:gosec // within the bound
			{name: "max_cost", read: span(&def.MaxCost)},
		}},
		{name: "checkpoints", below: []field{
			{name: "user_limit", read: bytesOrNone(&p.Checkpoints.UserBytes)},
			{name: "users", read: readUserLimits},
		}},
		{name: "reservations", read: readWindows},
		{name: "queues", read: func(r *reader, key string, n *yaml.Node) { r.queues(n, key+": ", "") }},
	}
}

// value returns the text of a plain value.
func (r *reader) value(key string, n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode || yamlfile.Null(n) {
		r.bad(key, n, "expected one value, not a %s", yamlfile.Kind(n))
		return "", false
	}
	return n.Value, true
}

func text(set func(string)) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		if v, ok := r.value(key, n); ok {
			set(v)
		}
	}
}

func boolean(set func(bool)) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		switch v, ok := r.value(key, n); {
		case !ok:
		case v != "true" && v != "false":
			r.bad(key, n, "%q is not true or false", v)
		default:
			set(v == "true")
		}
	}
}

func span(d *time.Duration) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		v, ok := r.value(key, n)
		if !ok {
			return
		}
		got, err := yamlfile.ParseDuration(v)
		if err != nil {
			r.bad(key, n, "%s", err)
			return
		}
		*d = got
	}
}

// count reads a whole number. What it may be is cluster's to say; most is only
// what its type holds.
func count(set func(int64), most int64) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		v, ok := r.value(key, n)
		if !ok {
			return
		}
		got, err := strconv.ParseInt(v, 10, 64)
		if err != nil || got < -most || got > most {
			r.bad(key, n, "%q is not a whole number in range", v)
			return
		}
		set(got)
	}
}

// thousandths reads a number with at most three decimals.
func thousandths(to *int64) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		v, ok := r.value(key, n)
		if !ok {
			return
		}
		f, err := strconv.ParseFloat(v, 64)
		milli := math.Round(f * 1000)
		if err != nil || math.IsNaN(f) || math.Abs(f) > 1e9 || math.Abs(f*1000-milli) > 1e-4 {
			r.bad(key, n, "%q is not a number with at most three decimals, such as 2 or 0.5", v)
			return
		}
		*to = int64(milli)
	}
}

func readWeights(r *reader, key string, n *yaml.Node) {
	r.policy.Weights = nil
	r.pairs(n, key+": ", func(name, value *yaml.Node) {
		w := cluster.TypeWeight{Type: name.Value, Milli: 1000}
		r.places[key+": "+name.Value] = value
		thousandths(&w.Milli)(r, key+": "+name.Value, value)
		r.policy.Weights = append(r.policy.Weights, w)
	})
}

func readLevels(r *reader, key string, n *yaml.Node) {
	r.policy.Levels = nil
	r.items(key, n, func(item *yaml.Node) {
		var l cluster.Level
		var at map[string]*yaml.Node
		r.fields(item, key+": ", levelFields(&l, &at))
		if l.Label == "" && l.Name != "" {
			l.Label = labelPrefix + l.Name
		}
		r.places[key+": level "+l.Name] = item
		for d, n := range at {
			r.places[key+": level "+l.Name+": domain "+d] = n
		}
		r.policy.Levels = append(r.policy.Levels, l)
	})
}

func levelFields(l *cluster.Level, at *map[string]*yaml.Node) []field {
	return []field{
		{name: "level", read: text(func(v string) { l.Name = v })},
		{name: "label", read: text(func(v string) { l.Label = v })},
		{name: "domains", read: func(r *reader, key string, n *yaml.Node) { *at = r.domains(l, key, n) }},
	}
}

// labelPrefix and a level's name are its label, if the file names none.
const labelPrefix = "topology.gangline.dev/"

// domains reads the domains of a level: the nodes of each, as a list or as words
// with commas. Where each of them is comes back.
func (r *reader) domains(l *cluster.Level, key string, n *yaml.Node) map[string]*yaml.Node {
	at := map[string]*yaml.Node{}
	r.pairs(n, key+": ", func(name, value *yaml.Node) {
		d := cluster.LevelDomain{Name: name.Value}
		at[d.Name] = value
		if value.Kind == yaml.ScalarNode && !yamlfile.Null(value) {
			d.Nodes = hosts(value.Value)
		} else {
			words(&d.Nodes)(r, key+": "+d.Name, value)
		}
		l.Domains = append(l.Domains, d)
	})
	slices.SortStableFunc(l.Domains, func(a, b cluster.LevelDomain) int { return cmp.Compare(a.Name, b.Name) })
	return at
}

// hosts splits patterns at the commas that are in no brackets.
func hosts(text string) (out []string) {
	from, depth := 0, 0
	for i, c := range text + "," {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == ',' && depth <= 0:
			if w := strings.TrimSpace(text[from:i]); w != "" {
				out = append(out, w)
			}
			from = i + 1
		}
	}
	if from < len(text) { // a bracket is not closed: cluster says so
		out = append(out, strings.TrimSpace(text[from:]))
	}
	return out
}

func readWindows(r *reader, key string, n *yaml.Node) {
	r.items(key, n, func(item *yaml.Node) { r.window(key, item) })
}

func (r *reader) window(key string, n *yaml.Node) {
	var w cluster.Window
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "name" {
				w.Name = n.Content[i+1].Value
			}
		}
	}
	if w.Name == "" {
		r.bad(key, n, "a reservation needs a name, such as name: demo-day")
		return
	}
	key += ": " + w.Name
	r.places[key] = n
	before := len(r.errs)
	r.fields(n, key+": ", windowFields(&w))
	for _, t := range []struct {
		name string
		at   cluster.Time
	}{{"start", w.Start}, {"end", w.End}} {
		if t.at == 0 && len(r.errs) == before {
			r.bad(key, n, "%s is missing: give a time such as 2026-12-01T09:00:00Z", t.name)
		}
	}
	if len(r.errs) > before {
		r.failed = append(r.failed, key)
	}
	r.policy.Windows = append(r.policy.Windows, w)
}

func windowFields(w *cluster.Window) []field {
	return []field{
		{name: "name", read: text(func(v string) { w.Name = v })},
		{name: "start", read: moment(&w.Start)},
		{name: "end", read: moment(&w.End)},
		{name: "nodes", read: words(&w.Nodes)},
		{name: "node_selector", read: labels(&w.Selector)},
		{name: "queue", read: text(func(v string) { w.Queue = v })},
		{name: "maintenance", read: boolean(func(on bool) { w.Maintenance = on })},
	}
}

// moment reads a time with its zone.
func moment(to *cluster.Time) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		v, ok := r.value(key, n)
		if !ok {
			return
		}
		t, err := time.Parse(time.RFC3339, v)
		if err != nil || t.Year() < 1970 || t.Year() > 2200 {
			r.bad(key, n, "%q is not a time with its zone, such as 2026-12-01T09:00:00Z or 2026-12-01T09:00:00+01:00", v)
			return
		}
		*to = cluster.Time(t.UnixNano())
	}
}

func words(to *[]string) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		r.items(key, n, func(item *yaml.Node) {
			if v, ok := r.value(key, item); ok {
				*to = append(*to, v)
			}
		})
	}
}

func labels(to *[]cluster.Label) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		r.pairs(n, key+": ", func(name, value *yaml.Node) {
			if v, ok := r.value(key, value); ok {
				*to = append(*to, cluster.Label{Key: name.Value, Value: v})
			}
		})
	}
}
