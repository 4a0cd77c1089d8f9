package nodeagent

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

func TestStatusOf(t *testing.T) {
	t.Parallel()
	lost := &agentv1.WorkerStatus{PeerLost: true, Message: "lost its peer, rank 2: reset"}
	cases := []struct {
		name  string
		st    worker.Status
		notes *agentv1.WorkerStatus
		want  agentv1.WorkerStatus
	}{
		{"running", worker.Status{State: worker.Running}, nil, agentv1.WorkerStatus{State: isRunning}},
		{"stopping still holds its GPUs", worker.Status{State: worker.Stopping, Reason: "x"}, nil, agentv1.WorkerStatus{State: isRunning}},
		{"code", worker.Status{State: worker.Exited, ExitCode: 3, Reason: "r"}, nil, agentv1.WorkerStatus{State: isExited, ExitCode: 3, Message: "r"}},
		{"code alone", worker.Status{State: worker.Exited, ExitCode: 3, Reason: "exited with code 3"}, nil, agentv1.WorkerStatus{State: isExited, ExitCode: 3}},
		{"signal", worker.Status{State: worker.Exited, ExitCode: -1, Signal: "SIGKILL"}, nil, agentv1.WorkerStatus{State: isExited, Signal: 9}},
		{"lost", worker.Status{State: worker.Exited, ExitCode: -1, Lost: true}, nil, agentv1.WorkerStatus{State: agentv1.WorkerState_WORKER_STATE_LOST}},
		{"launch", worker.Status{State: worker.Exited, ExitCode: -1, LaunchError: "no"}, nil, agentv1.WorkerStatus{State: isExited, ExitCode: 127, Message: "no"}},
		{"peer", worker.Status{State: worker.Exited, ExitCode: 1, Reason: "r"}, lost, agentv1.WorkerStatus{State: isExited, ExitCode: 1, Message: lost.GetMessage(), PeerLost: true}},
		{"no text", worker.Status{State: worker.Exited, Reason: "a\xffb"}, nil, agentv1.WorkerStatus{State: isExited, Message: "a?b"}},
	}
	for i := range cases {
		c := &cases[i]
		got := statusOf(c.st, c.notes)
		if got.GetState() != c.want.GetState() || got.GetExitCode() != c.want.GetExitCode() || got.GetSignal() != c.want.GetSignal() ||
			got.GetMessage() != c.want.GetMessage() || got.GetPeerLost() != c.want.GetPeerLost() {
			t.Errorf("%s: got %v, want %v", c.name, got, &c.want)
		}
	}
}

func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	var all []*agentv1.WorkerStatus
	for i := range 10 {
		state := isExited
		if i%5 == 4 {
			state = isRunning
		}
		all = append(all, &agentv1.WorkerStatus{ExitCode: int32(i), State: state})
	}
	var kept []int32
	for _, w := range bounded(all, 4) {
		kept = append(kept, w.GetExitCode())
	}
	if len(kept) != 4 || kept[0] != 0 || kept[1] != 1 || kept[2] != 4 || kept[3] != 9 {
		t.Errorf("kept %v", kept)
	}
	if got := cut(strings.Repeat("ä", maxMessage)); len(got) > maxMessage+3 || !utf8.ValidString(got) {
		t.Errorf("cut to %d bytes", len(got))
	}
}

// Launches that hang leave room for stops.
func TestRoomForStops(t *testing.T) {
	t.Parallel()
	r := &reconciler{busy: map[reconcile.Key]reconcile.Action{}}
	fill := func(kind reconcile.Kind) (n int) {
		for ; r.room(kind) && n < 100; n++ {
			r.busy[reconcile.Key{Job: uint64(kind), Rank: n}] = reconcile.Action{Kind: kind} //nolint:gosec // 1 to 4
		}
		return n
	}
	if starts, acks, stops := fill(reconcile.Launch), fill(reconcile.Acknowledge), fill(reconcile.Halt); starts != maxStarts || acks != 0 || stops != maxActions-maxStarts {
		t.Errorf("%d launches, then %d acknowledgements, then %d stops", starts, acks, stops)
	}
}
