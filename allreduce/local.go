package allreduce

import (
	"bytes"
	"encoding/binary"

	"github.com/gangline/gangline/allreduce/internal/point"
	"github.com/gangline/gangline/allreduce/kernel"
	"github.com/gangline/gangline/allreduce/shm"
)

// Share lets the group use memory that all its ranks share, from the next call on: the team's members are the ranks in their order.
// Call it on every rank or on none, before the first call or after the same one. The group owns the team and closes it. How a lost
// rank is found stays what it was: by the links.
func (g *Group) Share(team *shm.Team) { g.team = team }

// Alloc returns zeroed memory for vectors of all-reduces: in memory that all ranks share, if they do, where a call on long vectors
// of all ranks needs no copies; ordinary memory if not. Give it back with Free before Close, which ends shared memory. It is safe for
// concurrent use. An error says that the machine's shared memory is full.
//
// Once the group has broken the memory is of no use: a rank that hung in the middle of a call writes its part of the result to it when it wakes. Free it.
func (g *Group) Alloc(bytes int) ([]byte, error) {
	if g.team == nil {
		return make([]byte, bytes), nil
	}
	return g.team.Alloc(bytes)
}

// Free gives memory of Alloc back. No rank may be in a call on it.
func (g *Group) Free(b []byte) {
	if g.team != nil {
		g.team.Free(b)
	}
}

// shares says whether a call goes through shared memory.
func (g *Group) shares(t *transfer) bool {
	return g.team != nil && !g.apart && (t.kind == KindBarrier || t.call == callAllReduce)
}

// runShared makes one call in shared memory. t is complete afterwards unless the group has ended.
func (g *Group) runShared(t *transfer) {
	t.toSend, t.toReceive, t.sent, t.received = 1, 0, 0, 0 // the call as a whole
	if g.combineShared(t) {
		t.sent = 1
	}
}

// combineShared combines the vectors of all members of the team, or lets them meet. It reports whether to go on.
func (g *Group) combineShared(t *transfer) bool {
	team, data := g.team, t.vector.data
	own, seen := team.Find(data)
	putCard(team.Card(team.Me(), team.Phase()+1), t, g.sequence, own, seen)
	g.at(point.CardShown)
	switch {
	case t.kind == KindBarrier:
		return g.meet(t)
	case len(data) <= shm.SmallBytes:
		return g.sumSmall(t)
	default:
		return g.sumLong(t, seen)
	}
}

// meet waits until all ranks have come, and checks that they make the same call.
func (g *Group) meet(t *transfer) bool {
	team := g.team
	team.Reach()
	if !team.Await(g.hasEnded) {
		return false
	}
	g.at(point.Met)
	return g.sameCall(t)
}

// sumSmall lets each rank combine all vectors by itself: one wait, and the same order on all.
func (g *Group) sumSmall(t *transfer) bool {
	team, data := g.team, t.vector.data
	phase := team.Phase() + 1
	copy(team.Small(team.Me(), phase), data)
	g.at(point.Staged)
	if !g.meet(t) {
		return false
	}
	g.given, g.taking = g.given[:0], append(g.taking[:0], data)
	for m := range team.Members() {
		g.given = append(g.given, team.Small(m, phase))
	}
	g.combineAll(t, 0, len(data))
	return true
}

// sumBlocks works through a long vector in blocks. Each rank puts its elements into its stage, combines its part of all stages into
// its own, and takes the parts of the others from theirs.
//
// The first block is staged, and all have met. While it waits for the others' parts it stages its next block already, in its other stage. That is free: who has staged block j has
// taken all parts of block j-1, and all have staged block j before any combines it.
func (g *Group) sumBlocks(t *transfer) bool {
	team, data := g.team, t.vector.data
	for lo := 0; lo < len(data); lo += shm.StageBytes {
		block := data[lo:min(lo+shm.StageBytes, len(data))]
		which := g.stage
		g.stage = 1 - which
		if lo > 0 {
			team.Reach()
			if !team.Await(g.hasEnded) {
				return false
			}
		}
		g.combinePart(t, which, block)
		g.at(point.Combined)
		team.Reach()
		if rest := data[lo+len(block):]; len(rest) > 0 {
			g.stageBlock(g.stage, rest[:min(len(rest), shm.StageBytes)])
		}
		if !team.Await(g.hasEnded) {
			return false
		}
		for m := range team.Members() {
			if m != team.Me() {
				from, to := partOf(len(block), team.Members(), m)
				copy(block[from:to], team.Stage(m, which)[from:to])
			}
		}
		g.at(point.Copied)
	}
	return true
}

