package api

import (
	"context"
	"errors"
	"time"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// errReignOver ends the streams when leadership ends.
var errReignOver = errors.New("leadership has ended")

const (
	leadTick   = 500 * time.Millisecond // how often leases are looked at
	wakePause  = 10 * time.Millisecond  // between two rounds of orders: a burst of changes makes one order for each node
	maxSamples = cluster.MaxNodeGPUs    // of one heartbeat
)

// pulse is what heartbeats say of a node.
type pulse struct {
	granted time.Time // the lease runs from here; monotonic
	beat    time.Time // last heartbeat, zero: none in this leadership
	skew    time.Duration
	load    map[string]float64 // replaced, never edited
	storage string             // problem of the checkpoints' storage; "": none
	expired bool               // already counted
}

func (p *pulse) grant(now time.Time) { p.granted, p.expired = now, false }

// Lead accepts agents until ctx ends. It first grants every known node a full
// lease, so that nobody is judged by what an earlier leader saw. At the end it
// closes all streams and waits for them. It must not run twice at a time.
func (h *Hub) Lead(ctx context.Context, term uint64) {
	r := &reign{ctx: ctx, term: term}
	st := h.cfg.Replica.State()
	h.mu.Lock()
	h.forget()
	st.EachHolding(func(j *cluster.Job) bool {
		h.orderKeys[j.ID] = control.OrderKeyOf(j)
		return true
	})
	h.reign = r
	h.lastLook = h.cfg.Clock()
	h.mu.Unlock()
	h.Leases() // grants them
	h.dispatch(ctx, st.Index())
	h.mu.Lock()
	h.reign = nil
	h.forget()
	h.mu.Unlock()
	r.streams.Wait() // they end with ctx
}

// dispatch tells agents' streams to look again when the state has changed
// what their nodes should do.
func (h *Hub) dispatch(ctx context.Context, from uint64) {
	tick := time.NewTicker(leadTick)
	defer tick.Stop()
	for {
		updated := h.cfg.Replica.Updated()
		from = h.wakeSince(from)
		select {
		case <-updated:
		case <-tick.C:
			h.lookAtLeases()
			continue
		case <-ctx.Done():
			return
		}
		pause := time.NewTimer(wakePause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// wakeSince wakes the agents that the changes after an index concern, and
// returns the index up to which it looked.
func (h *Hub) wakeSince(from uint64) uint64 {
	for {
		newest := h.cfg.Replica.State().Index()
		events, ok := h.cfg.Replica.Events(from)
		h.mu.Lock()
		if !ok {
			for _, a := range h.agents {
				a.poke()
			}
		}
		for _, e := range events {
			from = e.Index
			h.wakeFor(e)
		}
		h.mu.Unlock()
		switch {
		case !ok:
			return newest
		case len(events) == 0:
			return from
		}
	}
}

// wakeFor wakes the agents that one change concerns. The caller holds mu.
func (h *Hub) wakeFor(e Event) {
	switch {
	case e.Node != nil:
		if a := h.agents[e.Node.ID]; a != nil {
			a.poke()
		}
	case e.GoneNode != "":
		if a := h.agents[e.GoneNode]; a != nil {
			a.poke()
		}
	case e.GoneJob != 0:
		h.dropJob(e.GoneJob)
	case e.Job != nil:
		j := e.Job
		key := control.OrderKeyOf(j)
		if h.orderKeys[j.ID] == key {
			return
		}
		if h.orderKeys[j.ID] = key; key == (control.OrderKey{}) {
			h.dropJob(j.ID)
		}
		for _, id := range j.NodeRanks {
			if a := h.agents[id]; a != nil {
				a.poke()
			}
		}
	}
}

// dropJob forgets what was remembered of a job's epoch. The caller holds mu.
func (h *Hub) dropJob(id cluster.JobID) {
	delete(h.orderKeys, id)
	delete(h.progress, id)
	delete(h.rings, id)
	delete(h.locals, id)
	delete(h.meetings, id)
}

// heartbeat extends a node's lease by the leader's own clock. The agent's
// clock only shows its skew.
func (h *Hub) heartbeat(a *agent, hb *agentv1.Heartbeat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.hello == nil || h.agents[a.id] != a {
		return // not admitted, or not any more
	}
	now := h.cfg.Clock()
	p := h.pulses[a.id]
	if p.expired {
		a.poke() // it may have been lost meanwhile
	}
	p.grant(now)
	p.beat = now
	p.skew = millis(hb.GetAgentUnixMs() - now.UnixMilli())
	p.storage = cutText(hb.GetStorageProblem(), cluster.MaxReason)
	h.learnUsage(hb.GetCheckpointUsage(), now)
	p.load = nil
	for _, g := range hb.GetGpus()[:min(len(hb.GetGpus()), maxSamples)] {
		if p.load == nil {
			p.load = make(map[string]float64, len(hb.GetGpus()))
		}
		p.load[g.GetUuid()] = g.GetUtilization()
	}
}

// Leases returns when each known node's lease ends, by this server's clock,
// for control.Step. It is computed from monotonic time, so that a step of this
// server's own clock loses no node; call it right before the Step whose now it
// is to be compared with. Until Lead has begun every node has a full lease:
// nobody is judged without evidence.
func (h *Hub) Leases() map[cluster.NodeID]cluster.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.cfg.Clock()
	st := h.cfg.Replica.State()
	out := make(map[cluster.NodeID]cluster.Time, st.Nodes())
	if h.reign != nil {
		h.forgiveStall(now)
	}
	st.EachNode(func(n *cluster.Node) bool {
		if h.reign == nil {
			out[n.ID] = cluster.Time(now.Add(h.cfg.Lease).UnixNano())
			return true
		}
		p := h.pulses[n.ID]
		if p == nil {
			p = &pulse{}
			p.grant(now)
			h.pulses[n.ID] = p
		}
		left := p.granted.Add(h.cfg.Lease).Sub(now)
		out[n.ID] = cluster.Time(now.Add(left).UnixNano())
		return true
	})
	return out
}

// forgiveStall extends all leases if this process itself stood still (stopped,
// swapped out): heartbeats may wait unread, and nothing is known of the nodes.
// The caller holds mu.
func (h *Hub) forgiveStall(now time.Time) {
	gap := now.Sub(h.lastLook)
	h.lastLook = now
	if gap <= h.cfg.Lease/2 || gap <= 2*leadTick {
		return
	}
	h.log.Warn("this server stood still: all leases are extended", "gap", gap)
	for _, p := range h.pulses {
		p.grant(now)
	}
}

// lookAtLeases counts the leases that ran out and drops what is remembered of
// nodes that nobody knows any more.
func (h *Hub) lookAtLeases() {
	st := h.cfg.Replica.State()
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.cfg.Clock()
	h.forgiveStall(now)
	for id, p := range h.pulses {
		if h.agents[id] == nil && st.Node(id) == nil {
			delete(h.pulses, id)
			continue
		}
		if !p.expired && now.Sub(p.granted) > h.cfg.Lease {
			p.expired = true
			h.metrics.expired.Inc()
			h.log.Warn("no heartbeat within the lease", "node", id, "lease", h.cfg.Lease)
		}
	}
}

// leased reports whether an agent still has its place and its lease.
func (h *Hub) leased(a *agent) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pulses[a.id]
	return h.agents[a.id] == a && p != nil && h.cfg.Clock().Sub(p.granted) <= h.cfg.Lease
}
