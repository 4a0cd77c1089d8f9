package allreduce

import (
	"context"
	"errors"
	"fmt"

	"github.com/gangline/gangline/allreduce/internal/point"
	"github.com/gangline/gangline/allreduce/kernel"
	"github.com/gangline/gangline/allreduce/shm"
)

// nodes is the hierarchy of a group whose ranks are on several machines, some with several ranks: shared memory within a machine, and a ring
// over one rank of each, its leader, which is the lowest.
type nodes struct {
	mine    []int  // the ranks of this machine, as the team has them
	leaders []int  // by machine; nil: there is no hierarchy
	across  *Group // the ring of leaders; nil on other ranks
}

// ShareNodes lets all-reduces go by machines, from the next call on: ranks of one machine combine in the memory that they share, leaders
// go round a ring of their own, and give the result to the others of their machine. Call it on every rank or on none, before the first call, on groups with links to
// all ranks. team is this machine's, whose members are the ranks in mine; nil where a rank is alone. leaders are the lowest ranks of all
// machines, in order. The group owns the team and closes it. It returns once this rank's links are made, and does not wait for others.
func (g *Group) ShareNodes(ctx context.Context, team *shm.Team, mine, leaders []int) error {
	g.team, g.apart, g.nodes.mine, g.nodes.leaders = team, true, mine, leaders
	me := -1
	for i, r := range leaders {
		if r == g.cfg.Rank {
			me = i
		}
	}
	if me < 0 {
		return nil
	}
	after := leaders[(me+1)%len(leaders)]
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.life, cancel)()
	next, err := g.mesh.dial(ctx, after, LaneNodes)
	if err != nil {
		g.failLater(after, fmt.Errorf("a link to the next machine: %w", err))
		return g.err
	}
	var prev Link
	select {
	case prev = <-g.mesh.nodes:
	case <-g.ended:
		return errors.Join(g.err, next.Close())
	case <-ctx.Done():
		g.cancelled(context.Cause(ctx))
		return errors.Join(g.err, next.Close())
	}
	cfg := g.cfg
	cfg.Rank, cfg.WorldSize = me, len(leaders)
	across, err := New(cfg, next, prev)
	if err != nil {
		return err
	}
	g.mesh.mu.Lock()
	defer g.mesh.mu.Unlock()
	if g.mesh.closed {
		go across.Close() //nolint:errcheck // returns nil; the group has ended meanwhile
		return g.err
	}
	g.nodes.across = across
	return nil
}

// hierarchic says whether a call goes by machines.
func (g *Group) hierarchic(t *transfer) bool {
	return t.call == callAllReduce && g.nodes.leaders != nil
}

// runNodes makes one all-reduce by machines. All ranks have the same bits, since leaders have and others copy theirs.
func (g *Group) runNodes(t *transfer) {
	t.toSend, t.toReceive, t.sent, t.received = 1, 0, 0, 0 // the call as a whole
	op := t.op
	if op == Mean {
		t.op = Sum
	}
	if g.team != nil && !g.combineShared(t) {
		return
	}
	t.op = op
	g.at(point.NodesCombined)
	if g.nodes.across != nil && !g.combineAcross(t) {
		return
	}
	g.at(point.AcrossCombined)
	if g.team != nil && !g.copyFromLeader(t.vector.data) {
		return
	}
	t.sent = 1
}

// combineAcross combines what machines have, on leaders.
func (g *Group) combineAcross(t *transfer) bool {
	op := Op(t.op.combines())
	w := t.wire
	if w == WireGroup {
		w = WireExact
	}
	v := t.vector.Over(w)
	err := g.nodes.across.AllReduce(g.life, v, op)
	var lost *RankLostError
	switch {
	case err == nil:
	case errors.As(err, &lost) && lost.Rank < len(g.nodes.leaders):
		g.failLater(g.nodes.leaders[lost.Rank], lost.Cause) // a leader that heard of a loss leaves the leaders' ring
		return false
	default:
		g.failLater(g.cfg.Rank, err)
		return false
	}
	if t.op == Mean {
		kernel.Divide(t.vector.typ, t.vector.data, g.cfg.WorldSize)
	}
	return true
}

// copyFromLeader gives the leader's vector to the others of its machine, block by block through its stages in turn. The leader writes a
// stage again only after all have met once more, and so have copied what was in it.
func (g *Group) copyFromLeader(data []byte) bool {
	for lo := 0; lo < len(data); lo += shm.StageBytes {
		block := data[lo:min(lo+shm.StageBytes, len(data))]
		which := g.stage
		g.stage = 1 - which
		if g.team.Me() == 0 {
			copy(g.team.Stage(0, which), block)
		}
		if !g.again() {
			return false
		}
		if g.team.Me() != 0 {
			copy(block, g.team.Stage(0, which))
		}
	}
	return true
}
