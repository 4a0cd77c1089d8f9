package control

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
)

// plainOverdue is evictOverdue as a look at every job.
func plainOverdue(s *cluster.State, now cluster.Time, cfg Config) (cmds []cluster.Command, next cluster.Time) {
	s.EachHolding(func(j *cluster.Job) bool {
		at := deadlineOf(j, &cfg)
		next = sooner(next, at)
		if at != 0 && at <= now {
			cmds = append(cmds, evictLate(j, now, &cfg))
		}
		return true
	})
	return cmds, next
}

// plainNodes is tendNodes as a look at every node.
func plainNodes(s *cluster.State, now cluster.Time, cfg Config, overdue []cluster.Command) ([]cluster.Command, cluster.Time) {
	var v vigil
	s.EachNode(func(n *cluster.Node) bool {
		v.nodes = append(v.nodes, n.ID)
		return true
	})
	return v.tendNodes(s, now, &cfg, overdue)
}

// TestVigilSeesAll: who follows the changes finds what a look at everything does.
func TestVigilSeesAll(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		c := newNodes(t, 16)
		c.chance = rand.New(rand.NewPCG(seed, 1))
		c.st.cfg.LaunchTimeout = 40 * time.Second
		var v vigil
		for round := range 150 {
			c.now = c.now.Add(time.Duration(c.chance.IntN(20)) * time.Second)
			c.somethingHappens()
			now := c.s.Now()
			v.follow(c.s, &c.st.cfg)
			got, next := v.evictOverdue(c.s, now, &c.st.cfg)
			want, soonest := plainOverdue(c.s, now, c.st.cfg)
			gotNodes, nextNodes := v.tendNodes(c.s, now, &c.st.cfg, got)
			wantNodes, soonestNodes := plainNodes(c.s, now, c.st.cfg, want)
			if diff := cmp.Diff(append(want, wantNodes...), append(got, gotNodes...)); diff != "" || next != soonest || nextNodes != soonestNodes {
				t.Fatalf("seed %d, round %d: next %d and %d, want %d and %d; want (-), got (+):\n%s", seed, round, next, nextNodes, soonest, soonestNodes, diff)
			}
			if c.chance.IntN(3) == 0 {
				for _, cmd := range append(got, gotNodes...) {
					c.apply(cmd)
				}
			}
		}
	}
}

// somethingHappens changes jobs or nodes in one of the ways that a vigil must see.
func (c *city) somethingHappens() {
	node := cluster.NodeID(fmt.Sprintf("node-%05d", c.chance.IntN(16)))
	n, ids := c.s.Node(node), c.holding()
	switch c.chance.IntN(7) {
	case 0, 1:
		spec := &cluster.JobSpec{
			Name: "short", Queue: "all/d00/q00", Priority: 50, GPUs: 1 + int32(c.chance.IntN(8)), Launch: cluster.LaunchPerGPU,
			Command: []string{"true"}, Preemptible: true, TimeLimit: time.Duration(c.chance.IntN(4)*30) * time.Second,
		}
		c.serial++
		c.apply(&cluster.SubmitJob{RequestID: fmt.Sprint("request-", c.serial), User: "user", Spec: spec})
		c.step()
	case 2:
		if len(ids) > 0 {
			c.end(ids[c.chance.IntN(len(ids))])
		}
	case 3:
		if len(ids) > 0 { // its workers have started
			j := c.s.Job(ids[c.chance.IntN(len(ids))])
			for i := range j.Workers {
				w := &j.Workers[i]
				c.apply(&cluster.ReportWorkers{Node: w.Node, Workers: []cluster.WorkerReport{{Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, State: cluster.WorkerRunning}}})
			}
		}
	case 4:
		if n != nil {
			c.apply(&cluster.DrainNode{Node: node, Reason: "repair", Deadline: c.now.Add(time.Minute), Off: c.chance.IntN(2) == 0})
		}
	case 5:
		if n != nil {
			c.apply(&cluster.LoseNode{Node: node, Incarnation: n.Incarnation, Reason: "gone"})
		}
	default:
		c.now = c.now.Add(time.Minute)
		c.step()
	}
}
