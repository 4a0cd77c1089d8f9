package checkpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// maxEncoders is how many chunks of a shard are encoded at the same time: other ranks of the node want processors too.
const maxEncoders = 4

// newEncoding gives the encoding of a shard that is to be written, without its frames; nil: it is stored as it is.
func (s *Store) newEncoding(as *Encoding) *Encoding {
	if as == nil {
		return nil
	}
	e := &Encoding{Compress: as.Compress, Key: as.Key}
	if e.Key != "" {
		e.Salt = make([]byte, saltBytes)
		rand.Read(e.Salt) // it never fails
	}
	return e
}

// frameJob is a chunk on its way to become a frame.
type frameJob struct {
	buf, scratch, out []byte
	data              []byte // in buf, or where the content lies
	done              chan struct{}
}

// writeEncoded writes the shard's file as frames, and fills in its size, checksums and frames. Chunks are encoded side by side and written
// in order; all goroutines have ended when it returns.
func (s *Store) writeEncoded(ctx context.Context, name string, w ShardWrite, info *ShardInfo, src content) error {
	e := info.Encoded
	e.Bytes = info.Bytes
	codec, err := s.codecOf(e, Ref{Epoch: w.Epoch, Step: w.Step}, w.Rank, w.WorldSize, s.chunkBytes)
	if err != nil {
		return err
	}
	f, err := s.fs.Create(name, true)
	if err != nil {
		return err
	}
	count := chunkCount(e.Bytes, s.chunkBytes)
	encoders := min(int64(min(runtime.GOMAXPROCS(0), maxEncoders)), count)
	free, queue := make(chan *frameJob, encoders+1), make(chan *frameJob, encoders+1)
	chunk := min(s.chunkBytes, e.Bytes)
	for range encoders + 1 {
		j := &frameJob{scratch: make([]byte, chunk), out: make([]byte, 0, maxFrame(chunk)+chunk/64+1024)}
		if src.needsBuffers() {
			j.buf = make([]byte, chunk)
		}
		free <- j
	}
	out := &storedFile{store: s, f: f, buf: AlignedBuffer(int(s.chunkBytes))[:0]}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		for i := range count {
			j, err := nextFree(gctx, free)
			if err != nil {
				return err
			}
			start := i * s.chunkBytes
			if j.data, err = src.next(gctx, j.buf[:min(int64(len(j.buf)), e.Bytes-start)], start); err != nil {
				return err
			}
			j.done = make(chan struct{})
			queue <- j // never blocks: it holds all jobs there are
			group.Go(func() error {
				defer close(j.done)
				j.out = codec.encode(j.out[:0], j.data, int(i), info.planes(start, start+s.chunkBytes), e.Compress, j.scratch)
				return nil
			})
		}
		return nil
	})
	group.Go(func() error {
		for j := range queue {
			<-j.done
			if len(e.Frames) == 0 { // the header page, for whoever has no key
				if err := out.write(j.data[:Align]); err != nil {
					return err
				}
			}
			if err := out.write(j.out); err != nil {
				return err
			}
			e.Frames = append(e.Frames, int64(len(j.out)))
			free <- j
		}
		return nil
	})
	if err = group.Wait(); err == nil {
		err = out.finish()
	}
	if err == nil {
		info.Bytes, info.Chunks = out.bytes, out.sums
		err = e.check(info.Bytes, s.chunkBytes)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func nextFree(ctx context.Context, free chan *frameJob) (*frameJob, error) {
	select {
	case j := <-free:
		return j, ctx.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// storedFile cuts what is written to it into chunks, and sums them.
type storedFile struct {
	store *Store
	f     WriteFile
	buf   []byte
	bytes int64
	sums  []Sum
}

func (o *storedFile) write(data []byte) error {
	for len(data) > 0 {
		n := min(len(data), cap(o.buf)-len(o.buf))
		o.buf = append(o.buf, data[:n]...)
		data = data[n:]
		if len(o.buf) == cap(o.buf) {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish writes the rest, with zeros up to a multiple of Align.
func (o *storedFile) finish() error {
	n := int64(len(o.buf))
	o.buf = o.buf[:alignUp(n)]
	clear(o.buf[n:])
	return o.flush()
}

func (o *storedFile) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	n, err := o.f.Write(o.buf)
	if err == nil && n != len(o.buf) {
		err = io.ErrShortWrite
	}
	o.sums = append(o.sums, sumOf(o.buf))
	o.bytes += int64(n)
	o.store.progress(int64(n))
	o.buf = o.buf[:0]
	return err
}

// planes gives the size of the numbers that most of a stretch of the file consists of.
func (i *ShardInfo) planes(start, end int64) int {
	best, most := 1, int64(0)
	for j := range i.Tensors {
		t := &i.Tensors[j]
		if t.From > 0 {
			continue
		}
		if t.FileOffset >= end {
			break
		}
		if n := min(end, t.FileOffset+t.size()) - max(start, t.FileOffset); n > most {
			best, most = int(t.DType.Size()), n
		}
	}
	return best
}
