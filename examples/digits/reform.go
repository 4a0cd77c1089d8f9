package main

import (
	"context"
	"errors"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// errReform ends a ring whose set of ranks has changed while it was whole: a rank is to join.
var errReform = errors.New("the set of ranks has changed")

// ring is a group, and which of the epoch's it is.
type ring struct {
	*allreduce.Group
	formation int   // from 1
	members   []int // the ranks of its places
}

// trainOn trains to the end, in as many rings as it takes: where the gang may shrink, ranks that are left after a loss form a new ring and
// go on from the last step that any of them has done; so they do when another joins. No process starts again, and nothing is read from
// disk. known is the checkpoint that the scheduler knows of, or "".
func (t *trainer) trainOn(ctx context.Context, known string, join func(ctx context.Context, least, lost int) (*ring, error)) error {
	shrinks := t.client.Environment().Shrinks
	if !shrinks {
		if err := t.resume(ctx, known); err != nil {
			return err
		}
		return t.train(ctx)
	}
	err := t.rally(ctx, known)
	for {
		if err == nil {
			err = t.train(ctx)
		}
		peer, lost := lostPeer(err, t.group.Rank())
		whom := workerclient.NobodyLost
		switch {
		case lost:
			whom = t.group.member(peer.Rank)
		case !errors.Is(err, errReform):
			return err
		}
		t.warnf("after step %d: %v: forming a new ring", t.step, err)
		_ = t.group.Close() // returns nil
		next, joinErr := join(ctx, t.group.formation+1, whom)
		if joinErr != nil {
			return errors.Join(t.group.byRank(err), joinErr)
		}
		t.group = next
		err = t.rally(ctx, known)
	}
}

// member returns the rank in the job of a place in the ring.
func (r *ring) member(place int) int {
	if place < len(r.members) {
		return r.members[place]
	}
	return workerclient.NobodyLost
}

// byRank names a lost rank by its number in the job, which is that of its place in the first ring only.
func (r *ring) byRank(err error) error {
	var lost *allreduce.RankLostError
	if !errors.As(err, &lost) || lost.Rank >= len(r.members) {
		return err
	}
	named := *lost
	named.Rank = r.members[lost.Rank]
	return &named
}

// rally gives all ranks of a new ring the state of one that is furthest: some may have done a step whose sum reached others no more, and one
// that joins has done none. Where nobody has any yet, all resume from the checkpoint, as at any start.
func (t *trainer) rally(ctx context.Context, known string) error {
	have := int64(-1)
	if t.rallied {
		have = int64(t.step)
	}
	most, least, giver := []int64{have}, []int64{have}, []int64{int64(t.group.WorldSize())}
	if err := t.combine(ctx, most, allreduce.Max); err != nil {
		return err
	}
	if have == most[0] {
		giver[0] = int64(t.group.Rank())
	}
	err := errors.Join(t.combine(ctx, least, allreduce.Min), t.combine(ctx, giver, allreduce.Min))
	switch {
	case err != nil:
		return err
	case most[0] < 0:
		err = t.resume(ctx, known)
	case least[0] < most[0]:
		err = t.copyState(ctx, int(giver[0]), have < most[0])
	}
	t.rallied = t.rallied || err == nil
	return err
}

// combine makes one number of all ranks', in bounded time.
func (t *trainer) combine(ctx context.Context, v []int64, op allreduce.Op) error {
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	return t.group.AllReduce(ctx, allreduce.Of(v), op)
}

// copyState gives one rank's state to all, along the ring.
func (t *trainer) copyState(ctx context.Context, giver int, behind bool) error {
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	rest := []float64{float64(t.step), t.lossSum, float64(t.savedStep)}
	for _, v := range []allreduce.Vector{allreduce.Of(t.net.Params), allreduce.Of(t.velocity), allreduce.Of(rest)} {
		if err := t.group.Broadcast(ctx, v, giver); err != nil {
			return err
		}
	}
	t.step, t.lossSum, t.savedStep = int(rest[0]), rest[1], int(rest[2])
	if behind {
		t.startStep = t.step
		t.warnf("rank %d of %d has the state after step %d from rank %d", t.group.Rank(), t.group.WorldSize(), t.step, giver)
	}
	return nil
}
