package jobfile

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/checkpoint"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// setCheckpoint reads {interval: auto, keep: 3, every: 1000, best: [loss:min], push: all, local: all}, or the same as a flag has it:
// interval=auto,keep=3,every=1000,best=loss:min,push=all.
func setCheckpoint(s *schedulerv1.JobSpec, n *yaml.Node) error {
	pairs := n.Content
	switch n.Kind {
	case yaml.MappingNode:
	case yaml.ScalarNode:
		pairs = nil
		for pair := range strings.SplitSeq(n.Value, ",") {
			name, value, ok := strings.Cut(pair, "=")
			if !ok {
				return yamlfile.At(n, "%q is not of the form NAME=VALUE, as in interval=auto,keep=3", pair)
			}
			node := func(text string) *yaml.Node {
				return &yaml.Node{Kind: yaml.ScalarNode, Value: strings.TrimSpace(text), Line: n.Line, Column: n.Column}
			}
			pairs = append(pairs, node(name), node(value))
		}
	default:
		return yamlfile.At(n, "expected {interval: auto, keep: 3}, not a %s", yamlfile.Kind(n))
	}
	s.CheckpointKeep, s.Checkpoints = 0, nil
	policy := &schedulerv1.CheckpointPolicy{}
	fields := map[string]func(*yaml.Node) error{
		"keep": func(v *yaml.Node) error {
			return integer(func(s *schedulerv1.JobSpec) *int32 { return &s.CheckpointKeep })(s, v)
		},
		"interval": func(v *yaml.Node) error { return policyText(policy, v, setInterval) },
		"every":    func(v *yaml.Node) error { return policyText(policy, v, setEvery) },
		"push":     func(v *yaml.Node) error { return policyText(policy, v, setPush) },
		"local":    func(v *yaml.Node) error { return setLocal(s, v) },
		"best":     func(v *yaml.Node) error { return setBest(policy, v) },
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(pairs); i += 2 {
		k, v := pairs[i], pairs[i+1]
		set := fields[k.Value]
		switch {
		case set == nil:
			return yamlfile.Unknown(k, "field", []string{"interval", "keep", "every", "best", "push", "local"})
		case seen[k.Value] && (k.Value != "best" || n.Kind != yaml.ScalarNode): // a flag has no lists
			return yamlfile.At(k, "%q is given twice", k.Value)
		}
		seen[k.Value] = true
		if err := set(v); err != nil {
			return err
		}
	}
	delete(seen, "keep")
	delete(seen, "local")
	if len(seen) > 0 {
		s.Checkpoints = policy
	}
	return nil
}

// setLocal says what goes to nodes' own disks first. Like all that says how checkpoints are stored it reaches the agents in the job's environment.
func setLocal(s *schedulerv1.JobSpec, n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || !slices.Contains([]string{"all", "tensors", "none"}, n.Value) {
		return yamlfile.At(n, "local: expected all, tensors or none")
	}
	setVar(s, "GANGLINE_CHECKPOINT_LOCAL", n.Value)
	return nil
}

// policyText sets a field of the policy from a plain value.
func policyText(p *schedulerv1.CheckpointPolicy, n *yaml.Node, set func(*schedulerv1.CheckpointPolicy, string) error) error {
	if n.Kind != yaml.ScalarNode {
		return yamlfile.At(n, "expected one value, not a %s", yamlfile.Kind(n))
	}
	if err := set(p, n.Value); err != nil {
		return yamlfile.At(n, "%s", err)
	}
	return nil
}

// setInterval reads auto, a number of steps such as 500 steps, or a time such as 10m.
func setInterval(p *schedulerv1.CheckpointPolicy, text string) error {
	if text == "auto" {
		p.IntervalAuto = true
		return nil
	}
	number, steps := strings.CutSuffix(text, "steps")
	if !steps {
		number, steps = strings.CutSuffix(text, "step")
	}
	if steps {
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 1 {
			return fmt.Errorf("interval: %q is not a number of steps such as 500 steps", text)
		}
		p.IntervalSteps = n
		return nil
	}
	d, err := yamlfile.ParseDuration(text)
	if err != nil || d.Milliseconds() < 1 {
		return fmt.Errorf("interval: %q is neither auto, nor a time such as 10m, nor a number of steps such as 500 steps", text)
	}
	p.IntervalMs = d.Milliseconds()
	return nil
}

func setEvery(p *schedulerv1.CheckpointPolicy, text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return fmt.Errorf("every: %q is not a number of steps, 1 or more", text)
	}
	p.KeepEvery = n
	return nil
}

// setPush reads all, none, or each how manyth checkpoint is copied.
func setPush(p *schedulerv1.CheckpointPolicy, text string) error {
	switch text {
	case "all":
		p.PushNth = 1
		return nil
	case "none":
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return fmt.Errorf("push: %q is neither all, nor none, nor a whole number (5: each fifth checkpoint)", text)
	}
	p.PushNth = int32(n)
	return nil
}

// setBest reads one or a list of loss:min, accuracy:max or loss:min:3.
func setBest(p *schedulerv1.CheckpointPolicy, n *yaml.Node) error {
	texts, err := strs(n)
	if err != nil {
		return err
	}
	for _, text := range slices.Compact(texts) {
		b, err := checkpoint.ParseBest(text)
		if err != nil {
			return yamlfile.At(n, "best: %s", err)
		}
		p.KeepBest = append(p.KeepBest, &schedulerv1.KeepBest{Metric: b.Metric, Lowest: b.Lowest, Count: int32(min(b.Count, math.MaxInt32))})
	}
	return nil
}
