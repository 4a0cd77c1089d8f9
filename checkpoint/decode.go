package checkpoint

import (
	"context"
	"slices"
	"strconv"
)

// storedSlots is how many stored chunks of encoded files a Reader keeps: a frame may lie in two.
const storedSlots = 2

// decodeChunk fills a slot with a chunk of what an encoded file stands for.
func (r *Reader) decodeChunk(ctx context.Context, f *shardFile, chunk int, s *slot) error {
	s.data = nil
	at, end := f.encoded.starts[chunk], f.encoded.starts[chunk+1]
	r.frame = slices.Grow(r.frame[:0], int(end-at))
	for at < end {
		stored, err := r.storedChunk(ctx, f, int(at/f.chunkBytes))
		if err != nil {
			return err
		}
		rest := stored[at%f.chunkBytes:]
		rest = rest[:min(int64(len(rest)), end-at)]
		r.frame = append(r.frame, rest...)
		at += int64(len(rest))
	}
	size := int(min(f.chunkBytes, f.encoded.Bytes-int64(chunk)*f.chunkBytes))
	s.buf = slices.Grow(s.buf[:0], size)[:size]
	r.scratch = slices.Grow(r.scratch[:0], size)
	if err := f.codec.decode(s.buf, r.frame, chunk, r.scratch); err != nil {
		return corrupt(f.path, int(f.encoded.starts[chunk]/f.chunkBytes), "a frame of chunk "+strconv.Itoa(chunk), err.Error())
	}
	s.file, s.chunk, s.data = f, chunk, s.buf
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
