package policyfile

import (
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// Format writes a valid policy as a file that Parse reads as the same policy.
// Every section is written with all its fields; of a queue, only what differs
// from the defaults.
func Format(p *cluster.Policy) []byte {
	root := block(
		"order", word(string(p.Order)),
		"score", word(string(p.Score)),
		"fair_share", block("half_life", length(p.HalfLife), "setback", length(p.Setback), "gpu_weights", weightsNode(p.Weights)),
		"topology", levelsNode(p.Levels),
		"preemption", block(
			"enabled", truth(!p.Preemption.Off),
			"min_runtime", length(p.Preemption.MinRuntime),
			"restart_cost", length(p.Preemption.RestartCost),
			"max_per_job", number(int64(p.Preemption.MaxPerJob)),
			"min_gain", milli(p.Preemption.MinGain),
		),
		"backfill", block(
			"enabled", truth(!p.Backfill.Off),
			"reserve", number(int64(p.Backfill.Reserve)),
			"hold_after", length(p.Backfill.HoldAfter),
		),
		"defragmentation", block(
			"enabled", truth(p.Defrag.On),
			"max_per_hour", number(int64(p.Defrag.MaxPerHour)),
			"max_cost", length(p.Defrag.MaxCost),
		),
		"checkpoints", block("user_limit", size(p.Checkpoints.UserBytes), "users", userLimitsNode(p.Checkpoints.Users)),
		"reservations", windowsNode(p.Windows),
		"queues", queuesNode(p.Queues, ""),
	)
	out, err := yaml.Dump(root, yaml.WithIndent(2), yaml.WithLineWidth(-1), yaml.WithUnicode(false))
	if err != nil {
		panic("policyfile: a tree of plain values cannot be written: " + err.Error()) // a bug of this file
	}
	return out
}

func weightsNode(weights []cluster.TypeWeight) *yaml.Node {
	n := flow()
	for _, w := range weights {
		put(n, w.Type, milli(w.Milli))
	}
	return n
}

func levelsNode(levels []cluster.Level) *yaml.Node {
	n := list()
	for _, l := range levels {
		item := flow("level", word(l.Name), "label", word(l.Label))
		if len(l.Domains) > 0 {
			item.Style = 0
			domains := block()
			for _, d := range l.Domains {
				put(domains, d.Name, word(strings.Join(d.Nodes, ",")))
			}
			put(item, "domains", domains)
		}
		n.Content = append(n.Content, item)
	}
	return n
}

func windowsNode(windows []cluster.Window) *yaml.Node {
	n := list()
	for i := range windows {
		w := &windows[i]
		item := block("name", word(w.Name), "start", instant(w.Start), "end", instant(w.End))
		if len(w.Nodes) > 0 {
			nodes := list()
			nodes.Style = yaml.FlowStyle
			for _, name := range w.Nodes {
				nodes.Content = append(nodes.Content, word(name))
			}
			put(item, "nodes", nodes)
		}
		if len(w.Selector) > 0 {
			selector := flow()
			for _, l := range w.Selector {
				put(selector, l.Key, word(l.Value))
			}
			put(item, "node_selector", selector)
		}
		if w.Queue != "" {
			put(item, "queue", word(w.Queue))
		}
		if w.Maintenance {
			put(item, "maintenance", truth(true))
		}
		n.Content = append(n.Content, item)
	}
	return n
}

// queuesNode writes the queues right below a path, and those below them. The
// queues below a path need not follow it at once: "a-b" sorts before "a/b".
func queuesNode(queues []cluster.QueuePolicy, above string) *yaml.Node {
	children := map[string][]int{}
	for i := range queues {
		parent := cluster.ParentQueue(queues[i].Path)
		children[parent] = append(children[parent], i)
	}
	return subtree(queues, children, above)
}

func subtree(queues []cluster.QueuePolicy, children map[string][]int, above string) *yaml.Node {
	n := block()
	for _, i := range children[above] {
		q := &queues[i]
		item := flow()
		if len(q.Quota) > 0 {
			put(item, "quota", countsNode(q.Quota))
		}
		if len(q.Limit) > 0 {
			put(item, "limit", countsNode(q.Limit))
		}
		if q.Weight != 1000 {
			put(item, "weight", milli(q.Weight))
		}
		if q.UserLimit > 0 {
			put(item, "user_limit", number(q.UserLimit))
		}
		if q.Closed {
			put(item, "closed", truth(true))
		}
		if len(children[q.Path]) > 0 {
			item.Style = 0
			put(item, "queues", subtree(queues, children, q.Path))
		}
		put(n, q.Path[strings.LastIndexByte(q.Path, '/')+1:], item)
	}
	return n
}

func countsNode(counts []cluster.TypeCount) *yaml.Node {
	if len(counts) == 1 && counts[0].Type == "" {
		return number(counts[0].GPUs)
	}
	n := flow()
	for _, c := range counts {
		name := c.Type
		if name == "" {
			name = allTypes
		}
		put(n, name, number(c.GPUs))
	}
	return n
}

// block makes a map of names and values in turn, one on each line.
func block(pairs ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i < len(pairs); i += 2 {
		put(n, pairs[i].(string), pairs[i+1].(*yaml.Node))
	}
	return n
}

// flow makes a map on one line.
func flow(pairs ...any) *yaml.Node {
	n := block(pairs...)
	n.Style = yaml.FlowStyle
	return n
}

func list() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode} }

func put(n *yaml.Node, name string, value *yaml.Node) {
	n.Content = append(n.Content, word(name), value)
}

// word is a string, in quotes where YAML would take it for something else. What
// is not plain ASCII is escaped: the encoder leaves line separators of Unicode
// bare, where they end a line.
func word(v string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v}
	if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func truth(v bool) *yaml.Node { return plain(strconv.FormatBool(v)) }

func number(v int64) *yaml.Node { return plain(strconv.FormatInt(v, 10)) }

func milli(v int64) *yaml.Node { return plain(strconv.FormatFloat(float64(v)/1000, 'f', -1, 64)) }

func length(d time.Duration) *yaml.Node { return plain(yamlfile.FormatDuration(d)) }

func instant(t cluster.Time) *yaml.Node {
	return plain(time.Unix(0, int64(t)).UTC().Format(time.RFC3339Nano))
}

func plain(v string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: v} }
