package checkpoint

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"
)

// storedSlots is how many stored chunks of encoded files a Reader keeps: a frame may lie in two.
const storedSlots = 2

// frameBuf is room for a frame and for the planes of its chunk.
type frameBuf struct{ frame, scratch []byte }

// decodeChunk fills a slot with a chunk of what an encoded file stands for.
func (r *Reader) decodeChunk(ctx context.Context, f *shardFile, chunk int, s *slot) error {
	s.data = nil
	if err := r.readFrame(ctx, f, chunk, &r.frame); err != nil {
		return err
	}
	size := int(min(f.chunkBytes, f.encoded.Bytes-int64(chunk)*f.chunkBytes))
	s.buf = slices.Grow(s.buf[:0], size)[:size]
	if err := f.decode(s.buf, chunk, &r.frame); err != nil {
		return err
	}
	s.file, s.chunk, s.data = f, chunk, s.buf
	return nil
}

// decodeWhole decodes whole chunks from a place on to where they are wanted: as many at the same time as chunks are read elsewhere.
func (r *Reader) decodeWhole(ctx context.Context, f *shardFile, at int64, dst []byte) error {
	size := f.chunkBytes
	first, count := int(at/size), len(dst)/int(size)
	free := make(chan *frameBuf, min(readAtOnce, count))
	for range cap(free) {
		free <- &frameBuf{}
	}
	group, gctx := errgroup.WithContext(ctx)
	var failed error
	for i := range count {
		var b *frameBuf
		select {
		case b = <-free:
		case <-gctx.Done():
		}
		if b == nil {
			break
		}
		if failed = r.readFrame(gctx, f, first+i, b); failed != nil {
			break
		}
		group.Go(func() error {
			err := f.decode(dst[i*int(size):(i+1)*int(size)], first+i, b)
			free <- b // never blocks: it holds all buffers there are
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err // the reason, where failed is only that the others were cut short
	}
	return errors.Join(failed, ctx.Err())
}

// readFrame reads the frame of a chunk, of which the stored chunks are verified.
func (r *Reader) readFrame(ctx context.Context, f *shardFile, chunk int, b *frameBuf) error {
	at, end := f.encoded.starts[chunk], f.encoded.starts[chunk+1]
	b.frame = slices.Grow(b.frame[:0], int(end-at))
	for at < end {
		stored, err := r.storedChunk(ctx, f, int(at/f.chunkBytes))
		if err != nil {
			return err
		}
		rest := stored[at%f.chunkBytes:]
		rest = rest[:min(int64(len(rest)), end-at)]
		b.frame = append(b.frame, rest...)
		at += int64(len(rest))
	}
	return nil
}

// decode fills dst with a chunk from its frame.
func (f *shardFile) decode(dst []byte, chunk int, b *frameBuf) error {
	b.scratch = slices.Grow(b.scratch[:0], len(dst))
	if err := f.codec.decode(dst, b.frame, chunk, b.scratch); err != nil {
		return corrupt(f.path, int(f.encoded.starts[chunk]/f.chunkBytes), "a frame of chunk "+strconv.Itoa(chunk), err.Error())
	}
	return nil
}

// storedChunk gives a verified chunk of a file as it is stored.
func (r *Reader) storedChunk(ctx context.Context, f *shardFile, chunk int) ([]byte, error) {
	for i := range r.stored {
		if s := &r.stored[i]; s.data != nil && s.file == f && s.chunk == chunk {
			return s.data, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &r.stored[r.nextStored]
	r.nextStored = (r.nextStored + 1) % storedSlots
	err := r.readChunk(f, chunk, s)
	return s.data, err
}
