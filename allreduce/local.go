package allreduce

import (
	"bytes"
	"encoding/binary"

	"github.com/gangline/gangline/allreduce/kernel"
	"github.com/gangline/gangline/allreduce/shm"
)

// Share lets the group use memory that all its ranks share, from the next call on: the team's members are the ranks in their order.
// Call it on every rank or on none, before the first call or after the same one. The group owns the team and closes it. How a lost
// rank is found stays what it was: by the links.
func (g *Group) Share(team *shm.Team) { g.team = team }

// shares says whether a call goes through shared memory.
func (g *Group) shares(t *transfer) bool {
	return g.team != nil && (t.kind == KindBarrier || t.call == callAllReduce)
}

// runShared makes one call in shared memory. t is complete afterwards unless the group has ended.
func (g *Group) runShared(t *transfer) {
	t.toSend, t.toReceive = 1, 0 // the call as a whole
	team, data := g.team, t.vector.data
	putCard(team.Card(team.Me(), team.Phase()+1), t, g.sequence)
	ok := false
	switch {
	case t.kind == KindBarrier:
		ok = g.meet(t)
	case len(data) <= shm.SmallBytes:
		ok = g.sumSmall(t)
	default:
		ok = g.sumBlocks(t)
	}
	if ok {
		t.sent = 1
	}
}

// meet waits until all ranks have come, and checks that they make the same call.
func (g *Group) meet(t *transfer) bool {
	team := g.team
	team.Reach()
	return team.Await(g.hasEnded) && g.sameCall(t)
}

func (g *Group) hasEnded() bool { return isClosed(g.ended) }

// sumSmall lets each rank combine all vectors by itself: one wait, and the same order on all.
func (g *Group) sumSmall(t *transfer) bool {
	team, data := g.team, t.vector.data
	phase := team.Phase() + 1
	copy(team.Small(team.Me(), phase), data)
	if !g.meet(t) {
		return false
	}
	op, typ := t.op.combines(), t.vector.typ
	kernel.Combine(op, typ, data, team.Small(0, phase)[:len(data)], team.Small(1, phase)[:len(data)])
	for m := 2; m < team.Members(); m++ {
		kernel.Reduce(op, typ, data, team.Small(m, phase)[:len(data)])
	}
	if t.op == Mean {
		kernel.Divide(typ, data, team.Members())
	}
	return true
}

// sumBlocks works through a long vector in blocks. Each rank puts its elements into its stage, combines its part of all stages into
// its own, and takes the parts of the others from theirs.
//
// While it waits for the others' parts it stages its next block already, in its other stage. That is free: who has staged block j has
// taken all parts of block j-1, and all have staged block j before any combines it.
func (g *Group) sumBlocks(t *transfer) bool {
	team, data := g.team, t.vector.data
	for lo := 0; lo < len(data); lo += shm.StageBytes {
		block := data[lo:min(lo+shm.StageBytes, len(data))]
		which := g.stage
		if lo == 0 {
			g.stageBlock(which, block)
		}
		g.stage = 1 - which
		team.Reach()
		if !team.Await(g.hasEnded) || lo == 0 && !g.sameCall(t) {
			return false
		}
		g.combinePart(t, which, block)
		team.Reach()
		if rest := data[lo+len(block):]; len(rest) > 0 {
			g.stageBlock(g.stage, rest[:min(len(rest), shm.StageBytes)])
		}
		if !team.Await(g.hasEnded) {
			return false
		}
		for m := range team.Members() {
			from, to := partOf(len(block), team.Members(), m)
			copy(block[from:to], team.Stage(m, which)[from:to])
		}
	}
	return true
}

// stageBlock shows the others what they need of a block: all but this rank's own part.
func (g *Group) stageBlock(which int, block []byte) {
	stage := g.team.Stage(g.team.Me(), which)
	from, to := partOf(len(block), g.team.Members(), g.team.Me())
	copy(stage, block[:from])
	copy(stage[to:], block[to:])
}

// combinePart makes the result of this rank's part of a block, in its own stage.
func (g *Group) combinePart(t *transfer, which int, block []byte) {
	team, op, typ := g.team, t.op.combines(), t.vector.typ
	from, to := partOf(len(block), team.Members(), team.Me())
	given := func(m int) []byte {
		if m == team.Me() {
			return block[from:to]
		}
		return team.Stage(m, which)[from:to]
	}
	result := team.Stage(team.Me(), which)[from:to]
	kernel.Combine(op, typ, result, given(0), given(1))
	for m := 2; m < team.Members(); m++ {
		kernel.Reduce(op, typ, result, given(m))
	}
	if t.op == Mean {
		kernel.Divide(typ, result, team.Members())
	}
}

// partUnit keeps parts apart by cache lines, and whole elements together.
const partUnit = 64

// partOf returns which bytes of a block a rank combines.
func partOf(size, world, rank int) (from, to int) {
	from, to = evenSplit(ceilDiv(size, partUnit), world, rank)
	return min(from*partUnit, size), min(to*partUnit, size)
}

// A card says what a rank calls: kind, call, type, operation, root, number of the call, length.
const cardUsed = 4 + 4 + 8 + 8

func putCard(card []byte, t *transfer, sequence uint64) {
	card[0], card[1], card[2], card[3] = byte(t.kind), byte(t.call), byte(t.vector.typ), byte(t.op)
	binary.NativeEndian.PutUint32(card[4:], uint32(t.root)) //nolint:gosec // a rank
	binary.NativeEndian.PutUint64(card[8:], sequence)
	binary.NativeEndian.PutUint64(card[16:], uint64(t.vector.Len())) //nolint:gosec // not negative
}

// sameCall checks that all ranks make the call of this one, and breaks the group if not. The card is that of the phase just reached.
func (g *Group) sameCall(t *transfer) bool {
	team := g.team
	mine := team.Card(team.Me(), team.Phase())
	for m := range team.Members() {
		theirs := team.Card(m, team.Phase())
		if bytes.Equal(theirs[:cardUsed], mine[:cardUsed]) {
			continue
		}
		want := t.header(g.sequence, 0)
		got := Header{
			Kind: Kind(theirs[0]), Call: Call(theirs[1]), Type: Type(theirs[2]), Op: Op(theirs[3]),
			Count:    uint64(binary.NativeEndian.Uint32(theirs[4:])),
			Sequence: binary.NativeEndian.Uint64(theirs[8:]), Length: binary.NativeEndian.Uint64(theirs[16:]),
		}
		g.fail(m, &MismatchError{Rank: m, Want: describe(&want, len(t.vector.data)), Got: describe(&got, int(got.Length)*got.Type.Size())}) //nolint:gosec // for a text
		return false
	}
	return true
}
