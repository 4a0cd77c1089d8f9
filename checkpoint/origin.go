package checkpoint

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// Limits of references.
const (
	// MaxOrigins is the most files of earlier checkpoints that one shard may refer to: after a change of world size a
	// rank's tensors may lie in the files of many ranks.
	MaxOrigins = 4096
	// maxSpans is the most stretches of one origin.
	maxSpans = MaxTensors
)

// Origin describes a shard's file of an earlier checkpoint that holds tensors of this one, whose bytes have not changed since. It always
// names the file that holds the bytes, never one that refers on, and brings the checksums, so that nothing else of the
// earlier checkpoint need be read. Its file lies in the earlier checkpoint's directory, or in one of that name inside this one's.
type Origin struct {
	Epoch      uint64 `json:"epoch"` // of the checkpoint that wrote the file; with Step below the one that refers to it
	Step       uint64 `json:"step"`
	WorldSize  int    `json:"world_size"`
	Rank       int    `json:"rank"`
	Bytes      int64  `json:"bytes"` // of the whole file
	ChunkBytes int64  `json:"chunk_bytes"`
	Spans      []Span `json:"spans"` // rising, apart from each other
	// Encoded says how it is stored; nil: byte for byte.
	Encoded *Encoding `json:"encoded,omitempty"`
}

// Span is a stretch of a file's chunks, with their checksums.
type Span struct {
	First int   `json:"first"`
	Sums  []Sum `json:"xxh3_128"`
}

// Ref gives the checkpoint that the file is of.
func (b *Origin) Ref() Ref { return Ref{Epoch: b.Epoch, Step: b.Step} }

// name gives the file's name, below the directory of the checkpoint that refers to it or below the job's own.
func (b *Origin) name() string { return b.Ref().String() + "/" + shardName(b.Rank, b.WorldSize) }

// bytesUsed gives how many bytes of the file are referred to, in whole chunks.
func (b *Origin) bytesUsed() int64 {
	n := int64(0)
	for _, s := range b.Spans {
		end := int64(s.First+len(s.Sums)) * b.ChunkBytes
		n += min(end, b.Bytes) - int64(s.First)*b.ChunkBytes
	}
	return n
}

// sum gives the checksum of a chunk, and false if it is not among those referred to.
func (b *Origin) sum(chunk int) (Sum, bool) { return sumIn(b.Spans, chunk) }

// sumIn looks a chunk up in spans that rise.
func sumIn(spans []Span, chunk int) (Sum, bool) {
	i := sort.Search(len(spans), func(i int) bool { return spans[i].First > chunk }) - 1
	if i < 0 || chunk >= spans[i].First+len(spans[i].Sums) {
		return Sum{}, false
	}
	return spans[i].Sums[chunk-spans[i].First], true
}

// check says what is wrong with a description that a checkpoint owner gives. That the source is older than its user makes a
// circle impossible.
func (b *Origin) check(owner Ref) error {
	if err := checkIdentity("x", b.Epoch, b.WorldSize, b.ChunkBytes); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	switch {
	case b.Ref().Compare(owner) >= 0:
		return fmt.Errorf("%w: %s refers to %s: only an earlier checkpoint can be referred to", ErrInvalid, owner, b.Ref())
	case b.Rank < 0 || b.Rank >= b.WorldSize:
		return fmt.Errorf("%w: origin of rank %d of %d", ErrInvalid, b.Rank, b.WorldSize)
	case b.Bytes < Align || b.Bytes%Align != 0 || b.Bytes > math.MaxInt64-MaxChunkBytes:
		return fmt.Errorf("%w: origin %s has %d bytes, want a multiple of %d", ErrInvalid, b.name(), b.Bytes, Align)
	case len(b.Spans) == 0 || len(b.Spans) > maxSpans:
		return fmt.Errorf("%w: origin %s has %d spans, want 1 to %d", ErrInvalid, b.name(), len(b.Spans), maxSpans)
	}
	chunks := chunkCount(b.Bytes, b.ChunkBytes)
	next := int64(0)
	for _, s := range b.Spans {
		n := int64(len(s.Sums))
		if n == 0 || int64(s.First) < next || int64(s.First) > chunks-n {
			return fmt.Errorf("%w: origin %s: %d chunks from %d on are out of order, or not in the file", ErrInvalid, b.name(), n, s.First)
		}
		next = int64(s.First) + n
	}
	if b.Encoded != nil {
		if err := b.Encoded.check(b.Bytes, b.ChunkBytes); err != nil {
			return fmt.Errorf("origin %s: %w", b.name(), err)
		}
	}
	return nil
}

// checkPlace says whether bytes from at on lie in the file, below its header, with a checksum for each of their chunks.
func (b *Origin) checkPlace(at, size int64) error {
	if at < Align || at%Align != 0 || at > b.logical() || size > b.logical()-at {
		return fmt.Errorf("%w: %d bytes at %d do not fit into the %d of origin %s", ErrInvalid, size, at, b.logical(), b.name())
	}
	if size == 0 {
		return nil
	}
	if first, last := chunksOf(b.Encoded, at, size, b.ChunkBytes); !covered(b.Spans, first, last) {
		return fmt.Errorf("%w: origin %s: chunks %d to %d have no checksums", ErrInvalid, b.name(), first, last)
	}
	return nil
}

// mergeSpans puts a file's spans in order and joins those that meet.
func mergeSpans(spans []Span) []Span {
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b Span) int { return a.First - b.First })
	var out []Span
	own := false // the last one's sums are a copy, and may grow
	for _, s := range spans {
		n := len(out)
		if n == 0 || s.First > out[n-1].First+len(out[n-1].Sums) {
			out, own = append(out, s), false
			continue
		}
		last := &out[n-1]
		if skip := last.First + len(last.Sums) - s.First; skip < len(s.Sums) {
			if !own {
				last.Sums, own = slices.Clone(last.Sums), true
			}
			last.Sums = append(last.Sums, s.Sums[skip:]...)
		}
	}
	return out
}

// Refs gives the earlier checkpoints that this one refers to, the oldest first.
func (m *Manifest) Refs() []Ref {
	var refs []Ref
	for i := range m.Shards {
		for j := range m.Shards[i].Origins {
			if r := m.Shards[i].Origins[j].Ref(); !slices.Contains(refs, r) {
				refs = append(refs, r)
			}
		}
	}
	slices.SortFunc(refs, Ref.Compare)
	return refs
}

// ReferredBytes gives how many bytes of earlier checkpoints' files belong to this one, in whole chunks.
func (m *Manifest) ReferredBytes() int64 {
	n := int64(0)
	for _, b := range m.blobs() {
		if b.from != nil {
			n += b.from.bytesUsed()
		}
	}
	return n
}

// ReadBytes gives how many bytes a reader of all of it reads: its own, and what it refers to.
func (m *Manifest) ReadBytes() int64 { return m.Bytes() + m.ReferredBytes() }
