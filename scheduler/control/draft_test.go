package control

import (
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
