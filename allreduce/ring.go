package allreduce

// layout says how one vector is cut for one call, and in which order its
// pieces travel. It is pure arithmetic: every rank computes the same layout
// from the same numbers and so knows what each frame holds.
//
// The vector is cut into one segment per rank, each segment into groups, and
// each group into the same number of chunks. One chunk travels in one frame.
// The same group of all segments is a complete small ring all-reduce; groups
// follow each other without a gap, so a rank works on pieces of memory that
// still lie in its cache, and holds no more than depth chunks for forwarding,
// however long the vector is.
//
// Segment r ends its way through the first world-1 steps (reduce-scatter) at
// rank r, and begins there its way through the last world-1 (all-gather).
type layout struct {
	length int // elements in the vector, >= 0
	world  int // ranks, >= 1
	chunk  int // largest number of elements in one chunk, >= 1
	groups int // >= 1
	perSeg int // chunks in one group of one segment, 1..depth; the same for all
	first  int // the first step: 0, or world-1 for an all-gather
	last   int // the step after the last: 2(world-1), or world-1 for a reduce-scatter
}

// newLayout cuts a vector of length elements for world ranks into chunks of at
// most chunk elements and groups of at most depth chunks. The cut is even, so
// a vector shorter than the world has segments of one and of no element. Its
// steps are those of an all-reduce.
func newLayout(length, world, chunk, depth int) layout {
	segment := ceilDiv(length, world)
	groups := max(1, ceilDiv(segment, chunk*depth))
	return layout{
		length: length,
		world:  world,
		chunk:  chunk,
		groups: groups,
		perSeg: max(1, ceilDiv(ceilDiv(segment, groups), chunk)),
		last:   2 * (world - 1),
	}
}

// scatters keeps the steps that reduce; gathers those that copy.
func (l layout) scatters() layout { l.last = l.world - 1; return l }
func (l layout) gathers() layout  { l.first = l.world - 1; return l }

// steps returns the ring steps in one group.
func (l layout) steps() int { return l.last - l.first }

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
	return piece{group: index / perGroup, step: l.first + rest/l.perSeg, chunk: rest % l.perSeg}
}

// bounds returns the half-open range of elements that a chunk of a segment
// covers. It can be empty.
func (l layout) bounds(segment int, p piece) (lo, hi int) {
	segLo, segHi := evenSplit(l.length, l.world, segment)
	groupLo, groupHi := evenSplit(segHi-segLo, l.groups, p.group)
	chunkLo, chunkHi := evenSplit(groupHi-groupLo, l.perSeg, p.chunk)
	start := segLo + groupLo
	return start + chunkLo, start + chunkHi
}

// begins says whether what is sent at this step is the rank's own.
func (l layout) begins(step int) bool { return step == l.first }

// reduces says whether a frame received at this step is added (true) or is
// already a final result to be copied (false).
func (l layout) reduces(step int) bool { return step < l.world-1 }

// completes says whether the addition at this step gives the final result.
func (l layout) completes(step int) bool { return step == l.world-2 }

// forwards says whether what was received at this step is sent on at the next.
func (l layout) forwards(step int) bool { return step+1 < l.last }

// sendSegment returns the segment that a rank sends at a step.
func sendSegment(rank, step, world int) int { return mod(rank-step-1, world) }

// recvSegment returns the segment that a rank receives at a step: the one that
// its previous rank sends at that step.
func recvSegment(rank, step, world int) int { return mod(rank-step-2, world) }

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
