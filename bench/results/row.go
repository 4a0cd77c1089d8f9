package main

import (
	"fmt"
	"strings"

	"github.com/gangline/gangline/bench/results/model"
)

// section is one workload on one cluster, and what each policy makes of it.
type section struct {
	title string
	text  string // before the table
	place bool   // of `gangline sim place`: other figures
	teams bool   // compare the waits of the teams of the first two rows
	rows  []row
}

// row is one policy: ours, with the command that gives it, or a figure of others, with its source.
type row struct {
	name   string
	args   []string  // of gangline; empty: a figure of others, or of the model
	copy   int       // of the trace, see thinned; 0: the trace itself
	source string    // of a figure of others, or of the model
	model  *modelled // the run that gives the figure; nil: another one does
	ours   bool      // Gangline's default: where another row is better, the page says so
	got    figures
}

// modelled is what a row of the model of its own runs, see the package model: 64 GPUs on nodes of 8, a restart costs 30 s.
type modelled struct {
	jobs  string // file
	index model.Index
}

// byModel is a row of that model.
func byModel(name, jobs string, index model.Index) row {
	return row{name: name, source: "bench/results/model, decisions each 600 s", model: &modelled{jobs, index}}
}

// figures are the keys of the program's JSON that the page shows. Below 0: not known.
type figures struct {
	AvgJCT      float64 `json:"avg_jct_s"`
	P50JCT      float64 `json:"p50_jct_s"`
	P99JCT      float64 `json:"p99_jct_s"`
	AvgWait     float64 `json:"avg_wait_s"`
	Goodput     float64 `json:"gpu_goodput"`
	Fairness    float64 `json:"finish_time_fairness_p99"`
	Preemptions int     `json:"preemptions"`
	Unfinished  int     `json:"unfinished"`
	Refused     int     `json:"refused"`

	PerQueue map[string]struct {
		Jobs    int     `json:"jobs"`
		AvgWait float64 `json:"avg_wait_s"`
	} `json:"per_queue"`

	Allocated  float64        `json:"allocated_pct"`
	Placed     map[string]int `json:"placed_by_gpus"`
	Fragmented float64        `json:"fragmentation_pct"`
}

// command is what a user types for the row, but for where the files are.
func (r *row) command() string { return "gangline " + strings.Join(r.args, " ") }

// run is a row of `gangline sim run`.
func run(name, args string) row { return row{name: name, args: strings.Fields("sim run " + args)} }

// placed is a row of `gangline sim place`.
func placed(name, args string) row { return row{name: name, args: strings.Fields("sim place " + args)} }

// copied is a row on the nth copy of its trace.
func copied(n int, name, args string) row {
	r := run(fmt.Sprintf("%s, copy %d", name, n), args)
	r.copy = n
	return r
}

// best marks the row that is held against others' figures.
func best(r row) row {
	r.ours = true
	return r
}

// none is a figure that was not published.
const none = -1

// known is a row of others: average, p50 and p99 of the completion times, and average wait.
func known(name, source string, avg, p50, p99, wait float64) row {
	return row{name: name, source: source, got: figures{
		AvgJCT: avg, P50JCT: p50, P99JCT: p99, AvgWait: wait, Goodput: none, Fairness: none, Preemptions: none,
	}}
}

// stopped adds how many preemptions a row of others had.
func stopped(r row, n int) row {
	r.got.Preemptions = n
	return r
}

// allocated is a row of others about placement.
func allocated(name, source string, pct float64) row {
	return row{name: name, source: source, got: figures{Allocated: pct, Fragmented: none}}
}

// policies are the files that rows name.
var policies = map[string]string{ //nolint:gochecknoglobals // table
	"calm.yaml": "preemption: {enabled: false}",
}
