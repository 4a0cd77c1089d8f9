package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// synthetic is a workload that is made up for a replay, and its cluster.
type synthetic struct {
	text   string // as given: KEY=VALUE,...
	nodes  int
	gpus   int // of each node
	like   string
	config trace.Synthetic
}

// syntheticHelp lists the keys.
const syntheticHelp = "replay a made-up workload: KEY=VALUE,... of jobs, nodes, gpus-per-node, load, sizes (GPUS:WEIGHT/...), length (median), length-p90, " +
	"max-length, queues, users, day, weekend; like (a file of jobs to resemble), scale (of its arrivals)"

// set is a key's value.
func (y *synthetic) set(key, value string) error {
	c := &y.config
	times := map[string]*time.Duration{"length": &c.Median, "length-p90": &c.P90, "max-length": &c.MaxLength}
	parts := map[string]*float64{"load": &c.Load, "scale": &c.Scale, "day": &c.Day, "weekend": &c.Weekend}
	counts := map[string]*int{"nodes": &y.nodes, "gpus-per-node": &y.gpus, "queues": &c.Queues, "users": &c.Users}
	err := error(nil)
	switch {
	case times[key] != nil:
		err = secondsFlag{times[key]}.Set(value)
	case parts[key] != nil:
		*parts[key], err = strconv.ParseFloat(value, 64)
	case counts[key] != nil:
		*counts[key], err = strconv.Atoi(value)
	case key == "jobs":
		c.Jobs, err = strconv.ParseInt(value, 10, 64)
	case key == "like":
		y.like = value
	case key == "sizes":
		c.Sizes = nil
		for _, one := range strings.Split(value, "/") {
			var s trace.Size
			if n, err := fmt.Sscanf(one, "%d:%g", &s.GPUs, &s.Weight); n != 2 || err != nil {
				return usage("--synthetic %s=%s: %q is not GPUS:WEIGHT, as in 1:70/8:30", key, value, one)
			}
			c.Sizes = append(c.Sizes, s)
		}
	default:
		return usage("--synthetic: there is no %q; it takes %s", key, syntheticHelp[strings.Index(syntheticHelp, "KEY"):])
	}
	if err != nil {
		return usage("--synthetic %s=%s: %q is not a number, or not a time such as 90 (seconds) or 2h", key, value, value)
	}
	return nil
}

// parse reads what the flag says. nodesFile is what --nodes names, or empty.
func (y *synthetic) parse(nodesFile string, seed uint64) error {
	y.config, y.gpus = trace.DefaultSynthetic(), 8
	y.config.Seed = seed
	var keys []string
	for _, one := range strings.Split(y.text, ",") {
		key, value, ok := strings.Cut(one, "=")
		if !ok {
			return usage("--synthetic: %q is not KEY=VALUE", one)
		}
		if err := y.set(key, value); err != nil {
			return err
		}
		keys = append(keys, key)
	}
	switch {
	case nodesFile == "" && y.nodes == 0:
		return usage("--synthetic: say how many nodes (nodes=100), or name their file with --nodes")
	case nodesFile != "" && y.nodes != 0:
		return usage("--synthetic nodes=%d and --nodes %s: one or the other", y.nodes, nodesFile)
	case y.nodes < 0 || y.nodes > cluster.MaxNodes || y.gpus < 1 || y.gpus > cluster.MaxNodeGPUs:
		return usage("--synthetic: nodes=%d, gpus-per-node=%d: not in 1..%d and 1..%d", y.nodes, y.gpus, cluster.MaxNodes, cluster.MaxNodeGPUs)
	case y.like == "" && slices.Contains(keys, "scale"):
		return usage("--synthetic scale: of which trace's arrivals? Name it with like=FILE, or give a load")
	}
	for _, key := range keys {
		if y.like != "" && slices.Contains([]string{"sizes", "length", "length-p90", "max-length", "queues", "users", "day", "weekend"}, key) {
			return usage("--synthetic %s: with like=%s that comes from the file", key, y.like)
		}
	}
	if err := y.config.Validate(); err != nil {
		return &exitError{exitUsage, err}
	}
	return nil
}

// load makes the trace up as it is replayed.
func (fl *simRunFlags) loadSynthetic() (*replay.Trace, error) {
	y := &fl.synthetic
	nodes := trace.MakeNodes(y.nodes, y.gpus)
	if y.nodes == 0 {
		var err error
		if nodes, err = trace.ReadNodes(fl.nodes); err != nil {
			return nil, err
		}
	}
	c := y.config
	c.GPUs = trace.Capacity(nodes)
	if y.like != "" {
		c.Like = func() (trace.Source, error) { return trace.OpenJobs(y.like, fl.trace) }
	}
	return &replay.Trace{Nodes: nodes, Open: func() (trace.Source, error) {
		src, err := c.Open()
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		return input{src}, nil
	}}, nil
}

// timeLimits, instead of a file of estimates, are the limits that users gave their jobs.
const timeLimits = "timelimit"

// load reads the nodes of a replay, and how to read its jobs.
func (fl *simRunFlags) load() (*replay.Trace, error) {
	if fl.synthetic.text != "" {
		return fl.loadSynthetic()
	}
	nodes, err := trace.ReadNodes(fl.nodes)
	if err != nil {
		return nil, err
	}
	opt := fl.trace
	if opt.Limits = fl.estimates == timeLimits; fl.estimates != "" && !opt.Limits {
		if opt.Estimates, err = trace.ReadEstimates(fl.estimates); err != nil {
			return nil, err
		}
	}
	opened := false
	return &replay.Trace{Nodes: nodes, Open: func() (trace.Source, error) {
		if opened && onceOnly(fl.jobs) {
			return nil, usage("--jobs %s: --quotas and --partitions read the jobs more than once, and a pipe can be read once only: put them in a file", fl.jobs)
		}
		opened = true
		src, err := trace.OpenJobs(fl.jobs, opt)
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		return input{src}, nil
	}}, nil
}

// onceOnly reports whether a file is a pipe or the like, of which nothing is left once it was read.
func onceOnly(file string) bool {
	st, err := os.Stat(file)
	return err == nil && !st.Mode().IsRegular()
}

// input makes what is wrong with a file the user's to repair, in the midst of a replay as before it.
type input struct{ trace.Source }

// Next implements trace.Source.
func (in input) Next(j *trace.Job) error {
	err := in.Source.Next(j)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &exitError{exitUsage, err}
	}
	return err
}

// Left is as the source has it, for those who show how far a replay is.
func (in input) Left() int {
	if known, ok := in.Source.(interface{ Left() int }); ok {
		return known.Left()
	}
	return -1
}
