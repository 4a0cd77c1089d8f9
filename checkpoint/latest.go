package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"
)

// Skipped is a complete checkpoint that can not be used, and why.
type Skipped struct {
	Ref Ref
	Dir string
	Err error
}

// Latest gives the newest complete checkpoint whose every byte verifies; see Ref.Compare for newest. Those that do
// not verify are skipped, and listed for the log. Call Fence before it, so that the answer can not change;
// let one rank call it and tell the others the Ref, so that all agree even while a disk fails. Errors: ErrNone if there is
// no complete checkpoint, ErrAllBad if there is none that verifies, the context's, and the file system's if the directory
// can not be listed: only ErrNone means that there is nothing to resume.
func (s *Store) Latest(ctx context.Context) (Manifest, []Skipped, error) {
	found, _, err := s.folders()
	if err != nil {
		return Manifest{}, nil, err
	}
	var skipped []Skipped
	for _, f := range found {
		if !f.complete {
			continue
		}
		m, err := s.load(f.name)
		if err == nil {
			err = s.Verify(ctx, m)
		}
		if err == nil {
			return m, skipped, nil
		}
		if ctx.Err() != nil {
			return Manifest{}, skipped, ctx.Err()
		}
		skipped = append(skipped, Skipped{Ref: f.ref, Dir: f.name, Err: err})
	}
	if len(skipped) > 0 {
		return Manifest{}, skipped, fmt.Errorf("%w: %d are there, the newest says: %w: repair the storage, or move them away to start from nothing",
			ErrAllBad, len(skipped), skipped[0].Err)
	}
	return Manifest{}, nil, ErrNone
}

// Load gives one complete checkpoint after checking its manifest and the files' sizes, but not their bytes: a Reader checks
// the bytes that it reads. It is for ranks that were told what to resume from. A missing one gives ErrNone.
func (s *Store) Load(ctx context.Context, ref Ref) (Manifest, error) {
	if err := ctx.Err(); err != nil {
		return Manifest{}, err
	}
	for _, dir := range []string{ref.String(), ref.String() + sealedSuffix} {
		m, err := s.load(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return m, err
	}
	return Manifest{}, fmt.Errorf("load %s: %w", ref, ErrNone)
}

// List gives every complete checkpoint, the preferred first. It reads no file: some may be damaged.
func (s *Store) List(ctx context.Context) ([]Ref, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found, _, err := s.folders()
	if err != nil {
		return nil, err
	}
	var refs []Ref
	for _, f := range found {
		if f.complete {
			refs = append(refs, f.ref)
		}
	}
	return refs, nil
}

// load reads a directory's manifest and checks it against the directory.
func (s *Store) load(dir string) (Manifest, error) {
	name := dir + "/" + manifestName
	data, err := s.readSmall(name)
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return Manifest{}, corrupt(name, -1, "a manifest", err.Error())
	}
	m.Dir = dir
	if m.Job != s.job {
		return Manifest{}, fmt.Errorf("%s is a checkpoint of job %q, not of %q: give each job its own directory: %w", name, m.Job, s.job, ErrInvalid)
	}
	if base := m.Ref().String(); dir != base && dir != base+sealedSuffix && dir != base+deadSuffix {
		return Manifest{}, corrupt(name, -1, dir, base)
	}
	sizes, err := s.sizes(dir)
	if m.WorldSize == 0 && err == nil {
		sizes, err = s.treeSizes(dir)
	}
	if err != nil {
		return Manifest{}, err
	}
	for _, b := range m.blobs() {
		size, ok := sizes[b.name]
		if !ok {
			return Manifest{}, corrupt(dir+"/"+b.name, -1, fmt.Sprintf("%d bytes", b.bytes), "no such file")
		}
		if size != b.bytes {
			return Manifest{}, corrupt(dir+"/"+b.name, -1, fmt.Sprintf("%d bytes", b.bytes), fmt.Sprintf("%d bytes", size))
		}
	}
	return m, nil
}

// blob is one file of a checkpoint, whatever it holds.
type blob struct {
	name  string // below the checkpoint's directory
	bytes int64
	sums  []Sum
	shard *ShardInfo // nil for a program's own file
}

// blobs lists the files of a checkpoint.
func (m *Manifest) blobs() []blob {
	all := make([]blob, 0, len(m.Shards)+len(m.Files))
	for i := range m.Shards {
		sh := &m.Shards[i]
		all = append(all, blob{name: sh.File, bytes: sh.Bytes, sums: sh.Chunks, shard: sh})
	}
	for i := range m.Files {
		f := &m.Files[i]
		all = append(all, blob{name: f.Name, bytes: f.Bytes, sums: f.Chunks})
	}
	return all
}

// verifySpan is how many chunks one worker checks in a row: 128 MiB at the default size, long enough for read-ahead.
const verifySpan = 32

// Verify reads every byte of a checkpoint and compares the checksums; it stops at the first damage, a *CorruptError.
func (s *Store) Verify(ctx context.Context, m Manifest) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(s.verifyWorkers)
	for _, b := range m.blobs() {
		for first := 0; first < len(b.sums) && gctx.Err() == nil; first += verifySpan {
			group.Go(func() error { return s.verifyChunks(gctx, m, b, first, min(first+verifySpan, len(b.sums))) })
		}
	}
	err := errors.Join(group.Wait(), ctx.Err())
	s.setVerified(m.Dir, err == nil)
	return err
}

// verifyChunks checks the chunks [first, end) of one file, and a shard's header with the first.
func (s *Store) verifyChunks(ctx context.Context, m Manifest, b blob, first, end int) error {
	name := m.Dir + "/" + b.name
	f, err := s.fs.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := AlignedBuffer(int(min(m.ChunkBytes, b.bytes)))
	for i := first; i < end; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if i+1 < end {
			prefetch(f, int64(i+1)*m.ChunkBytes, m.ChunkBytes)
		}
		data, err := readChunk(f, name, m.ChunkBytes, b, i, buf)
		if err != nil {
			return err
		}
		if i == 0 && b.shard != nil {
			if err := checkHeader(data[:Align], name, m, b.shard); err != nil {
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
		bytes: sh.Bytes, chunkBytes: m.ChunkBytes,
	}
	if got != want {
		return corrupt(name, 0, fmt.Sprintf("header %+v", want), fmt.Sprintf("header %+v", got))
	}
	return nil
}

// readChunk reads one chunk into buf and checks its sum.
func readChunk(f ReadFile, name string, chunkBytes int64, b blob, chunk int, buf []byte) ([]byte, error) {
	start := int64(chunk) * chunkBytes
	data := buf[:min(chunkBytes, b.bytes-start)]
	if n, err := f.ReadAt(data, start); n != len(data) {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, corrupt(name, chunk, fmt.Sprintf("%d bytes", len(data)), fmt.Sprintf("%d bytes", n))
		}
		return nil, fmt.Errorf("read %s chunk %d: %w", name, chunk, err)
	}
	if got := sumOf(data); got != b.sums[chunk] {
		return nil, corrupt(name, chunk, "xxh3-128 "+b.sums[chunk].String(), got.String())
	}
	return data, nil
}
