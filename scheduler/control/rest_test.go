package control

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestWhoRestsMissesNothing: where nothing can happen until the state changes or
// something is due, who steps only then proposes, to the second, what one does
// who steps each second.
func TestWhoRestsMissesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		c := newNodes(t, 2)
		c.chance = rand.New(rand.NewPCG(seed, 2))
		p := cluster.DefaultPolicy()
		p.Order, p.Preemption.Off, p.Backfill.Off = cluster.OrderFIFO, true, true
		c.apply(&cluster.SetPolicy{Policy: p, Any: true})
		cfg := DefaultConfig()
		cfg.LaunchTimeout = 40 * time.Second
		eager, lazy := NewStepper(cfg), NewStepper(cfg)
		seen, next, rested, cmds := uint64(0), cluster.Time(0), 0, 0
		for second := range 3000 {
			c.now = c.now.Add(time.Second)
			if c.chance.IntN(12) == 0 {
				c.jobHappens()
			}
			for more := true; more; {
				want, _ := eager.Step(c.s, nil, c.now)
				var got []cluster.Command
				if c.s.Index() != seen || (next != 0 && next <= c.now) {
					seen = c.s.Index()
					got, next = lazy.Step(c.s, nil, c.now)
				} else {
					rested++
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("seed %d, second %d: want (-), got (+):\n%s", seed, second, diff)
				}
				for _, cmd := range want {
					c.apply(cmd)
				}
				cmds, more = cmds+len(want), len(want) > 0
			}
		}
		if rested < 1000 || cmds < 100 {
			t.Fatalf("seed %d: rested in %d seconds, %d commands: nothing is tested", seed, rested, cmds)
		}
	}
}

// jobHappens lets a job come, start, end or fail.
func (c *city) jobHappens() {
	ids := c.holding()
	if what := c.chance.IntN(4); len(ids) == 0 || what < 2 {
		c.serial++
		c.apply(&cluster.SubmitJob{RequestID: fmt.Sprint("request-", c.serial), User: "user", Spec: &cluster.JobSpec{
			Name: "short", Queue: "q", Priority: 50, GPUs: 1 + int32(c.chance.IntN(16)), Launch: cluster.LaunchPerNode,
			Command: []string{"true"}, Preemptible: true, Retries: 3, TimeLimit: time.Duration(c.chance.IntN(4)*100) * time.Second,
		}})
		return
	}
	j := c.s.Job(ids[c.chance.IntN(len(ids))])
	st, code := cluster.WorkerRunning, int32(0)
	if j.State != cluster.Starting {
		st, code = cluster.WorkerExited, int32(c.chance.IntN(2))
	}
	workers := append([]cluster.Worker(nil), j.Workers...) // the job may be edited
	for i := range workers {
		w := &workers[i]
		c.apply(&cluster.ReportWorkers{Node: w.Node, Workers: []cluster.WorkerReport{{Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, State: st, ExitCode: code}}})
	}
}