// sumLong looks where the vectors of all ranks lie. If all lie in shared memory themselves nothing is staged; a rank whose vector does
// not shows its first block before the others know, and one whose vector does has to, if others' do not.
func (g *Group) sumLong(t *transfer, seen bool) bool {
	team, data := g.team, t.vector.data
	first := data[:min(len(data), shm.StageBytes)]
	if !seen {
		g.stageBlock(g.stage, first)
	}
	if !g.meet(t) {
		return false
	}
	g.seen = g.seen[:0]
	for m := range team.Members() {
		at, there := cardPlace(team.Card(m, team.Phase()))
		if !there {
			continue
		}
		v, err := team.Seen(m, at, len(data))
		if err != nil {
			g.fail(m, err)
			return false
		}
		g.seen = append(g.seen, v)
	}
	switch len(g.seen) {
	case team.Members():
		return g.sumSeen(t)
	case 0:
		return g.sumBlocks(t)
	default:
		if seen {
			g.stageBlock(g.stage, first)
		}
		return g.again() && g.sumBlocks(t)
	}
}

// sumSeen combines vectors that lie in shared memory themselves: each rank its part of all vectors, which all get it.
func (g *Group) sumSeen(t *transfer) bool {
	from, to := partOf(len(t.vector.data), g.team.Members(), g.team.Me())
	g.given, g.taking = append(g.given[:0], g.seen...), append(g.taking[:0], g.seen...)
	g.combineAll(t, from, to)
	return g.again()
}

// combineAll makes a stretch of the result from what is given, which stands in the order of ranks, and forgets about the vectors: some are the caller's.
func (g *Group) combineAll(t *transfer, from, to int) {
	if g.room == nil {
		g.room = make([]byte, roomBytes)
	}
	all := kernel.All{Op: t.op.combines(), Type: t.vector.typ, From: g.given, To: g.taking, Room: g.room}
	if t.op == Mean {
		all.Divide = len(g.given)
	}
	all.Combine(from, to)
	clear(g.given)
	clear(g.taking)
}

// roomBytes is how much is combined at a time where it takes more than one pass: with what it comes from it stays in a core's first cache.
const roomBytes = 4 << 10

// again lets all ranks wait for each other once more in the same call.
func (g *Group) again() bool {
	g.team.Reach()
	return g.team.Await(g.hasEnded)
}

// stageBlock shows the others what they need of a block: all but this rank's own part.
func (g *Group) stageBlock(which int, block []byte) {
	stage := g.team.Stage(g.team.Me(), which)
	from, to := partOf(len(block), g.team.Members(), g.team.Me())
	copy(stage, block[:from])
	copy(stage[to:], block[to:])
	g.at(point.Staged)
}

// combinePart makes the result of this rank's part of a block, in its own stage for the others and in its block.
func (g *Group) combinePart(t *transfer, which int, block []byte) {
	team := g.team
	g.given, g.taking = g.given[:0], append(g.taking[:0], block, team.Stage(team.Me(), which))
	for m := range team.Members() {
		if m == team.Me() {
			g.given = append(g.given, block)
			continue
		}
		g.given = append(g.given, team.Stage(m, which))
	}
	from, to := partOf(len(block), team.Members(), team.Me())
	g.combineAll(t, from, to)
}

// partUnit keeps parts apart by cache lines, and whole elements together.
const partUnit = 64

// partOf returns which bytes of a block a rank combines.
func partOf(size, world, rank int) (from, to int) {
	from, to = evenSplit(ceilDiv(size, partUnit), world, rank)
	return min(from*partUnit, size), min(to*partUnit, size)
}

// A card says what a rank calls: kind, call, type, operation, form on the wire, number of the call, length, mark. All ranks' must be equal so far. Then
// comes where the vector lies in the rank's room of shared memory, plus one; 0: elsewhere.
const (
	cardUsed = 4 + 4 + 8 + 8 + 8
	cardSeen = cardUsed + 8
)

// cardPlace returns where a rank's vector lies in its room, if it does.
func cardPlace(card []byte) (at int, seen bool) {
	v := binary.NativeEndian.Uint64(card[cardUsed:])
	return int(v - 1), v > 0 //nolint:gosec // Seen checks it
}

func putCard(card []byte, t *transfer, sequence uint64, own int, seen bool) {
	place := uint64(0)
	if seen {
		place = uint64(own) + 1 //nolint:gosec // not negative
	}
	binary.NativeEndian.PutUint64(card[cardUsed:cardSeen], place)
	card[0], card[1], card[2], card[3] = byte(t.kind), byte(t.call), byte(t.vector.typ), byte(t.op)
	binary.NativeEndian.PutUint32(card[4:], uint32(t.wire))
	binary.NativeEndian.PutUint64(card[8:], sequence)
	binary.NativeEndian.PutUint64(card[16:], uint64(t.vector.Len())) //nolint:gosec // not negative
	binary.NativeEndian.PutUint64(card[24:], t.mark)
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
			Kind: Kind(theirs[0]), Call: Call(theirs[1]), Type: Type(theirs[2]), Op: Op(theirs[3]), Wire: Wire(theirs[4]),
			Count:    binary.NativeEndian.Uint64(theirs[24:]),
			Sequence: binary.NativeEndian.Uint64(theirs[8:]), Length: binary.NativeEndian.Uint64(theirs[16:]),
		}
		g.fail(m, &MismatchError{Rank: m, Want: describe(&want, len(t.vector.data)), Got: describe(&got, int(got.Length)*got.Type.Size())}) //nolint:gosec // for a text
		return false
	}
	return true
}
