package control

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestStateKeepsNoCommand: a step writes over the commands of the one before it, which changes nothing in the state that
// they were applied to.
func TestStateKeepsNoCommand(t *testing.T) {
	t.Parallel()
	c := newNodes(t, 2)
	c.chance = rand.New(rand.NewPCG(1, 2))
	c.apply(&cluster.SetPolicy{Policy: cluster.DefaultPolicy(), Any: true})
	cfg := DefaultConfig()
	cfg.KeepFinal = 10
	st := NewStepper(cfg)
	seen := map[string]int{}
	for range 1000 {
		c.now = c.now.Add(time.Second)
		if c.chance.IntN(3) == 0 {
			c.jobHappens()
		}
		cmds, _ := st.Step(c.s, nil, c.now)
		for _, cmd := range cmds {
			c.apply(cmd)
		}
		was := c.s.Hash()
		for _, cmd := range cmds {
			switch cmd := cmd.(type) {
			case *cluster.StartJob:
				clear(cmd.Workers)
				*cmd = cluster.StartJob{}
				seen["start"]++
			case *cluster.ExplainJobs:
				clear(cmd.Jobs)
				*cmd = cluster.ExplainJobs{}
				seen["explain"]++
			case *cluster.ForgetJobs:
				clear(cmd.Jobs)
				seen["forget"]++
			}
		}
		if c.s.Hash() != was {
			t.Fatalf("at %d the state has kept a part of the step's commands", c.now)
		}
	}
	if len(seen) != 3 {
		t.Errorf("only these were proposed: %v", seen)
	}
}

// TestDraftIsBounded: a step of very many commands does not leave their memory behind.
func TestDraftIsBounded(t *testing.T) {
	t.Parallel()
	d := draft{cmds: make([]cluster.Command, maxDraft+1)}
	if d.begin(); cap(d.cmds) != 0 {
		t.Errorf("room for %d commands is kept", cap(d.cmds))
	}
	d = draft{cmds: make([]cluster.Command, maxDraft)}
	if d.begin(); len(d.cmds) != 0 || cap(d.cmds) != maxDraft {
		t.Errorf("%d commands, room for %d", len(d.cmds), cap(d.cmds))
	}
}

// TestForgetsSomeAtATime: ended jobs are remembered until a part of the bound is over it, then the oldest go at once; with a
// small bound each goes at once.
func TestForgetsSomeAtATime(t *testing.T) {
	t.Parallel()
	for keep, want := range map[int][]int{ // jobs that are remembered, after each end from the first over the bound on
		3:  {3, 3, 3},
		32: {33, 34, 32, 33, 34, 32},
	} {
		c := newNodes(t, 1)
		c.apply(&cluster.SetPolicy{Policy: cluster.DefaultPolicy(), Any: true})
		var d draft
		for ended := 1; ended <= keep+len(want); ended++ {
			id := c.apply(&cluster.SubmitJob{RequestID: fmt.Sprint(ended), User: "u", Spec: &cluster.JobSpec{
				Name: "j", Queue: "q", GPUs: 1, Launch: cluster.LaunchPerNode, Command: []string{"true"}, TimeLimit: time.Hour,
			}}).Job
			c.apply(&cluster.CancelJob{Job: id})
			d.begin()
			d.forgetJobs(c.s, keep)
			for _, cmd := range d.cmds {
				c.apply(cmd)
			}
			if over := ended - keep - 1; over >= 0 && c.s.Count(cluster.Cancelled) != want[over] {
				t.Errorf("of %d to be kept, %d are after %d ends, want %d", keep, c.s.Count(cluster.Cancelled), ended, want[over])
			}
		}
		if first := c.s.Job(cluster.JobID(1)); first != nil {
			t.Errorf("the oldest of them is still there: %+v", first)
		}
	}
}
