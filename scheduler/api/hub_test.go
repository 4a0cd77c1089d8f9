package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// reignFixture is a fixture in a bubble whose s1 accepts agents.
type reignFixture struct {
	*fixture
	t   *testing.T
	end func() // ends the leadership and waits
}

// reigning runs a test in virtual time with a leading hub.
func reigning(t *testing.T, run func(f *reignFixture)) {
	bubble(t, func(t *testing.T) {
		f := &reignFixture{fixture: newFixture(t), t: t}
		defer stopAll(f.fixture)
		f.reign()
		defer func() { f.end() }()
		run(f)
	})
}

func (f *reignFixture) reign() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.s1().hub.Lead(ctx, 7)
	}()
	f.end = func() {
		cancel()
		<-done
	}
	synctest.Wait()
}

// testAgent is an agent's end of a stream. A goroutine takes in all messages.
type testAgent struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[agentv1.ConnectRequest, agentv1.ConnectResponse]
	cancel context.CancelFunc
	got    []*agentv1.ConnectResponse
	err    error
	done   chan struct{}
}

// agent connects and lets all that follows happen.
func (f *reignFixture) agent(h *agentv1.Hello) *testAgent {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := f.s1().agents.Connect(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	a := &testAgent{t: f.t, stream: stream, cancel: cancel, done: make(chan struct{})}
	a.send(&agentv1.ConnectRequest{Message: &agentv1.ConnectRequest_Hello{Hello: h}})
	go func() {
		defer close(a.done)
		for {
			m, err := stream.Recv()
			if err != nil {
				a.err = err
				return
			}
			a.got = append(a.got, m)
		}
	}()
	f.t.Cleanup(cancel)
	settle()
	return a
}

// settle lets everything happen that needs no more than a moment.
func settle() {
	time.Sleep(3 * wakePause)
	synctest.Wait()
}

func (a *testAgent) send(m *agentv1.ConnectRequest) {
	// An error shows as the stream's end.
	_ = a.stream.Send(m)
}

func (a *testAgent) beat(clock time.Time, load ...float64) {
	hb := &agentv1.Heartbeat{AgentUnixMs: clock.UnixMilli()}
	for i, u := range load {
		hb.Gpus = append(hb.Gpus, &agentv1.GPUSample{Uuid: fmt.Sprintf("a-gpu%d", i), Utilization: u})
	}
	a.send(&agentv1.ConnectRequest{Message: &agentv1.ConnectRequest_Heartbeat{Heartbeat: hb}})
	settle()
}

func (a *testAgent) report(workers ...*agentv1.WorkerStatus) {
	a.send(&agentv1.ConnectRequest{Message: &agentv1.ConnectRequest_Report{Report: &agentv1.Report{Workers: workers}}})
	settle()
}

// ended fails unless the stream was ended so.
func (a *testAgent) ended(code codes.Code, words ...string) {
	a.t.Helper()
	select {
	case <-a.done:
		wantStatus(a.t, a.err, code, words...)
	default:
		a.t.Fatalf("the stream goes on, want %s", code)
	}
}

// last is the newest order.
func (a *testAgent) last() *agentv1.Desired {
	for i := len(a.got) - 1; i >= 0; i-- {
		if d := a.got[i].GetDesired(); d != nil {
			return d
		}
	}
	a.t.Fatalf("no order came; the stream: %v %v", a.got, a.err)
	return nil
}

func (a *testAgent) orders() (n int) {
	for _, m := range a.got {
		if m.GetDesired() != nil {
			n++
		}
	}
	return n
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "s1", "s2")
	f.lead("s2")
	stream, err := f.s1().agents.Connect(within(t))
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || m.GetRedirect().GetLeaderAddress() != "passthrough:///s2" {
		t.Errorf("got %v, %v", m, err)
	}
	if _, err = stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
}

func TestAgentLife(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		a, b := f.agent(hello("a", 2)), f.agent(hello("b", 2))
		w := a.got[0].GetWelcome()
		if w.GetClusterId() != "c1" || w.GetHeartbeatMs() != 1000 || w.GetLeaseMs() != 6000 || len(w.GetServers()) != 1 {
			f.t.Errorf("welcome is %v", w)
		}
		if f.State().Node("a") == nil || a.orders() != 1 || len(a.last().GetAssignments()) != 0 {
			f.t.Fatalf("node %v, messages %v", f.State().Node("a"), a.got)
		}
		id := f.submit(nil)
		f.start(id, "a:0", "b:1")
		settle()
		if got := a.last().GetAssignments(); len(got) != 1 || got[0].GetEpoch() != 1 || got[0].GetNodeRank() != 0 {
			f.t.Fatalf("a was ordered %v", a.last())
		}
		if fence := a.last().GetFence(); fence.GetTerm() != 7 || fence.GetIndex() != f.State().Index() {
			f.t.Errorf("fence is %v, the state is at %d", fence, f.State().Index())
		}
		// Both start; rank 0 and then rank 1 ask for their rendezvous.
		r0, r1 := runs(1, 1, 0), runs(1, 1, 1)
		a.report(r0)
		b.report(r1)
		if st := f.State().Job(id).State; st != cluster.Running {
			f.t.Fatalf("job is %s", st)
		}
		before := a.orders()
		r0 = proto.CloneOf(r0)
		r0.RendezvousAddress, r0.RendezvousShare = "host-a:1", []byte("one")
		a.report(r0)
		if a.orders() != before || len(a.last().GetAssignments()[0].GetPeers()) != 0 {
			f.t.Errorf("an incomplete rendezvous made the order %v", a.last())
		}
		r1 = proto.CloneOf(r1)
		r1.RendezvousAddress, r1.RendezvousShare = "host-b:2", []byte("two")
		r0.Progress = &agentv1.Progress{Step: 3}
		b.report(r1)
		for _, x := range []*testAgent{a, b} {
			if got := x.last().GetAssignments()[0].GetPeers(); fmt.Sprint(got) != "[host-a:1 host-b:2]" {
				f.t.Errorf("peers are %v", got)
			}
			if got := x.last().GetAssignments()[0].GetRingSecret(); len(got) != 32 || !bytes.Equal(got, a.last().GetAssignments()[0].GetRingSecret()) {
				f.t.Errorf("the secret is %x", got)
			}
		}
		a.report(r0)
		got, err := f.s1().client.GetJob(context.Background(), &schedulerv1.GetJobRequest{Id: 1})
		if err != nil || got.GetJob().GetProgress().GetStep() != 3 {
			f.t.Errorf("live progress is %v, %v", got.GetJob().GetProgress(), err)
		}
		// Both end; the exits are acknowledged and nothing is left to do.
		a.report(exited(1, 1, 0, 0))
		if len(a.last().GetAssignments()) != 0 || len(a.last().GetAcknowledged()) != 1 {
			f.t.Errorf("after its exit a was ordered %v", a.last())
		}
		b.report(exited(1, 1, 1, 0))
		a.report()
		j := f.State().Job(id)
		if j.State != cluster.Succeeded || j.Progress.Step != 3 || len(b.last().GetAcknowledged()) != 1 || len(a.last().GetAcknowledged()) != 0 {
			f.t.Errorf("job %s, progress %v, orders %v and %v", j.State, j.Progress, a.last(), b.last())
		}
	})
}

