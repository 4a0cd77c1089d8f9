package api

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// left is how long a node's lease still lasts.
func (f *reignFixture) left(id cluster.NodeID) time.Duration {
	f.t.Helper()
	end, ok := f.s1().hub.Leases()[id]
	if !ok {
		f.t.Fatalf("node %s has no lease", id)
	}
	return end.Sub(cluster.Time(time.Now().UnixNano()))
}

func TestHeartbeatsExtendTheLease(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		a := f.agent(hello("a", 2))
		time.Sleep(4 * time.Second)
		if got := f.left("a"); got > 2*time.Second || got < 1900*time.Millisecond {
			f.t.Errorf("after 4s %s are left of 6s", got)
		}
		a.beat(time.Now(), 0.5, 0.25)
		if got := f.left("a"); got < 5900*time.Millisecond {
			f.t.Errorf("after a heartbeat %s are left", got)
		}
		time.Sleep(time.Second)
		nodes, err := f.s1().client.ListNodes(context.Background(), &schedulerv1.ListNodesRequest{})
		if err != nil {
			f.t.Fatal(err)
		}
		n := nodes.GetNodes()[0]
		if n.GetHeartbeatAgeMs() < 1000 || n.GetHeartbeatAgeMs() > 1100 || n.GetGpus()[1].GetUtilization() != 0.25 {
			f.t.Errorf("node is %v", n)
		}
		time.Sleep(6 * time.Second)
		if got := f.left("a"); got >= 0 {
			f.t.Errorf("%s are left without a heartbeat", got)
		}
	})
}

func TestAgentClockChangesNothing(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		for _, off := range []time.Duration{time.Hour, -time.Hour} {
			a := f.agent(hello("a", 2))
			time.Sleep(3 * time.Second)
			a.beat(time.Now().Add(off))
			if got := f.left("a"); got < 5900*time.Millisecond || got > 6*time.Second {
				f.t.Errorf("clock off by %s: %s are left of 6s", off, got)
			}
			if skew := f.s1().hub.Telemetry("a").ClockSkew; (skew - off).Abs() > time.Second {
				f.t.Errorf("skew is shown as %s, want %s", skew, off)
			}
		}
	})
}

func TestNewLeaderGrantsFullLeases(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &reignFixture{fixture: newFixture(t), t: t}
		defer stopAll(f.fixture)
		f.node("a", 1)
		time.Sleep(time.Hour)
		if got := f.left("a"); got != DefaultLease {
			t.Errorf("%s are left before the takeover, want %s", got, DefaultLease)
		}
		time.Sleep(time.Hour)
		f.reign()
		if got := f.left("a"); got != DefaultLease {
			t.Errorf("%s are left at takeover, want %s", got, DefaultLease)
		}
		time.Sleep(7 * time.Second)
		if got := f.left("a"); got >= 0 {
			t.Errorf("%s are left", got)
		}
		f.end()
		f.reign()
		if got := f.left("a"); got != DefaultLease {
			t.Errorf("%s are left at the second takeover, want %s", got, DefaultLease)
		}
		f.end()
	})
}

func TestStallIsForgiven(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 1)
	now := time.Unix(1000, 0)
	h := NewHub(HubConfig{Replica: &replica{model: m, id: "s1"}, ServerID: "s1", Clock: func() time.Time { return now }, Logger: quiet()})
	h.reign = &reign{ctx: t.Context(), term: 1}
	h.lastLook = now
	h.Leases()
	now = now.Add(time.Minute) // this process was stopped: no look in between
	if end := h.Leases()["a"]; end != cluster.Time(now.Add(DefaultLease).UnixNano()) {
		t.Errorf("the lease ends at %d, want a full one from %d", end, now.UnixNano())
	}
}

