package cluster

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestOutlineGoesOnAlike: an outline is a whole state, survives its encoding, and goes on as the state does: the same
// commands are taken and leave unfinished jobs and nodes as they would be.
func TestOutlineGoesOnAlike(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 60).Draw(t, "before") {
			w.s.Apply(w.s.Index()+1, w.s.Now().Add(time.Second), w.draw())
		}
		view := w.s.Snapshot()
		before := view.Hash()
		var b []byte
		_ = view.Outline().Encode(func(p []byte) error { b = append(b, p...); return nil })
		if view.Hash() != before {
			t.Fatal("the snapshot has changed")
		}
		o, err := Decode(b, Version)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Check(); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 30).Draw(t, "after") {
			c := w.draw()
			if refersBack(view, c) {
				continue
			}
			at := w.s.Now().Add(time.Second)
			want, got := w.s.Apply(w.s.Index()+1, at, c), o.Apply(o.Index()+1, at, c)
			if want.Code != got.Code || want.Job != got.Job {
				t.Fatalf("%T: %v (job %d), the state says %v (job %d)", c, got.Code, got.Job, want.Code, want.Job)
			}
		}
		if a, b := unfinished(w.s), unfinished(o); a != b {
			t.Fatalf("the outline has become\n%s\nthe state\n%s", b, a)
		}
	})
}

// refersBack reports whether a command asks for what an outline no longer has: ended jobs and request ids.
func refersBack(was *State, c Command) bool {
	ended := func(id JobID) bool { j := was.Job(id); return j != nil && j.State.Final() }
	endedPart := func(array JobID) (is bool) {
		was.EachFinished(func(j *Job) bool {
			is = is || j.Array == array
			return !is
		})
		return is
	}
	switch c := c.(type) {
	case *SubmitJob:
		for _, d := range c.Spec.Dependencies() {
			if ended(d.Job) || endedPart(d.Job) { // an array may have outlived its first job
				return true
			}
		}
		return was.Request(c.RequestID) != nil
	case *CancelJob:
		return ended(c.Job)
	case *ForgetJobs:
		return true
	case *RecordCheckpoint:
		return ended(c.Job)
	case *EvictJob:
		return ended(c.Job)
	case *StartJob:
		return ended(c.Job)
	case *KeepNodes:
		return ended(c.Job)
	case *ExplainJob:
		return ended(c.Job)
	default:
		return false
	}
}

func unfinished(s *State) string {
	var b bytes.Buffer
	s.EachJob(func(j *Job) bool {
		if !j.State.Final() {
			fmt.Fprintf(&b, "job %d %s epoch %d on %v, attained %d, expected %s, unmet %b\n", j.ID, j.State, j.Epoch, j.NodeRanks, j.Attained, j.Expected, j.Unmet)
		}
		return true
	})
	s.EachNode(func(n *Node) bool {
		fmt.Fprintf(&b, "node %s %s %v %d %d\n", n.ID, n.State, n.GPUs, n.CPUUsed, n.MemUsed)
		return true
	})
	return b.String()
}

// TestOutlineHasNoSecrets: what a job's user gave it to run with is not in the bytes.
func TestOutlineHasNoSecrets(t *testing.T) {
	t.Parallel()
	s := &State{}
	apply := func(c Command) Result {
		r := s.Apply(s.Index()+1, Time(time.Hour), c)
		if r.Code != OK {
			t.Fatalf("%T: %s", c, r.Message)
		}
		return r
	}
	apply(&Init{ClusterID: "c", Version: Version})
	apply(&RegisterNode{Node: Node{
		ID: "n", Name: "n", Incarnation: 1, Host: "secret-host", Address: "secret-address:1", BootID: "secret-boot",
		CPUMilli: 8000, MemBytes: 1 << 30, GPUs: []GPU{{UUID: "g", Type: "h100", Healthy: true}},
	}})
	for i := range 3 {
		apply(&SubmitJob{RequestID: fmt.Sprint("secret-request", i), User: "ann", Spec: &JobSpec{
			Name: "digits", Queue: "default", GPUs: 1, Launch: LaunchPerGPU, Command: []string{"python", "secret-command"},
			Env: []EnvVar{{"WANDB_API_KEY", "secret-key"}}, Dir: new("/secret-dir"),
		}})
	}
	apply(&StartJob{Job: 1, Epoch: 1, Workers: []Placement{{Node: "n", GPUs: []string{"g"}}}})
	apply(&RecordCheckpoint{Job: 1, Epoch: 1, Step: 1, Path: "/secret-path"})
	apply(&CancelJob{Job: 2, Reason: "secret-reason"})
	var b []byte
	_ = s.Snapshot().Outline().Encode(func(p []byte) error { b = append(b, p...); return nil })
	if bytes.Contains(b, []byte("secret")) || bytes.Contains(b, []byte("WANDB")) {
		t.Errorf("an outline has secrets: %q", b)
	}
	if !bytes.Contains(b, []byte("digits")) || !bytes.Contains(b, []byte("ann")) {
		t.Errorf("an outline lacks what lengths are foretold by: %q", b)
	}
}
