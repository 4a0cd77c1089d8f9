package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"

	"golang.org/x/sync/errgroup"
)

// ShardWrite is what one rank saves of one step.
type ShardWrite struct {
	Epoch     uint64 // the epoch this rank runs in; begun with Store.Fence
	Step      uint64
	Rank      int // from 0
	WorldSize int
	Tensors   []Tensor          // this rank's boxes; may be empty
	Meta      map[string]string // this rank's own words, bounded by MaxMetaBytes
}

// writeBuffers is how many chunks a writer has in flight: one filled and summed while one is written, one waiting.
const writeBuffers = 3

// WriteShard writes one rank's shard and makes it durable, with a sidecar file for the commit. Tensors that have not changed since an
// earlier complete checkpoint are referred to there, where that saves enough (Config.ReferenceShare). All ranks may do so at the
// same time. The checkpoint is not visible to Latest before Store.Commit. A rank that repeats a step replaces
// its shard; a rank writes its steps in rising order. After any error nothing of the shard is left, unless
// the removal failed too, which the error then says. Errors: ErrFenced, ErrNotBegun, ErrCommitted, ErrInvalid, *NoSpaceError,
// the context's (looked at between chunks), the file system's.
func (s *Store) WriteShard(ctx context.Context, w ShardWrite) (ShardInfo, error) {
	info, err := s.plan(w)
	if err != nil {
		return ShardInfo{}, err
	}
	ref := Ref{Epoch: w.Epoch, Step: w.Step}
	what := fmt.Sprintf("write shard of rank %d, step %d", w.Rank, w.Step)
	if err := s.current(ctx, w.Epoch, what); err != nil {
		return ShardInfo{}, err
	}
	if err := s.prepare(ref); err != nil {
		return ShardInfo{}, fmt.Errorf("%s: %w", what, err)
	}
	sv, err := s.refer(ctx, &w, &info)
	if err == nil {
		info.Encoded = s.newEncoding(s.as)
		err = s.writeBoth(ctx, w, &info, s.compact(w, &info, sv), sv)
	}
	if err != nil {
		return ShardInfo{}, s.blameFence(ctx, w.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	return info, nil
}

// compact gives the content of the file that holds the tensors which info does not refer elsewhere for.
func (s *Store) compact(w ShardWrite, info *ShardInfo, sv *saving) *pieceList {
	info.Chunks = make([]Sum, chunkCount(info.Bytes, s.chunkBytes))
	header := s.header(w, info)
	return newPieces(header.page(), w.Tensors, info.Tensors, sv.openBases(Ref{Epoch: w.Epoch, Step: w.Step}, info))
}

// header gives what a shard's file says of itself.
func (s *Store) header(w ShardWrite, info *ShardInfo) shardHeader {
	return shardHeader{
		job: s.job, epoch: w.Epoch, step: w.Step, rank: w.Rank, worldSize: w.WorldSize,
		bytes: info.Bytes, chunkBytes: s.chunkBytes,
	}
}

// plan lays the tensors out in the file and checks the request.
func (s *Store) plan(w ShardWrite) (ShardInfo, error) {
	if err := checkIdentity(s.job, w.Epoch, w.WorldSize, s.chunkBytes); err != nil {
		return ShardInfo{}, err
	}
	info := ShardInfo{Rank: w.Rank, File: shardName(w.Rank, w.WorldSize), Meta: w.Meta}
	at := int64(Align)
	for _, t := range w.Tensors {
		ti := TensorInfo{Name: t.Name, DType: t.DType, Global: t.Global, Offset: t.Offset, Shape: t.Shape, FileOffset: at}
		if err := ti.check(); err != nil {
			return ShardInfo{}, err
		}
		if ti.size() != int64(len(t.Data)) {
			return ShardInfo{}, fmt.Errorf("%w: tensor %q: %s%v needs %d bytes, the data has %d", ErrInvalid, t.Name, t.DType, t.Shape, ti.size(), len(t.Data))
		}
		if int64(len(t.Data)) > math.MaxInt64-MaxChunkBytes-at {
			return ShardInfo{}, fmt.Errorf("%w: tensor %q: the shard is too large", ErrInvalid, t.Name)
		}
		at += alignUp(int64(len(t.Data)))
		info.Tensors = append(info.Tensors, ti)
	}
	info.Bytes = at
	info.Chunks = make([]Sum, chunkCount(at, s.chunkBytes))
	return info, info.check(Ref{Epoch: w.Epoch, Step: w.Step}, w.WorldSize, s.chunkBytes)
}

// prepare makes the step's directory and refuses one that is committed.
func (s *Store) prepare(ref Ref) error {
	dir := ref.String()
	if err := s.fs.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return wrapWrite(dir, 0, err)
	}
	// Also if another rank made it: its own sync may not have come yet.
	if err := s.fs.SyncDir("."); err != nil {
		return err
	}
	done, err := s.exists(dir + "/" + manifestName)
	if err == nil && !done {
		done, err = s.exists(dir + "/" + localName)
	}
	if err != nil {
		return err
	}
	if done {
		return fmt.Errorf("%s: %w: write a later step", dir, ErrCommitted)
	}
	return nil
}

// writeBoth writes the shard, then its sidecar, and syncs the directory that names both.
func (s *Store) writeBoth(ctx context.Context, w ShardWrite, info *ShardInfo, src content, sv *saving) error {
	ref := Ref{Epoch: w.Epoch, Step: w.Step}
	dir := ref.String() + "/"
	side := dir + sidecarName(w.Rank, w.WorldSize)
	// A sidecar of an earlier try must not vouch for the file that replaces its shard.
	if err := s.fs.Remove(side); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	undo, err := s.putShard(ctx, w, info, src, sv)
	if err = errors.Join(err, sv.close()); err != nil {
		return err
	}
	sv.note(info)
	data, err := seal(sidecarFormat, sidecar{
		Job: s.job, Epoch: w.Epoch, Step: w.Step, WorldSize: w.WorldSize, ChunkBytes: s.chunkBytes, Shard: *info,
	}, s.key)
	if err == nil {
		err = s.writeDurably(side, data, nil)
	}
	if err != nil {
		return undo(err)
	}
	if err := s.fs.SyncDir(ref.String()); err != nil {
		return s.discard(side, undo(err))
	}
	if sv.memos != nil {
		s.setSaved(w.Rank, w.WorldSize, sv.learn(ref, w.WorldSize, s.chunkBytes, info))
	}
	return nil
}

// putInto writes a shard's file, durable but for its name.
func (s *Store) putInto(ctx context.Context, file string, w ShardWrite, info *ShardInfo, src content, sv *saving) error {
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if info.Encoded != nil {
			return s.writeEncoded(gctx, file+tempSuffix, w, info, src)
		}
		return s.writeFile(gctx, file+tempSuffix, info, src)
	})
	group.Go(func() error { return sv.sumRest(gctx) })
	if err := group.Wait(); err != nil {
		return s.discard(file+tempSuffix, wrapWrite(file, info.Bytes, err))
	}
	if err := s.fs.Rename(file+tempSuffix, file); err != nil {
		return s.discard(file+tempSuffix, err)
	}
	return nil
}

