package jobfile

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// setGPUs reads the size of a gang: a number, {min: 8, max: 32}, or 8..32.
func setGPUs(s *schedulerv1.JobSpec, n *yaml.Node) error {
	s.MinGpus = 0
	if n.Kind == yaml.MappingNode {
		return setMinMax(s, n)
	}
	return scalar(func(s *schedulerv1.JobSpec, v string) error {
		least, most, elastic := strings.Cut(v, "..")
		if !elastic {
			most = v
		}
		var err error
		if s.Gpus, err = gpuCount(most); err != nil || !elastic {
			return err
		}
		if s.MinGpus, err = gpuCount(least); err == nil && s.GetMinGpus() > s.GetGpus() {
			err = fmt.Errorf("%s: the smallest size comes first, as in 8..32", v)
		}
		return err
	})(s, n)
}

func setMinMax(s *schedulerv1.JobSpec, n *yaml.Node) error {
	least, most := &yaml.Node{}, &yaml.Node{}
	err := eachPair(n, map[string]*yaml.Node{"min": least, "max": most})
	if err != nil {
		return err
	}
	if least.Kind == 0 || most.Kind == 0 {
		return yamlfile.At(n, "an elastic gang has a smallest and a largest size: {min: 8, max: 32}")
	}
	if err := integer(func(s *schedulerv1.JobSpec) *int32 { return &s.MinGpus })(s, least); err != nil {
		return err
	}
	if err := integer(func(s *schedulerv1.JobSpec) *int32 { return &s.Gpus })(s, most); err != nil {
		return err
	}
	if s.GetMinGpus() < 1 || s.GetGpus() < s.GetMinGpus() {
		return yamlfile.At(n, "min %d and max %d: both are at least 1, and min is at most max", s.GetMinGpus(), s.GetGpus())
	}
	return nil
}

// eachPair puts the values of a map with known names where they belong.
func eachPair(n *yaml.Node, into map[string]*yaml.Node) error {
	names := make([]string, 0, len(into))
	for name := range into {
		names = append(names, name)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		to := into[k.Value]
		switch {
		case to == nil:
			slices.Sort(names)
			return yamlfile.Unknown(k, "field", names)
		case to.Kind != 0:
			return yamlfile.At(k, "%q is given twice", k.Value)
		}
		*to = *v
	}
	return nil
}

func gpuCount(v string) (int32, error) {
	g, err := strconv.ParseInt(v, 10, 32)
	if err != nil || g < 1 {
		return 0, fmt.Errorf("%q is not a whole number of GPUs, 1 or more", v)
	}
	return int32(g), nil
}

func setShare(s *schedulerv1.JobSpec, v string) error {
	f, err := strconv.ParseFloat(v, 64)
	milli := math.Round(f * 1000)
	if err != nil || !(f > 0 && f <= 1) || math.Abs(f*1000-milli) > 1e-6 {
		return fmt.Errorf("%q is not a share of a GPU above 0 and at most 1, with at most three decimals, such as 0.5", v)
	}
	if s.GpuMilli = int32(milli); milli == 1000 {
		s.GpuMilli = 0 // a whole GPU is no share
	}
	return nil
}

// setTopology reads {level: rack, mode: required}, or rack:required.
func setTopology(s *schedulerv1.JobSpec, n *yaml.Node) error {
	level, mode := &yaml.Node{}, &yaml.Node{}
	switch n.Kind {
	case yaml.MappingNode:
		if err := eachPair(n, map[string]*yaml.Node{"level": level, "mode": mode}); err != nil {
			return err
		}
	case yaml.ScalarNode:
		name, how, given := strings.Cut(n.Value, ":")
		*level = yaml.Node{Kind: yaml.ScalarNode, Value: name, Line: n.Line, Column: n.Column}
		if given {
			*mode = yaml.Node{Kind: yaml.ScalarNode, Value: how, Line: n.Line, Column: n.Column}
		}
	default:
		return yamlfile.At(n, "expected {level: rack, mode: preferred}, not a %s", yamlfile.Kind(n))
	}
	if level.Kind != yaml.ScalarNode || level.Value == "" {
		return yamlfile.At(n, "names no level: expected one such as rack, or {level: rack, mode: required}")
	}
	wish := &schedulerv1.TopologyWish{Level: level.Value}
	switch {
	case mode.Kind == 0 || mode.Value == "preferred":
	case mode.Value == "required":
		wish.Required = true
	default:
		return yamlfile.At(mode, "%q is not a mode: allowed are preferred and required", mode.Value)
	}
	s.Topology = wish
	return nil
}

// setSelector reads labels: a map, or a=b,c=d.
func setSelector(s *schedulerv1.JobSpec, n *yaml.Node) error {
	labels := map[string]string{}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if v.Kind != yaml.ScalarNode {
				return yamlfile.At(v, "%s: expected a value, not a %s", k.Value, yamlfile.Kind(v))
			}
			if _, twice := labels[k.Value]; twice {
				return yamlfile.At(k, "label %s is given twice: a node has one value of it", k.Value)
			}
			labels[k.Value] = v.Value
		}
	case yaml.ScalarNode:
		for pair := range strings.SplitSeq(n.Value, ",") {
			k, v, ok := strings.Cut(pair, "=")
			if k = strings.TrimSpace(k); !ok || k == "" {
				return yamlfile.At(n, "%q is not of the form LABEL=VALUE", pair)
			}
			if _, twice := labels[k]; twice {
				return yamlfile.At(n, "label %s is given twice: a node has one value of it", k)
			}
			labels[k] = strings.TrimSpace(v)
		}
	default:
		return yamlfile.At(n, "expected labels such as {zone: a}, not a %s", yamlfile.Kind(n))
	}
	s.NodeSelector = labels
	return nil
}

// arrayForm is first-last, with a step after ":" and a bound after "%".
var arrayForm = regexp.MustCompile(`^(\d{1,9})(?:-(\d{1,9})(?::([1-9]\d{0,8}))?)?(?:%([1-9]\d{0,8}))?$`)

func setArray(s *schedulerv1.JobSpec, v string) error {
	m := arrayForm.FindStringSubmatch(v)
	if m == nil {
		return fmt.Errorf("%q is not a range of indices such as 0-99, 0-99:2 (every second), 0-99%%8 (8 at a time) or 0-99:2%%8", v)
	}
	number := func(text string, absent int32) int32 {
		if text == "" {
			return absent
		}
		n, _ := strconv.ParseInt(text, 10, 32) // at most nine digits
		return int32(n)
	}
	a := &schedulerv1.ArraySpec{First: number(m[1], 0), Step: number(m[3], 1), Parallel: number(m[4], 0)}
	if a.Last = number(m[2], a.GetFirst()); a.GetLast() < a.GetFirst() {
		return fmt.Errorf("%q: the last index is below the first", v)
	}
	s.Array = a
	return nil
}
