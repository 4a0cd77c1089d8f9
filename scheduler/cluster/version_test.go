package cluster

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// version1 reads what the last release of version 1 wrote: its commands, in
// order, and the state that they made of two nodes.
func version1(t *testing.T) (commands [][]byte, state []byte) {
	t.Helper()
	file, err := os.Open("testdata/version1.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		kind, text, _ := strings.Cut(lines.Text(), " ")
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if kind == "state" {
			state = b
			continue
		}
		commands = append(commands, b)
	}
	return commands, state
}

// TestStateOfVersion1: a snapshot of the release before decodes to what it
// said then, and what is new since is absent.
func TestStateOfVersion1(t *testing.T) {
	t.Parallel()
	_, b := version1(t)
	s, err := Decode(b, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	j := s.Job(1)
	wantSpec := &JobSpec{
		Name: "digits", Queue: "research/vision", Priority: 70, GPUs: 2, GPUTypes: []string{"h100", "a100"}, CPUPerGPU: 1000, MemPerGPU: 1 << 30,
		TimeLimit: time.Hour, Launch: LaunchPerGPU, Command: []string{"x"}, Env: []EnvVar{{"A", "b"}}, Dir: new("/home"), Retries: 2, Preemptible: true,
		Warn: 5 * time.Second, Grace: time.Second, KeepCkpts: 3,
	}
	if diff := cmp.Diff(wantSpec, j.Spec); diff != "" {
		t.Errorf("spec: %s", diff)
	}
	if j.State != Stopping || j.Stop != StopPreempt || j.Epoch != 2 || j.Failures != 1 || j.Checkpoint.Step != 4 || j.Progress.Metrics[0].Value != 1.5 ||
		len(j.History) != 1 || j.History[0].NodeOf(1) != "id-1" || j.Workers[1].Node != "id-1" {
		t.Errorf("job 1 is %+v", j)
	}
	if j.Array != 0 || j.Rate != 0 || j.Kept != nil || j.Avoid != nil || s.Policy().Order != OrderGangline || s.PolicyIndex() != 0 {
		t.Errorf("what version 1 did not have is %+v", j)
	}
	if w := s.Job(2); w.State != Pending || w.Reason != "because" || s.Job(3).State != Cancelled || s.Request("r3").Job != 3 {
		t.Errorf("jobs 2 and 3 are %+v, %+v", w, s.Job(3))
	}
	n := s.Node("id-1")
	if n.Label("zone") != "z" || len(n.Stale) != 1 || n.GPUs[0].Job != 1 || n.Drain != nil || n.Taints != nil || n.GPUs[0].Shares != nil {
		t.Errorf("node is %+v", n)
	}
	var again []byte
	_ = s.Encode(func(p []byte) error { again = append(again, p...); return nil })
	if up, err := Decode(again, Version); err != nil || up.Hash() != s.Hash() {
		t.Errorf("it does not survive in today's encoding: %v", err)
	}
}

// TestLogOfVersion1: a log of the release before, applied by this one, ends in
// the state that that release had reached, but for what it could not know.
func TestLogOfVersion1(t *testing.T) {
	t.Parallel()
	commands, b := version1(t)
	want, err := Decode(b, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := &State{}
	index := uint64(0)
	apply := func(c Command) {
		if index++; index == 12 { // it waited for a back-off here
			index += 10
		}
		if r := s.Apply(index, Time(index)*Time(time.Second), c); r.Code != OK {
			t.Fatalf("%T: %s", c, r.Message)
		}
	}
	apply(&Init{ClusterID: "c", Version: 1})
	apply(&RegisterNode{Node: gpuNode(0, 4)})
	apply(&RegisterNode{Node: gpuNode(1, 4)})
	for _, b := range commands {
		cmd, err := DecodeCommand(b, 1)
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		apply(cmd)
	}
	words := func(code func(*coder)) []byte { // what version 1 would say of it
		c := coder{version: 1}
		code(&c)
		return c.buf
	}
	for id := JobID(1); id <= 3; id++ {
		if !bytes.Equal(words(want.Job(id).code), words(s.Job(id).code)) {
			t.Errorf("job %d was %+v, is %+v", id, want.Job(id), s.Job(id))
		}
	}
	want.EachNode(func(n *Node) bool {
		if !bytes.Equal(words(n.code), words(s.Node(n.ID).code)) {
			t.Errorf("node %s was %+v, is %+v", n.ID, n, s.Node(n.ID))
		}
		return true
	})
	if _, err := DecodeCommand(commands[1], Version); err == nil {
		t.Error("a command of version 1 is taken for one of today")
	}
}

// TestJobsOfVersion1GoOn: gangs that started before accounts existed end
// without upsetting them.
func TestJobsOfVersion1GoOn(t *testing.T) {
	t.Parallel()
	_, b := version1(t)
	s, err := Decode(b, 1)
	if err != nil {
		t.Fatal(err)
	}
	for rank, node := range []NodeID{"id-0", "id-1"} {
		s.Apply(99, s.Now()+1, &ReportWorkers{Node: node, Workers: []WorkerReport{{Job: 1, Epoch: 2, Rank: Rank(rank), State: WorkerExited}}})
	}
	if j := s.Job(1); j.State != Pending || j.Preemptions != 1 || s.Check() != nil {
		t.Fatalf("%+v, %v", j, s.Check())
	}
}
