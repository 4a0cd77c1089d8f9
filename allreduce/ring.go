package allreduce

// layout says how one vector is cut for one call, and in which order its
// pieces travel. It is pure arithmetic: every rank computes the same layout
// from the same four numbers and so knows what each frame holds.
//
// The vector is cut into groups, each group into one segment per rank, and
// each segment into the same number of chunks. One chunk travels in one frame.
// A group is a complete small ring all-reduce; groups follow each other
// without a gap, so a rank works on a piece of memory that still lies in its
// cache, and holds no more than depth chunks for forwarding, however long the
// vector is.
type layout struct {
	length int // elements in the vector, >= 0
	world  int // ranks, >= 1
	chunk  int // largest number of elements in one chunk, >= 1
	groups int // >= 1
	perSeg int // chunks in one segment, 1..depth; the same for all segments
}

// newLayout cuts a vector of length elements for world ranks into chunks of at
// most chunk elements and segments of at most depth chunks. The cut is even, so
// a vector shorter than the world has segments of one and of no element.
func newLayout(length, world, chunk, depth int) layout {
	groups := max(1, ceilDiv(length, world*chunk*depth))
	segment := ceilDiv(ceilDiv(length, groups), world)
	return layout{
		length: length,
		world:  world,
		chunk:  chunk,
		groups: groups,
		perSeg: max(1, ceilDiv(segment, chunk)),
	}
}

// steps returns the ring steps in one group: world-1 that add (reduce-scatter)
// and world-1 that copy (all-gather).
func (l layout) steps() int { return 2 * (l.world - 1) }

// frames returns how many frames each rank sends, and receives, in one call.
func (l layout) frames() int { return l.groups * l.steps() * l.perSeg }

// piece is the place of one frame in the order of a call.
type piece struct {
	group, step, chunk int
}

// piece returns the place of the frame with this index, 0 <= index < frames().
func (l layout) piece(index int) piece {
	perGroup := l.steps() * l.perSeg
	rest := index % perGroup
	return piece{group: index / perGroup, step: rest / l.perSeg, chunk: rest % l.perSeg}
}

// bounds returns the half-open range of elements that a chunk of a segment
// covers. It can be empty.
func (l layout) bounds(segment int, p piece) (lo, hi int) {
	groupLo, groupHi := evenSplit(l.length, l.groups, p.group)
	segLo, segHi := evenSplit(groupHi-groupLo, l.world, segment)
	chunkLo, chunkHi := evenSplit(segHi-segLo, l.perSeg, p.chunk)
	start := groupLo + segLo
	return start + chunkLo, start + chunkHi
}

// reduces says whether a frame received at this step is added (true) or is
// already a final sum to be copied (false).
func (l layout) reduces(step int) bool { return step < l.world-1 }

// completes says whether the addition at this step gives the final sum.
func (l layout) completes(step int) bool { return step == l.world-2 }

// forwards says whether what was received at this step is sent on at the next.
func (l layout) forwards(step int) bool { return step+1 < l.steps() }

// sendSegment returns the segment that a rank sends at a step.
func sendSegment(rank, step, world int) int { return mod(rank-step, world) }

// recvSegment returns the segment that a rank receives at a step: the one that
// its previous rank sends at that step.
func recvSegment(rank, step, world int) int { return mod(rank-step-1, world) }

// evenSplit returns part i of n elements cut into parts; the first n%parts
// parts are one longer than the rest.
func evenSplit(n, parts, i int) (lo, hi int) {
	size, longer := n/parts, n%parts
	lo = i*size + min(i, longer)
	hi = lo + size
	if i < longer {
		hi++
	}
	return lo, hi
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func mod(a, n int) int { return ((a % n) + n) % n }