func TestLostNodeComesBack(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		a := f.agent(hello("a", 2))
		f.start(f.submit(nil), "a:0", "a:1")
		a.report(runs(1, 1, 0), runs(1, 1, 1))
		time.Sleep(8 * time.Second)
		f.apply(&cluster.LoseNode{Node: "a", Incarnation: 1, Reason: "no heartbeat"})
		settle()
		if f.State().Node("a").State != cluster.NodeLost {
			f.t.Fatal("a silent node was registered again")
		}
		a.beat(time.Now())
		n := f.State().Node("a")
		if n.State != cluster.NodeReady || len(n.Stale) != 2 {
			f.t.Fatalf("after a heartbeat the node is %s with stale workers %v", n.State, n.Stale)
		}
		if d := a.last(); len(d.GetAssignments()) != 0 || d.GetFence().GetIndex() != f.State().Index() {
			f.t.Errorf("given up workers should be ordered to stop: %v", d)
		}
		// They end: their GPUs are free, their ends acknowledged.
		a.report(exited(1, 1, 0, 1), exited(1, 1, 1, 1))
		if n := f.State().Node("a"); len(n.Stale) != 0 || len(a.last().GetAcknowledged()) != 2 {
			f.t.Errorf("stale %v, order %v", n.Stale, a.last())
		}
	})
}

func TestEndOfReignEndsStreams(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		a := f.agent(hello("a", 1))
		f.end()
		synctest.Wait()
		a.ended(codes.Unavailable, "connect again")
		f.lead("")
		f.reign()
		// A new leader learns all from the agents: rendezvous, too.
		f.lead("s1")
		f.node("b", 1)
		f.start(f.submit(nil), "a:0", "b:0")
		ha, hb := hello("a", 1), hello("b", 1)
		for r, h := range []*agentv1.Hello{ha, hb} {
			w := runs(1, 1, int32(r))
			w.RendezvousAddress = fmt.Sprintf("h%d:1", r)
			h.Workers = []*agentv1.WorkerStatus{w}
		}
		a = f.agent(ha)
		b := f.agent(hb)
		settle()
		for _, x := range []*testAgent{a, b} {
			if got := x.last().GetAssignments()[0].GetPeers(); fmt.Sprint(got) != "[h0:1 h1:1]" {
				f.t.Errorf("peers are %v", got)
			}
		}
	})
}

// TestStuckAgentIsEnded lets an agent read nothing while its orders grow.
func TestStuckAgentIsEnded(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream, err := f.s1().agents.Connect(ctx)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := stream.Send(&agentv1.ConnectRequest{Message: &agentv1.ConnectRequest_Hello{Hello: hello("a", 2)}}); err != nil {
			f.t.Fatal(err)
		}
		settle()
		big := fmt.Sprintf("%0200000d", 0)
		for range 10 {
			id := f.submit(func(s *cluster.JobSpec) { s.Command = []string{"echo", big} })
			f.start(id, "a:0", "a:1")
			settle()
			f.apply(&cluster.CancelJob{Job: id})
			settle()
			j := f.State().Job(id)
			for r := range j.Workers {
				f.report(id, cluster.WorkerExited, 0, r)
			}
			settle()
		}
		for i := 0; i < 30 && f.s1().hub.Agents() > 0; i++ {
			_ = stream.Send(&agentv1.ConnectRequest{Message: &agentv1.ConnectRequest_Heartbeat{Heartbeat: &agentv1.Heartbeat{}}})
			time.Sleep(time.Second)
		}
		if n := f.s1().hub.Agents(); n != 0 {
			f.t.Errorf("%d agents are still served", n)
		}
	})
}

func TestProposalIsTriedAgain(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		a := f.agent(hello("a", 2))
		f.start(f.submit(nil), "a:0", "a:1")
		lost := 0
		f.mu.Lock()
		f.fail = func([]cluster.Command) error {
			if lost++; lost == 1 {
				return ErrUnknownOutcome
			}
			return nil
		}
		f.mu.Unlock()
		h := proto.CloneOf(hello("a", 3)) // one GPU more
		h.Workers = []*agentv1.WorkerStatus{runs(1, 1, 0), runs(1, 1, 1)}
		a.send(&agentv1.ConnectRequest{Message: &agentv1.ConnectRequest_Hello{Hello: h}})
		time.Sleep(2 * agentTick)
		synctest.Wait()
		if n := f.State().Node("a"); len(n.GPUs) != 3 || f.State().Job(1).State != cluster.Running {
			f.t.Errorf("%d GPUs, job %s", len(n.GPUs), f.State().Job(1).State)
		}
	})
}
