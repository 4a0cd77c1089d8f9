package replay

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
	"github.com/gangline/gangline/sim/trace"
)

// Config is how a trace is replayed. Equal configs and traces give equal reports.
type Config struct {
	Policy *cluster.Policy   // nil: the default one. Never edited
	Order  cluster.OrderName // in place of the policy's; empty: the policy's
	// Strict is the published anchors' way: what cannot start blocks all behind it, nothing is stopped for another job,
	// and nodes are chosen by the score consolidated.
	Strict bool
	// Partitions lets the jobs of queue Q run only on nodes of rack "vc-Q", each such part as a cluster of its own.
	Partitions bool
	// Quotas makes the policy's queues: queue Q is guaranteed the GPUs of rack "vc-Q" on any node, and lends them.
	Quotas bool
	// RestartCost is what a job that was stopped runs longer in its next epoch. What it had done is kept: it was asked
	// to write a checkpoint first. Default 0.
	RestartCost time.Duration
	// Grace is how long a job that is stopped keeps its GPUs. Default 0.
	Grace time.Duration
	// Conditions are what starting and saving cost and what breaks; nil: nothing. They take the place of RestartCost and
	// Grace.
	Conditions *Conditions
	// Seed fixes all randomness of the conditions.
	Seed uint64
	// Until ends the replay at a virtual time; 0: when the last job has ended.
	Until time.Duration
	// Exact is how many jobs may end with quantiles still exact; beyond, they are those of a sketch, which are at most
	// 0.1 % off. Default 2^20: each costs 16 bytes.
	Exact int
	// Check verifies the whole state after every moment, and makes an error of a command of the scheduler that the
	// state refuses. Slow.
	Check   bool
	Control control.Config
	Watch   *Watch // who looks on; nil: nobody
}

// DefaultConfig returns the defaults named in Config.
func DefaultConfig() Config { return Config{Exact: exactJobs, Control: control.DefaultConfig()} }

// partitionPrefix makes the rack of a queue's nodes.
const partitionPrefix = "vc-"

const (
	milli    = 1000
	mebibyte = 1 << 20
)

// maxWeight is the largest weight that a policy may give a queue.
const maxWeight = 1000

// Validate returns every problem of the config at once, joined, or nil.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Partitions && c.Quotas {
		bad("partitions and quotas: a queue has nodes of its own or a part of one pool, not both")
	}
	for _, span := range []struct {
		name string
		d    time.Duration
	}{{"restart cost", c.RestartCost}, {"grace", c.Grace}, {"until", c.Until}} {
		if span.d < 0 || span.d > trace.MaxSeconds*time.Second {
			bad("%s: %s is not in 0..%d s", span.name, span.d, int64(trace.MaxSeconds))
		}
	}
	if c.Conditions != nil {
		errs = append(errs, c.Conditions.Validate())
		if c.RestartCost != 0 || c.Grace != 0 {
			bad("restart cost %s and grace %s: the conditions have start.restart, stop.warn and stop.grace for that", c.RestartCost, c.Grace)
		}
	}
	if c.Exact < 1 {
		bad("exact: %d is not at least 1", c.Exact)
	}
	if c.Policy != nil {
		errs = append(errs, c.Policy.Validate())
	}
	p := cluster.DefaultPolicy()
	if p.Order = c.Order; c.Order != "" {
		errs = append(errs, p.Validate())
	}
	return errors.Join(errs...)
}

// policy is what the admins of the replayed cluster have decided.
func (c *Config) policy(all []string, nodes []trace.Node) (*cluster.Policy, error) {
	p := cluster.DefaultPolicy()
	if c.Policy != nil {
		own := *c.Policy
		p = &own
	}
	if c.Order != "" {
		p.Order = c.Order
	}
	if c.Strict {
		p.Backfill.Off, p.Preemption.Off, p.Score = true, true, cluster.ScoreConsolidated
	}
	if c.Quotas {
		p.Queues = quotas(all, nodes)
	}
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("the replay's policy: %w", err)
	}
	return p, nil
}

// quotas makes a queue of every queue that jobs name (all), and of those above it, with the GPUs of its racks as its quota.
func quotas(all []string, nodes []trace.Node) []cluster.QueuePolicy {
	own := map[string]int64{}
	for i := range nodes {
		if q, ok := strings.CutPrefix(nodes[i].Rack, partitionPrefix); ok {
			own[q] += int64(nodes[i].GPUs)
		}
	}
	below := func(top string) (n int64) { // GPUs of a queue and of those below it
		for q, gpus := range own { // any order: a sum
			if q == top || strings.HasPrefix(q, top+"/") {
				n += gpus
			}
		}
		return n
	}
	seen := map[string]bool{}
	var out []cluster.QueuePolicy
	for _, q := range all {
		for ; q != "" && !seen[q]; q = cluster.ParentQueue(q) {
			seen[q] = true
			qp := cluster.QueuePolicy{Path: q, Weight: milli}
			if own[q] > 0 {
				qp.Quota = []cluster.TypeCount{{GPUs: below(q)}}
				qp.Weight = min(below(q), maxWeight) * milli
			}
			out = append(out, qp)
		}
	}
	slices.SortFunc(out, func(a, b cluster.QueuePolicy) int { return strings.Compare(a.Path, b.Path) })
	return out
}
