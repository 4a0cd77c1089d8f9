package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// TestAdminScripts runs the stories of testdata/admin, each on a cluster of its
// own: what an admin sets holds for everyone.
func TestAdminScripts(t *testing.T) {
	t.Parallel()
	stories, err := os.ReadDir("testdata/admin")
	if err != nil || len(stories) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, story := range stories {
		t.Run(strings.TrimSuffix(story.Name(), ".txtar"), func(t *testing.T) {
			t.Parallel()
			c := newTestCluster(t, shape{servers: 1, agents: 2, gpus: 4})
			testscript.Run(t, testscript.Params{
				Files:               []string{"testdata/admin/" + story.Name()},
				RequireExplicitExec: true,
				Setup: func(env *testscript.Env) error {
					env.Setenv("GANGLINE_SERVER", c.address())
					env.Setenv("USER", "root")
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
			})
		})
	}
}

func member(id uint64, index int32, state schedulerv1.JobState, reason string) *schedulerv1.Job {
	return &schedulerv1.Job{Id: id, Array: 3, ArrayIndex: index, State: state, Reason: reason, Spec: &schedulerv1.JobSpec{Name: "sweep", Gpus: 1}}
}

// TestJobLines: members of an array that wait alike share a line, others do not.
func TestJobLines(t *testing.T) {
	t.Parallel()
	const pending, running = schedulerv1.JobState_JOB_STATE_PENDING, schedulerv1.JobState_JOB_STATE_RUNNING
	alone := &schedulerv1.Job{Id: 8, State: pending, Reason: "x", Spec: &schedulerv1.JobSpec{Name: "one", MinGpus: 2, Gpus: 8}}
	elastic := &schedulerv1.Job{Id: 2, State: running, HeldGpus: 4, Spec: &schedulerv1.JobSpec{Name: "grows", MinGpus: 2, Gpus: 8}}
	var l jobLines
	l.add([]*schedulerv1.Job{alone, member(7, 8, pending, "x"), member(6, 6, pending, "x")})
	l.add([]*schedulerv1.Job{member(5, 4, pending, "x"), member(4, 2, pending, "y"), member(3, 0, running, ""), elastic})
	var got []string
	for _, r := range l.rows()[1:] {
		got = append(got, strings.Join([]string{r[0], r[1], r[4], r[5], r[7]}, " | "))
	}
	want := []string{
		"8 | one | 2..8 | Pending | x",
		"5-7 | sweep[4-8] | 1 | Pending | x",
		"4 | sweep[2] | 1 | Pending | y",
		"3 | sweep[0] | 1 | Running | ",
		"2 | grows | 4 of 2..8 | Running | ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestPrintQueues(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{out: &out}
	h100 := func(n float64) []*schedulerv1.GPUCount { return []*schedulerv1.GPUCount{{Type: "h100", Gpus: n}} }
	err := a.printQueues([]*schedulerv1.Queue{
		{Path: "a", InPolicy: true, Weight: 1, Quota: h100(64), Held: h100(80), BorrowedGpus: 16, HoldingJobs: 3, PendingJobs: 2, PendingGpus: 9.5},
		{Path: "a/b", InPolicy: true, Weight: 0.5, Quota: h100(10), Held: h100(4.25), Limit: []*schedulerv1.GPUCount{{Gpus: 20}}, UserLimit: 8, Closed: true},
		{Path: "z", Weight: 1, Users: []*schedulerv1.QueueUser{{User: "ann", UsedGpuHours: 12.34, HeldGpus: 1}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"QUEUE   HELD       BORROWED  QUOTA                    LIMIT  WEIGHT  RUN  WAIT          NOTE",
		"a       80 h100    16        64 h100  [##########]+  -      1       3    2 (9.5 GPUs)",
		"  b     4.25 h100  0         10 h100  [#####.....]   20     0.5     0    0             closed; 8 GPUs for one user",
		"z *     0          0         -                       -      1       0    0",
		"  @ann  1                                                                             12.3 GPU-hours",
	}
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(got) != len(want) {
		t.Fatalf("got\n%s", out.String())
	}
	for i := range want {
		if squeeze(got[i]) != squeeze(want[i]) {
			t.Errorf("line %d:\n got %s\nwant %s", i, got[i], want[i])
		}
	}
}

func TestNodeText(t *testing.T) {
	t.Parallel()
	n := &schedulerv1.Node{
		Name: "n1", State: schedulerv1.NodeState_NODE_STATE_READY, Taints: map[string]string{"team": "vision", "slow": ""},
		Gpus: []*schedulerv1.GPU{{JobId: 9}, {Shares: []*schedulerv1.GPUShare{{JobId: 10, Milli: 500}, {JobId: 9, Milli: 250}}}, {}},
	}
	if got := nodeState(n); got != "Ready" {
		t.Error(got)
	}
	n.Drain = &schedulerv1.Drain{Reason: "fan", By: "ann"}
	held := 0.0
	for _, g := range n.GetGpus() {
		held += heldOf(g)
	}
	got := []string{nodeState(n), strings.Join(nodeNotes(n), "; "), strings.Join(jobsOn(n), ","), gpuCount(held), holders(n.GetGpus()[1]), holders(n.GetGpus()[2]), drainedText(n)}
	want := []string{
		"Draining", "drained by ann: fan; taint slow; taint team=vision", "9,10", "1.75", "10 (0.5), 9 (0.25)", "-",
		"node n1 takes no new jobs: jobs 9, 10 may end by themselves",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	n.Gpus = nil
	if got := nodeState(n) + ", " + drainedText(n); got != "Drained, node n1 takes no new jobs: it is empty" {
		t.Error(got)
	}
}

// TestArrayText: an array is shown as it was asked for.
func TestArrayText(t *testing.T) {
	t.Parallel()
	j := &schedulerv1.Job{Id: 5, Spec: &schedulerv1.JobSpec{Array: &schedulerv1.ArraySpec{First: 0, Last: 99, Step: 2, Parallel: 8}}}
	if got := arrayText(j.GetSpec().GetArray()) + "; " + submittedText(j); got != "0-99:2%8; Submitted jobs 5 to 54, an array of 50" {
		t.Error(got)
	}
}
