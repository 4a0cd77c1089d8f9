package checkpoint

import (
	"strconv"
	"sync"
)

// recall is what a Store remembers of the tensors that it has saved, by which the next save sees what has not changed.
type recall struct {
	mu sync.Mutex
	// saved is by rank and world size, as of the last save of each; a job's rank has a Store of its own, tests do not.
	saved map[[2]int]map[string]known
	// resumed is the checkpoint that was found last, and base what it holds, made when first asked for: a job that has just begun has saved nothing.
	resumed *Manifest
	base    map[string]known
}

// maxRecalledRanks bounds recall.saved.
const maxRecalledRanks = 64

// known is what is known of a tensor's box at its last save.
type known struct {
	sample  Sum // of some of its bytes; only if sampled
	sampled bool
	sum     Sum // of all of them; only if summed
	summed  bool
	places  []place // where they lie, the newest first; at most maxPlaces
	bases   []place // earlier whole copies that it may be written as a difference to, the newest first; at most maxPlaces
	deltas  int     // how many saves in a row were differences
}

// maxPlaces is how many places of a tensor are known: while the last saves are not committed yet, as where they come from nodes' own disks in
// the background, one before them may be.
const maxPlaces = 4

// place is where a tensor's bytes lie: in a file, of which the one span covers them.
type place struct {
	file Origin
	at   int64
}

// boxKey names a box of a tensor, with its type.
func boxKey(t *TensorInfo) string {
	b := make([]byte, 0, len(t.Name)+24*len(t.Global)+16)
	b = append(append(b, t.Name...), 0)
	b = append(append(b, t.DType...), 0)
	for i := range t.Global {
		b = append(strconv.AppendInt(b, t.Global[i], 36), ' ')
		b = append(strconv.AppendInt(b, t.Offset[i], 36), ' ')
		b = append(strconv.AppendInt(b, t.Shape[i], 36), ' ')
	}
	return string(b)
}

// resumeFrom notes a checkpoint that a save may refer to when nothing has been saved yet.
func (s *Store) resumeFrom(m Manifest) {
	if m.WorldSize == 0 {
		return
	}
	s.recall.mu.Lock()
	defer s.recall.mu.Unlock()
	s.recall.resumed, s.recall.base = &m, nil
}

// lastSaved gives what is known of the tensors of a rank: as it saved them last, or as they are in the checkpoint that was resumed from.
// The map is not changed any more.
func (s *Store) lastSaved(rank, world int) map[string]known {
	r := &s.recall
	r.mu.Lock()
	defer r.mu.Unlock()
	if saved, ok := r.saved[[2]int{rank, world}]; ok {
		return saved
	}
	if r.base == nil && r.resumed != nil {
		r.base = knownOf(r.resumed)
	}
	return r.base
}

// setSaved replaces what is known of a rank's tensors.
func (s *Store) setSaved(rank, world int, saved map[string]known) {
	r := &s.recall
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.saved) >= maxRecalledRanks || r.saved == nil {
		r.saved = map[[2]int]map[string]known{}
	}
	r.saved[[2]int{rank, world}] = saved
	r.resumed, r.base = nil, nil
}

// knownOf gives what a manifest tells of its tensors.
func knownOf(m *Manifest) map[string]known {
	out := map[string]known{}
	for i := range m.Shards {
		sh := &m.Shards[i]
		for j := range sh.Tensors {
			t := &sh.Tensors[j]
			if t.size() == 0 || t.Sum == nil && t.DType != BFloat16 {
				continue
			}
			var k known
			p := sh.place(m.Ref(), m.WorldSize, m.ChunkBytes, t)
			switch {
			case t.Base > 0:
				k.bases, k.deltas = []place{p}, 1 // or more
			default:
				k.bases, k.places = []place{p}, []place{p}
			}
			if t.Sum != nil {
				k.sum, k.summed = *t.Sum, true
			}
			out[boxKey(t)] = k
		}
	}
	return out
}

// place gives where a tensor's bytes lie, flat: never a reference to a reference. Of one that is stored as a difference it is its base's place.
func (i *ShardInfo) place(ref Ref, worldSize int, chunkBytes int64, t *TensorInfo) place {
	p := place{at: t.FileOffset}
	switch {
	case t.Base > 0:
		p.file, p.at = i.Origins[t.Base-1], t.BaseOffset
	case t.From > 0:
		p.file = i.Origins[t.From-1]
	default:
		p.file = Origin{
			Epoch: ref.Epoch, Step: ref.Step, WorldSize: worldSize, Rank: i.Rank, Bytes: i.Bytes, ChunkBytes: chunkBytes,
			Spans: []Span{{Sums: i.Chunks}}, Encoded: i.Encoded,
		}
	}
	first, last := chunksOf(p.file.Encoded, p.at, t.size(), p.file.ChunkBytes)
	span := Span{First: int(first), Sums: make([]Sum, 0, last-first+1)}
	for c := first; c <= last; c++ {
		sum, _ := p.file.sum(int(c)) // checked with the manifest
		span.Sums = append(span.Sums, sum)
	}
	p.file.Spans = []Span{span}
	return p
}

// Samples of a tensor: so many stretches of so many bytes, evenly over it. What training changes, it changes nearly everywhere; and
// where the samples are the same, all bytes are summed before anything is believed.
const (
	sampleCount = 16
	sampleBytes = 256
)

// sampleOf sums some of the bytes.
func sampleOf(data []byte) Sum {
	if len(data) <= sampleCount*sampleBytes {
		return sumOf(data)
	}
	var some [sampleCount * sampleBytes]byte
	for i := range sampleCount {
		at := (len(data) - sampleBytes) / (sampleCount - 1) * i
		copy(some[i*sampleBytes:(i+1)*sampleBytes], data[at:])
	}
	return sumOf(some[:])
}
