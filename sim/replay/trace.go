package replay

import (
	"cmp"
	"slices"
	"time"
)

// Job is one row of a trace. Its times are virtual, from the trace's start.
type Job struct {
	ID     string
	Submit time.Duration // at least 0
	Length time.Duration // service time with the GPUs it asks for, at least 0, without waiting
	GPUs   int32         // of the whole gang; 0: it needs none, and a replay leaves it out
	Milli  int32         // of each GPU, 1..1000; below 1000 GPUs is 1
	Types  []string      // acceptable GPU types, preferred first; empty: any
	CPU    int64         // thousandths of a CPU, for the whole job; 0: not known
	Mem    int64         // bytes, for the whole job; 0: not known
	User   string
	Queue  string        // never empty
	Guess  time.Duration // what an estimator made of Length, see Trace.Estimate; may be nonsense, as guesses are
}

// Node is one machine of a trace's cluster.
type Node struct {
	Name string
	GPUs int32
	Type string // never empty
	CPU  int64  // thousandths; 0: not known, and then no job is kept out by it
	Mem  int64  // bytes; 0: not known, likewise
	Rack string
}

// Trace is a workload and the cluster that it is to run on.
type Trace struct {
	Jobs    []Job // by Submit; those of one moment in the order of the file
	Nodes   []Node
	Skipped int // rows that were passed over: malformed ones, if that was asked for
}

// capacity is the number of GPUs.
func capacity(nodes []Node) int64 {
	n := int64(0)
	for i := range nodes {
		n += int64(nodes[i].GPUs)
	}
	return n
}

// Drop removes the jobs of some queues.
func (t *Trace) Drop(queues ...string) {
	t.Jobs = slices.DeleteFunc(t.Jobs, func(j Job) bool { return slices.Contains(queues, j.Queue) })
}

// Estimate sets every job's Guess: to what the estimates say, by job id, and to its exact length if they do not know
// it or are nil.
func (t *Trace) Estimate(estimates map[string]time.Duration) {
	for i := range t.Jobs {
		j := &t.Jobs[i]
		j.Guess = j.Length
		if e, ok := estimates[j.ID]; ok {
			j.Guess = e
		}
	}
}

// inOrder sorts jobs by submission. Those of one moment keep their order.
func inOrder(jobs []Job) {
	slices.SortStableFunc(jobs, func(a, b Job) int { return cmp.Compare(a.Submit, b.Submit) })
}
