package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// Bounds of one agent's stream.
const (
	helloLimit   = 5 * time.Second  // from the stream's start to Hello
	proposeLimit = 10 * time.Second // one proposal; then it is tried again
	agentTick    = time.Second      // how often a stream looks at itself
	refreshTicks = 10               // every so many ticks all is computed anew
)

// agent is the leader's end of one agent's stream. Two goroutines run beside
// its handler, serve: receive, which only takes in messages, so that a slow
// proposal cannot hold up a heartbeat; and the outbox's sender.
type agent struct {
	hub    *Hub
	reign  *reign
	stream grpc.BidiStreamingServer[agentv1.ConnectRequest, agentv1.ConnectResponse]
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func() bool   // unhooks cancel from the reign
	wake   chan struct{} // depth 1: look again

	// Guarded by hub.mu; written by serve only.
	id    cluster.NodeID
	hello *agentv1.Hello // nil until admitted

	inbox  sync.Mutex // guards the two below: the newest of each kind that serve has not taken
	intro  *agentv1.Hello
	report *agentv1.Report

	// Owned by serve.
	workers []*agentv1.WorkerStatus // the agent's last word on all of its workers
	told    []control.WorkerStatus  // the same, as control reads it
	dirty   bool                    // the state may not say the same as workers
	unsure  bool                    // whether the node was registered is not known
	sent    *agentv1.Desired        // the last order
	out     *outbox[agentv1.ConnectResponse]
}

func newAgent(h *Hub, r *reign, stream grpc.BidiStreamingServer[agentv1.ConnectRequest, agentv1.ConnectResponse]) *agent {
	a := &agent{hub: h, reign: r, stream: stream, wake: make(chan struct{}, 1)}
	a.ctx, a.cancel = context.WithCancelCause(stream.Context())
	a.stop = context.AfterFunc(r.ctx, func() { a.cancel(errReignOver) })
	r.streams.Go(a.receive) // ends when the handler returns, at the latest
	return a
}

// poke makes serve look again. It never blocks.
func (a *agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// leave frees the agent's place.
func (a *agent) leave() {
	a.hub.mu.Lock()
	a.hub.remove(a)
	a.hub.mu.Unlock()
	a.stop()
	a.cancel(nil)
}

// receive takes in messages until the stream ends.
func (a *agent) receive() {
	for {
		m, err := a.stream.Recv()
		if err != nil {
			a.cancel(err)
			return
		}
		switch m := m.GetMessage().(type) {
		case *agentv1.ConnectRequest_Heartbeat:
			a.hub.heartbeat(a, m.Heartbeat)
			continue
		case *agentv1.ConnectRequest_Hello:
			a.inbox.Lock()
			a.intro, a.report = m.Hello, nil // a Hello lists all workers too
			a.inbox.Unlock()
		case *agentv1.ConnectRequest_Report:
			a.inbox.Lock()
			a.report = m.Report
			a.inbox.Unlock()
		default:
			continue // a newer agent's message: not for this release
		}
		a.poke()
	}
}

// take returns the newest messages that were not taken yet.
func (a *agent) take() (*agentv1.Hello, *agentv1.Report) {
	a.inbox.Lock()
	defer a.inbox.Unlock()
	intro, report := a.intro, a.report
	a.intro, a.report = nil, nil
	return intro, report
}

// serve is one agent's whole story: introduction, welcome, then reports in and
// orders out. It never returns nil, but when the agent has left by itself.
func (a *agent) serve() error {
	hello, err := a.awaitHello()
	if err != nil {
		return err
	}
	if err := a.introduce(hello); err != nil {
		return err
	}
	// Small, and the first message of the stream: this Send cannot block.
	if err := a.stream.Send(a.welcome()); err != nil {
		return err
	}
	a.hub.log.Info("agent connected", "node", a.id, "name", hello.GetName(), "address", hello.GetAddress())
	a.out = newOutbox(a.ctx, &a.reign.streams, 1, a.stream.Send)
	tick := time.NewTicker(agentTick)
	defer tick.Stop()
	stuck := 0
	for n := 1; ; n++ {
		if err := a.look(); err != nil {
			return err
		}
		select {
		case <-a.wake:
			n--
		case <-tick.C:
			if stuck++; !a.out.waiting() {
				stuck = 0
			}
			if time.Duration(stuck)*agentTick > stallLimit {
				return status.Errorf(codes.Aborted, "the agent of node %s reads no orders: the stream was ended, connect again", hello.GetName())
			}
			if n%refreshTicks == 0 {
				a.dirty = true
			}
		case <-a.out.done:
			return a.out.err
		case <-a.ctx.Done():
			return context.Cause(a.ctx)
		}
	}
}

func (a *agent) awaitHello() (*agentv1.Hello, error) {
	limit := time.NewTimer(helloLimit)
	defer limit.Stop()
	for {
		select {
		case <-a.wake:
			if hello, _ := a.take(); hello != nil {
				return hello, nil
			}
			return nil, status.Error(codes.InvalidArgument, "the first message of an agent's stream must be Hello")
		case <-limit.C:
			return nil, status.Errorf(codes.DeadlineExceeded, "no Hello within %s", helloLimit)
		case <-a.ctx.Done():
			return nil, context.Cause(a.ctx)
		}
	}
}

func (a *agent) welcome() *agentv1.ConnectResponse {
	w := &agentv1.Welcome{
		ClusterId:   a.hub.cfg.Replica.State().ClusterID(),
		HeartbeatMs: a.hub.cfg.Heartbeat.Milliseconds(), LeaseMs: a.hub.cfg.Lease.Milliseconds(),
	}
	for _, s := range a.hub.cfg.Servers {
		w.Servers = append(w.Servers, s.Address)
	}
	return &agentv1.ConnectResponse{Message: &agentv1.ConnectResponse_Welcome{Welcome: w}}
}

// introduce admits the agent under its Hello and makes the state know the node
// and its workers.
func (a *agent) introduce(hello *agentv1.Hello) error {
	if err := checkHello(hello, a.hub.cfg.Replica.State().ClusterID()); err != nil {
		return err
	}
	if a.hello != nil && a.hello.GetNodeId() != hello.GetNodeId() {
		return status.Errorf(codes.InvalidArgument, "node %s: a stream cannot change its node id", a.hello.GetName())
	}
	if err := a.hub.join(a, hello); err != nil {
		return err
	}
	a.hear(hello.GetWorkers(), hello.GetAgentUnixMs())
	return a.register()
}

// hear notes the agent's newest word on all of its workers, as of a time by its clock.
func (a *agent) hear(workers []*agentv1.WorkerStatus, at int64) {
	a.workers, a.told, a.dirty = workers, statusesFromProto(workers, at), true
}

// register makes the state know the node, if it does not.
func (a *agent) register() error {
	node, runs := nodeOf(a.hello), control.Running(a.told)
	if !control.NeedsRegistration(a.hub.cfg.Replica.State(), &node, runs) {
		a.dirty = a.dirty || a.unsure // what was told meanwhile met a state without the node
		a.unsure = false
		return nil
	}
	a.dirty = true
	written, err := a.propose(&cluster.RegisterNode{Node: node, Running: runs})
	a.unsure = !written
	return err
}

// look is one turn: take the news in, write to the log what the state does not
// know, then send what should run, if it differs from what was sent.
func (a *agent) look() error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	intro, report := a.take()
	if intro != nil {
		if err := a.introduce(intro); err != nil {
			return err
		}
	}
	if report != nil {
		if err := checkWorkers(report.GetWorkers()); err != nil {
			return err
		}
		a.hear(report.GetWorkers(), report.GetAgentUnixMs())
	}
	if (a.unsure || control.Unregistered(a.hub.cfg.Replica.State(), a.id, a.hello.GetIncarnation())) && a.hub.leased(a) {
		if err := a.register(); err != nil {
			return err
		}
	}
	if a.dirty {
		a.dirty = false
		if err := a.tell(); err != nil {
			return err
		}
	}
	a.order()
	return nil
}

