package cluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// sameAfter codes a value that has every field set, and compares what is read
// back: a field that a code method forgets is lost on every restart.
func sameAfter[T any](t *rapid.T, code func(*coder, *T), fix func(*T)) {
	want := rapid.Make[T]().Draw(t, "value")
	if fix != nil {
		fix(&want)
	}
	w := coder{version: Version}
	code(&w, &want)
	r := coder{buf: w.buf, reading: true, version: Version}
	var got T
	code(&r, &got)
	if r.err != nil || len(r.buf) != 0 {
		t.Fatalf("%T: %v, %d bytes are left", want, r.err, len(r.buf))
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateNaNs(), cmpopts.IgnoreUnexported(Node{}, Account{}, Request{})); diff != "" {
		t.Fatalf("%T: written (-), read (+):\n%s", want, diff)
	}
}

func TestEveryFieldIsCoded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sameAfter(t, func(c *coder, v *JobSpec) { v.code(c) }, (*JobSpec).plain)
		sameAfter(t, func(c *coder, v *Job) { v.code(c) }, func(j *Job) {
			if j.Spec == nil {
				j.Spec = &JobSpec{}
			}
			j.Spec.plain()
		})
		sameAfter(t, func(c *coder, v *Node) { v.code(c) }, func(n *Node) { n.Placed = nil }) // derived
		sameAfter(t, func(c *coder, v *Policy) { v.code(c) }, nil)
		sameAfter(t, func(c *coder, v *Account) { v.code(c) }, nil)
		sameAfter(t, func(c *coder, v *Request) { v.code(c) }, nil)
	})
}

// sameCommand does the same for a command, through the log's own functions.
func sameCommand[T any, P interface {
	*T
	Command
}](t *rapid.T, fix func(*T)) {
	want := rapid.Make[T]().Draw(t, "command")
	if fix != nil {
		fix(&want)
	}
	got, err := DecodeCommand(AppendCommand(nil, P(&want)), Version)
	if err != nil {
		t.Fatalf("%T: %v", want, err)
	}
	if diff := cmp.Diff(Command(P(&want)), got, cmpopts.EquateEmpty(), cmpopts.EquateNaNs(), cmpopts.IgnoreUnexported(Node{}, Account{})); diff != "" {
		t.Fatalf("written (-), read (+):\n%s", diff)
	}
}

// plain has no directory instead of an empty one.
func (s *JobSpec) plain() {
	if s.WorkDir() == "" {
		s.Dir = nil
	}
}

func TestEveryCommandIsCoded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sameCommand[Init](t, nil)
		sameCommand(t, func(c *SubmitJob) {
			if c.Spec == nil {
				c.Spec = &JobSpec{}
			}
			c.Spec.plain()
		})
		sameCommand[CancelJob](t, nil)
		sameCommand(t, func(c *StartJob) {
			for i := range c.Workers {
				c.Workers[i].Node += "n" // a node has a name
			}
		})
		sameCommand[ExplainJob](t, nil)
		sameCommand(t, func(c *RegisterNode) { c.Node.Placed = nil })
		sameCommand[LoseNode](t, nil)
		sameCommand[ReportWorkers](t, nil)
		sameCommand[EvictJob](t, nil)
		sameCommand[RecordCheckpoint](t, nil)
		sameCommand[ForgetJobs](t, nil)
		sameCommand[ForgetNode](t, nil)
		sameCommand[SetPolicy](t, nil)
		sameCommand[DrainNode](t, nil)
		sameCommand[KeepNodes](t, nil)
		sameCommand[ExplainJobs](t, nil)
	})
}

// Every command that this release knows survives being cut off anywhere: an
// error, never a half-read command.
func TestCutOffCommands(t *testing.T) {
	t.Parallel()
	commands, _ := version1(t)
	p := queues(QueuePolicy{Path: "a", Quota: h100(3)})
	p.Windows = []Window{{Name: "w", Start: 1, End: 2, Nodes: []string{"n"}, Selector: []Label{{"a", "b"}}, Maintenance: true}}
	for _, c := range []Command{
		&SetPolicy{Policy: p, By: "root", Any: true}, &DrainNode{Node: "n", Reason: "fan", Deadline: 7},
		&KeepNodes{Job: 3, Nodes: []NodeID{"n"}, At: 9}, &ExplainJobs{Jobs: []JobID{1, 2}, Reason: "because"},
	} {
		commands = append(commands, AppendCommand(nil, c))
	}
	for i, b := range commands {
		version := uint32(1)
		if i >= len(commands)-4 {
			version = Version
		}
		for n := range len(b) {
			if c, err := DecodeCommand(b[:n], version); err == nil {
				t.Errorf("%d of %d bytes of %T are taken for all of it", n, len(b), c)
			}
		}
	}
}