// blameFence tells a writer that a newer epoch has begun, if that may be why its files are not where they were.
func (s *Store) blameFence(ctx context.Context, epoch uint64, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrIncomplete) {
		if fenced := s.notOlder(ctx, epoch, "write"); fenced != nil {
			return errors.Join(fenced, err)
		}
	}
	return err
}

// content is what a shard's file holds.
type content interface {
	// next gives the file's bytes from start on, as many as buf has: in buf, or where they lie. Calls come with rising starts.
	next(ctx context.Context, buf []byte, start int64) ([]byte, error)
	// needsBuffers says whether next fills buf; otherwise buf is nil.
	needsBuffers() bool
}

// chunk is a piece of a file on its way to the disk.
type chunk struct {
	buf  []byte // the whole buffer, to be used again; nil if data lies elsewhere
	data []byte
}

// writeFile writes the shard's file chunk by chunk and fills in the checksums. One goroutine writes while another one copies
// and sums the next chunk; both have ended when it returns.
func (s *Store) writeFile(ctx context.Context, name string, info *ShardInfo, src content) error {
	f, err := s.fs.Create(name, true)
	if err != nil {
		return err
	}
	free := make(chan []byte, writeBuffers)
	full := make(chan chunk, writeBuffers)
	for range min(writeBuffers, len(info.Chunks)) {
		var buf []byte
		if src.needsBuffers() {
			buf = AlignedBuffer(int(min(s.chunkBytes, info.Bytes)))
		}
		free <- buf
	}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for c := range full {
			if n, err := f.Write(c.data); err != nil {
				return err
			} else if n != len(c.data) {
				return io.ErrShortWrite
			}
			s.progress(int64(len(c.data)))
			free <- c.buf // never blocks: it holds all buffers there are
		}
		return nil
	})
	group.Go(func() error {
		defer close(full)
		for i := range info.Chunks {
			var buf []byte
			select {
			case buf = <-free:
			case <-gctx.Done():
				return gctx.Err()
			}
			if err := gctx.Err(); err != nil {
				return err
			}
			start := int64(i) * s.chunkBytes
			data, err := src.next(gctx, buf[:min(int64(len(buf)), info.Bytes-start)], start)
			if err != nil {
				return err
			}
			info.Chunks[i] = sumOf(data)
			full <- chunk{buf: buf, data: data} // never blocks either
		}
		return nil
	})
	err = group.Wait()
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