func TestStopReachesTheNodes(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		a, c := f.agent(hello("a", 2)), f.agent(hello("c", 2))
		f.start(f.submit(nil), "a:0", "a:1")
		settle()
		if _, err := f.s1().client.CancelJob(context.Background(), &schedulerv1.CancelJobRequest{Id: 1, User: "bob"}); err != nil {
			f.t.Fatal(err)
		}
		settle()
		if stop := a.last().GetAssignments()[0].GetStop(); stop.GetReason() != "cancelled by bob" || stop.GetWarnMs() != 30_000 {
			f.t.Errorf("stop is %v", stop)
		}
		if c.orders() != 1 {
			f.t.Errorf("a node without a part in it got %d orders", c.orders())
		}
	})
}

func TestReconnectWritesNothing(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		h := hello("a", 2)
		a := f.agent(h)
		f.start(f.submit(nil), "a:0", "a:1")
		a.report(runs(1, 1, 0), runs(1, 1, 1))
		writes := f.written()
		again := proto.CloneOf(h)
		again.Workers = []*agentv1.WorkerStatus{runs(1, 1, 0), runs(1, 1, 1)}
		a2 := f.agent(again)
		a.ended(codes.Aborted, "taken its place")
		if f.written() != writes {
			f.t.Errorf("a reconnect wrote %d entries", f.written()-writes)
		}
		if len(a2.last().GetAssignments()) != 1 {
			f.t.Errorf("order is %v", a2.last())
		}
		// A restarted agent on the same boot takes over and is registered.
		next := proto.CloneOf(again)
		next.Incarnation = 2
		f.agent(next)
		a2.ended(codes.Aborted)
		if n := f.State().Node("a"); n.Incarnation != 2 || f.State().Job(1).State != cluster.Running {
			f.t.Errorf("incarnation %d, job %s", n.Incarnation, f.State().Job(1).State)
		}
		if f.s1().hub.Agents() != 1 {
			f.t.Errorf("%d agents", f.s1().hub.Agents())
		}
	})
}

func TestTwoAgentsWithOneName(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		a := f.agent(hello("a", 2))
		thief := hello("b", 2)
		thief.Name = "node-a"
		f.agent(thief).ended(codes.AlreadyExists, "two agents with one name", "agent-a", "--name")
		twin := hello("a", 2)
		twin.Host, twin.Incarnation = "elsewhere", 9
		f.agent(twin).ended(codes.AlreadyExists, "two agents with one name", "agent-a")
		select {
		case <-a.done:
			f.t.Errorf("the first agent was sent away: %v", a.err)
		default:
		}
		// Not connected, but its lease has not run out in the state: refused too.
		a.cancel()
		settle()
		f.agent(thief).ended(codes.AlreadyExists, "live node named", "--name")
		f.apply(&cluster.LoseNode{Node: "a", Incarnation: 1, Reason: "gone"})
		b := f.agent(thief)
		if b.orders() != 1 || f.State().NodeByName("node-a").ID != "b" {
			f.t.Errorf("the name is not free after its node was lost")
		}
	})
}

func TestAgentLeaves(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		a := f.agent(hello("a", 1))
		if err := a.stream.CloseSend(); err != nil {
			f.t.Fatal(err)
		}
		<-a.done
		if !errors.Is(a.err, io.EOF) || f.s1().hub.Agents() != 0 {
			f.t.Errorf("the stream ended with %v, %d agents are connected", a.err, f.s1().hub.Agents())
		}
	})
}

func TestHelloForAnotherCluster(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		h := hello("a", 1)
		h.ClusterId = "other"
		f.agent(h).ended(codes.FailedPrecondition, "other", "c1")
		if f.State().Nodes() != 0 {
			f.t.Error("the node was registered")
		}
	})
}

func TestSilentAgentIsEnded(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		stream, err := f.s1().agents.Connect(context.Background())
		if err != nil {
			f.t.Fatal(err)
		}
		begin := time.Now()
		_, err = stream.Recv()
		wantStatus(f.t, err, codes.DeadlineExceeded, "no Hello")
		if took := time.Since(begin); took != helloLimit {
			f.t.Errorf("took %s", took)
		}
	})
}