// tell writes to the log what the state does not know of the workers yet. If
// the outcome is unknown, the next turn looks again.
func (a *agent) tell() error {
	st := a.hub.cfg.Replica.State()
	a.hub.gather(a)
	cmds := control.News(st, a.id, a.told, a.hub.Progress)
	if len(cmds) == 0 {
		return nil
	}
	if written, err := a.propose(cmds...); err != nil || !written {
		a.dirty = true
		return err
	}
	// The workers may be of an epoch that the state knows only now.
	a.hub.gather(a)
	return nil
}

// propose logs commands. It returns an error only if the stream must end; a
// proposal without a known outcome is looked at again in the next turn.
func (a *agent) propose(cmds ...cluster.Command) (written bool, err error) {
	ctx, cancel := context.WithTimeout(a.ctx, proposeLimit)
	defer cancel()
	results, index, err := a.hub.cfg.Replica.Propose(ctx, cmds...)
	if err == nil {
		err = a.hub.cfg.Replica.WaitIndex(ctx, index)
	}
	switch {
	case a.ctx.Err() != nil:
		return false, context.Cause(a.ctx)
	case errors.Is(err, ErrNotLeader):
		return false, errReignOver
	case err != nil:
		a.hub.log.Warn("an agent's news was not written, it is tried again", "node", a.id, "err", err)
		return false, nil
	}
	for i, r := range results {
		if r.Code == cluster.OK {
			continue
		}
		if _, isNode := cmds[i].(*cluster.RegisterNode); isNode {
			return true, resultError(r)
		}
		a.hub.log.Warn("an agent's news was refused", "node", a.id, "command", fmt.Sprintf("%T", cmds[i]), "why", r.Message)
	}
	return true, nil
}

// order queues what should run on the node, if it differs from the last order.
// Only what is committed is ever ordered: State is that.
func (a *agent) order() {
	d := desiredFor(a.hub.cfg.Replica.State(), a.id, a.told, a.hub.peers, a.reign.term)
	if d != nil {
		d.CopiesTo = a.hub.copiesTo(a.id)
	}
	if d == nil || (a.sent != nil && sameOrder(a.sent, d)) {
		return
	}
	a.sent = d
	a.out.latest(&agentv1.ConnectResponse{Message: &agentv1.ConnectResponse_Desired{Desired: d}})
}

// sameOrder compares two orders but for their fences.
func sameOrder(a, b *agentv1.Desired) bool {
	return proto.Equal(&agentv1.Desired{Assignments: a.GetAssignments(), Acknowledged: a.GetAcknowledged(), CopiesTo: a.GetCopiesTo()},
		&agentv1.Desired{Assignments: b.GetAssignments(), Acknowledged: b.GetAcknowledged(), CopiesTo: b.GetCopiesTo()})
}
