package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"
)

// blob is one file of a checkpoint, whatever it holds.
type blob struct {
	name       string // below the checkpoint's directory
	bytes      int64
	chunkBytes int64
	sums       []Sum      // of all chunks; of an origin nil
	shard      *ShardInfo // nil for a program's own file and for an origin
	from       *Origin    // a file of an earlier checkpoint; nil for this one's own
	encoded    *Encoding  // of a shard's file that is not stored byte for byte

	// Whose shard it is, of shards alone.
	ref         Ref
	rank, world int
}

// blobs lists the files of a checkpoint, its own first. A file that several ranks refer to is there once.
func (m *Manifest) blobs() []blob {
	all := make([]blob, 0, len(m.Shards)+len(m.Files))
	for i := range m.Shards {
		sh := &m.Shards[i]
		all = append(all, blob{
			name: sh.File, bytes: sh.Bytes, chunkBytes: m.ChunkBytes, sums: sh.Chunks, shard: sh,
			encoded: sh.Encoded, ref: m.Ref(), rank: sh.Rank, world: m.WorldSize,
		})
	}
	for i := range m.Files {
		f := &m.Files[i]
		all = append(all, blob{name: f.Name, bytes: f.Bytes, chunkBytes: m.ChunkBytes, sums: f.Chunks})
	}
	return append(all, m.origins()...)
}

// origins lists the files of earlier checkpoints.
func (m *Manifest) origins() []blob {
	var all []blob
	at := map[string]int{}
	for i := range m.Shards {
		for j := range m.Shards[i].Origins {
			b := &m.Shards[i].Origins[j]
			if k, again := at[b.name()]; again {
				both := *all[k].from
				both.Spans = mergeSpans(append(both.Spans[:len(both.Spans):len(both.Spans)], b.Spans...))
				all[k].from = &both
				continue
			}
			at[b.name()] = len(all)
			all = append(all, blobOf(b))
		}
	}
	return all
}

// blobOf gives an origin.
func blobOf(b *Origin) blob {
	return blob{name: b.name(), bytes: b.Bytes, chunkBytes: b.ChunkBytes, from: b, encoded: b.Encoded, ref: b.Ref(), rank: b.Rank, world: b.WorldSize}
}

// spans gives the chunks that belong to the checkpoint: all, or those referred to.
func (b *blob) spans() []Span {
	if b.from != nil {
		return b.from.Spans
	}
	return []Span{{Sums: b.sums}}
}

// sum gives the checksum of a chunk, and false if it has none, being of no use to this checkpoint.
func (b *blob) sum(chunk int) (Sum, bool) {
	if b.from != nil {
		return b.from.sum(chunk)
	}
	return b.sums[chunk], true
}

// open opens a file of a checkpoint and says where it was. An origin lies in its own checkpoint's directory, which a
// collection may take out of sight for a moment before it sees who refers to it; or this checkpoint has a copy of its own.
func (s *Store) open(m *Manifest, b *blob) (f ReadFile, path string, err error) {
	path = m.Dir + "/" + b.name
	if f, path, ok := s.openWhole(m, b); ok {
		return f, path, nil
	}
	if f, path, ok := s.openNear(m, b); ok {
		return f, path, nil
	}
	f, err = s.fs.Open(path)
	if b.from == nil || err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, path, err
	}
	base := b.from.Ref().String()
	for _, dir := range []string{base, base + deadSuffix, base + sealedSuffix, base} {
		there := dir + "/" + shardName(b.from.Rank, b.from.WorldSize)
		if f, err = s.fs.Open(there); !errors.Is(err, fs.ErrNotExist) {
			return f, there, err
		}
	}
	return nil, path, corrupt(base+"/"+shardName(b.from.Rank, b.from.WorldSize), -1, fmt.Sprintf("%d bytes", b.bytes), "no such file")
}

// lookForOrigins checks that the files which a checkpoint refers to are there, with their sizes.
func (s *Store) lookForOrigins(m *Manifest) error {
	for _, b := range m.origins() {
		f, path, err := s.open(m, &b)
		if err != nil {
			return err
		}
		size, err := f.Size()
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if size != b.bytes {
			return wrongSize(path, b.bytes, size, true)
		}
	}
	return nil
}

// verifySpan is how many chunks one worker checks in a row: 128 MiB at the default size, long enough for read-ahead.
const verifySpan = 32

// Verify reads every byte of a checkpoint, also what it refers to, and compares the checksums; it stops at the first damage, a *CorruptError.
func (s *Store) Verify(ctx context.Context, m Manifest) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(s.verifyWorkers)
	for _, b := range m.blobs() {
		for _, span := range b.spans() {
			end := span.First + len(span.Sums)
			for first := span.First; first < end && gctx.Err() == nil; first += verifySpan {
				group.Go(func() error { return s.verifyChunks(gctx, &m, b, first, min(first+verifySpan, end)) })
			}
		}
	}
	err := errors.Join(group.Wait(), ctx.Err())
	s.setVerified(m.Dir, err == nil)
	return err
}

// verifyChunks checks the chunks [first, end) of one file, and a shard's header with the first.
func (s *Store) verifyChunks(ctx context.Context, m *Manifest, b blob, first, end int) error {
	f, name, err := s.openShared(m, &b)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := AlignedBuffer(int(min(b.chunkBytes, b.bytes)))
	for i := first; i < end; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if i+1 < end {
			prefetch(f, int64(i+1)*b.chunkBytes, b.chunkBytes)
		}
		data, err := readChunk(f, name, b, i, buf)
		if err != nil {
			return s.distrust(b, name, err)
		}
		if i == 0 && b.shard != nil {
			if err := checkHeader(data[:Align], name, *m, b.shard); err != nil {
				return err
			}
		}
		s.progress(int64(len(data)))
	}
	return nil
}

// checkHeader checks that a shard file says of itself what the manifest says of it.
func checkHeader(page []byte, name string, m Manifest, sh *ShardInfo) error {
	got, err := parseShardHeader(page)
	if err != nil {
		return corrupt(name, 0, "a shard header", err.Error())
	}
	want := shardHeader{
		job: m.Job, epoch: m.Epoch, step: m.Step, rank: sh.Rank, worldSize: m.WorldSize,
		bytes: sh.logical(), chunkBytes: m.ChunkBytes,
	}
	if got != want {
		return corrupt(name, 0, fmt.Sprintf("header %+v", want), fmt.Sprintf("header %+v", got))
	}
	return nil
}

// readChunk reads one chunk into buf and checks its sum, if it has one; from a second place if the first one does not give it.
func readChunk(f ReadFile, name string, b blob, chunk int, buf []byte) ([]byte, error) {
	data, err := readSum(f, name, b, chunk, buf)
	if two, ok := f.(*nearFile); ok && err != nil {
		if far, ferr := two.farther(); ferr == nil {
			return readSum(far, name, b, chunk, buf)
		}
	}
	return data, err
}

func readSum(f io.ReaderAt, name string, b blob, chunk int, buf []byte) ([]byte, error) {
	start := int64(chunk) * b.chunkBytes
	data := buf[:min(b.chunkBytes, b.bytes-start)]
	if n, err := f.ReadAt(data, start); n != len(data) {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, corrupt(name, chunk, fmt.Sprintf("%d bytes", len(data)), fmt.Sprintf("%d bytes", n))
		}
		return nil, fmt.Errorf("read %s chunk %d: %w", name, chunk, err)
	}
	if want, ok := b.sum(chunk); ok {
		if got := sumOf(data); got != want {
			return nil, corrupt(name, chunk, "xxh3-128 "+want.String(), got.String())
		}
	}
	return data, nil
}
