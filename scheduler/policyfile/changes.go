package policyfile

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Change is one thing of a policy that differs from another policy.
type Change struct {
	Field string // such as "preemption.min_runtime", "queue research/nlp" or "reservation demo-day"
	Was   string // its value as a file has it, on one line; empty: it was not there
	Is    string // likewise; empty: it is gone
}

// Changes compares two valid policies, in the order of the file. A queue is
// compared without those below it.
func Changes(was, is *cluster.Policy) []Change {
	var out []Change
	before, after := things(was), things(is)
	old := map[string]string{}
	for _, t := range before {
		old[t.field] = t.value
	}
	kept := map[string]bool{}
	for _, t := range after {
		kept[t.field] = true
		if v, ok := old[t.field]; !ok || v != t.value {
			out = append(out, Change{t.field, v, t.value})
		}
	}
	for _, t := range before {
		if !kept[t.field] {
			out = append(out, Change{t.field, t.value, ""})
		}
	}
	return out
}

// thing is one thing of a policy that is set and compared as a whole.
type thing struct{ field, value string }

func things(p *cluster.Policy) []thing {
	var out []thing
	add := func(field string, value *yaml.Node) { out = append(out, thing{field, oneLine(value)}) }
	add("order", word(string(p.Order)))
	add("score", word(string(p.Score)))
	add("fair_share.half_life", length(p.HalfLife))
	add("fair_share.setback", length(p.Setback))
	for _, w := range p.Weights {
		add("fair_share.gpu_weights: "+w.Type, milli(w.Milli))
	}
	bare := slices.Clone(p.Levels)
	for i := range bare {
		bare[i].Domains = nil
	}
	add("topology", levelsNode(bare))
	for _, l := range p.Levels {
		for _, d := range l.Domains {
			add("topology: level "+l.Name+": domain "+d.Name, word(strings.Join(d.Nodes, ",")))
		}
	}
	add("preemption.enabled", truth(!p.Preemption.Off))
	add("preemption.min_runtime", length(p.Preemption.MinRuntime))
	add("preemption.restart_cost", length(p.Preemption.RestartCost))
	add("preemption.max_per_job", number(int64(p.Preemption.MaxPerJob)))
	add("preemption.min_gain", milli(p.Preemption.MinGain))
	add("backfill.enabled", truth(!p.Backfill.Off))
	add("backfill.reserve", number(int64(p.Backfill.Reserve)))
	add("backfill.hold_after", length(p.Backfill.HoldAfter))
	add("defragmentation.enabled", truth(p.Defrag.On))
	add("defragmentation.max_per_hour", number(int64(p.Defrag.MaxPerHour)))
	add("defragmentation.max_cost", length(p.Defrag.MaxCost))
	add("checkpoints.user_limit", size(p.Checkpoints.UserBytes))
	for _, u := range p.Checkpoints.Users {
		add("checkpoints.users: "+u.User, size(u.Bytes))
	}
	for i := range p.Windows {
		add("reservation "+p.Windows[i].Name, windowsNode(p.Windows[i : i+1]).Content[0])
	}
	for i := range p.Queues {
		add("queue "+p.Queues[i].Path, subtree(p.Queues[i:i+1], map[string][]int{"": {0}}, "").Content[1])
	}
	return out
}

// oneLine writes a value on one line.
func oneLine(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	n.Style = yaml.FlowStyle
	out, err := yaml.Dump(n, yaml.WithLineWidth(-1), yaml.WithUnicode(false))
	if err != nil {
		panic("policyfile: a tree of plain values cannot be written: " + err.Error()) // a bug of this file
	}
	return strings.TrimSpace(string(out))
}
