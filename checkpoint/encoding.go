package checkpoint

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
)

// Compression names how the chunks of a shard's file are made smaller.
type Compression string

// The kinds of compression.
const (
	NoCompression Compression = ""
	// Zstd is Zstandard at its fastest level, of numbers' bytes sorted into planes (all first bytes, all second ones): the exponents of weights
	// are alike, their mantissas are not. A chunk that does not get smaller stays as it is.
	Zstd Compression = "zstd"
)

// Encoding says how a shard's file is stored, where that is not byte for byte: its header page as it is, then one frame for each chunk of
// what it stands for (its header included), one behind the other, then zeros up to a multiple of Align. Checksums are of the file as stored.
type Encoding struct {
	Compress Compression `json:"compress,omitempty"`
	Key      string      `json:"key,omitempty"`  // Key.ID of the key that it is encrypted with; "": it is not
	Salt     []byte      `json:"salt,omitempty"` // of the file's own key
	Bytes    int64       `json:"bytes"`          // that the file stands for
	Frames   []int64     `json:"frames"`         // stored bytes of each

	starts []int64 // where each frame begins, and the end of the last one; made by check
}

// Frames are a byte that tells the kind, and the content; encrypted, with a tag behind.
const (
	frameRaw  = 0
	frameZstd = 1
	// Zstandard of 2, 4, 8 planes has that number as its kind.

	sealOverhead = 16
	saltBytes    = 32
)

// maxFrame is the longest frame of a chunk: one that is not compressed.
func maxFrame(chunkBytes int64) int64 { return 1 + chunkBytes + sealOverhead }

// check says what is wrong with the encoding of a file of stored bytes, and finds the frames.
func (e *Encoding) check(stored, chunkBytes int64) error {
	switch {
	case e.Compress != NoCompression && e.Compress != Zstd:
		return fmt.Errorf("%w: compression %.40q is not known: use the release that wrote it", ErrInvalid, e.Compress)
	case e.Compress == NoCompression && e.Key == "":
		return fmt.Errorf("%w: an encoding that neither compresses nor encrypts", ErrInvalid)
	case e.Key != "" && (len(e.Key) != keyIDBytes*2 || len(e.Salt) != saltBytes), e.Key == "" && len(e.Salt) > 0:
		return fmt.Errorf("%w: key %.40q with a salt of %d bytes", ErrInvalid, e.Key, len(e.Salt))
	case e.Bytes < Align || e.Bytes%Align != 0 || chunkCount(e.Bytes, chunkBytes) != int64(len(e.Frames)):
		return fmt.Errorf("%w: %d bytes in %d frames of %d", ErrInvalid, e.Bytes, len(e.Frames), chunkBytes)
	}
	starts := make([]int64, 1, len(e.Frames)+1)
	starts[0] = Align
	for i, n := range e.Frames {
		if n < 1 || n > maxFrame(chunkBytes) || n > stored-starts[i] {
			return fmt.Errorf("%w: frame %d has %d bytes and begins at %d of %d", ErrInvalid, i, n, starts[i], stored)
		}
		starts = append(starts, starts[i]+n)
	}
	if end := starts[len(e.Frames)]; alignUp(end) != stored {
		return fmt.Errorf("%w: frames end at %d of %d bytes", ErrInvalid, end, stored)
	}
	if e.starts == nil {
		e.starts = starts
	}
	return nil
}

// stored gives the stretch of the stored file that holds what lies from at on, size bytes, at least 1.
func (e *Encoding) stored(at, size, chunkBytes int64) (first, end int64) {
	return e.starts[at/chunkBytes], e.starts[(at+size-1)/chunkBytes+1]
}

// logical gives how many bytes the shard's file stands for: tensors lie in these.
func (i *ShardInfo) logical() int64 { return logicalBytes(i.Bytes, i.Encoded) }

func (b *Origin) logical() int64 { return logicalBytes(b.Bytes, b.Encoded) }

func logicalBytes(stored int64, e *Encoding) int64 {
	if e != nil {
		return e.Bytes
	}
	return stored
}

// chunksOf gives the first and the last stored chunk of a file that hold what lies from at on, size bytes, at least 1.
func chunksOf(e *Encoding, at, size, chunkBytes int64) (first, last int64) {
	end := at + size
	if e != nil {
		at, end = e.stored(at, size, chunkBytes)
	}
	return at / chunkBytes, (end - 1) / chunkBytes
}

// covered says whether all chunks from first to last are in the spans, which rise.
func covered(spans []Span, first, last int64) bool {
	i := sort.Search(len(spans), func(i int) bool { return int64(spans[i].First) > first }) - 1
	return i >= 0 && last < int64(spans[i].First+len(spans[i].Sums))
}

// equal says whether two encodings, of which either may be nil, are the same.
func (e *Encoding) equal(o *Encoding) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.Compress == o.Compress && e.Key == o.Key && e.Bytes == o.Bytes && bytes.Equal(e.Salt, o.Salt) && slices.Equal(e.Frames, o.Frames)
}

// KeyID gives the id of the key that shards are encrypted with, "" if none is. Of several keys it gives one.
func (m *Manifest) KeyID() string {
	for i := range m.Shards {
		if e := m.Shards[i].Encoded; e != nil && e.Key != "" {
			return e.Key
		}
	}
	return ""
}
