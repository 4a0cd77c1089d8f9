package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Reader reads tensors of one checkpoint, whole or any box of them, whatever world size wrote it. Every chunk is verified when it
// is read. One goroutine uses it at a time; several Readers may read the same checkpoint. Close it.
type Reader struct {
	store *Store
	m     Manifest
	parts map[string][]part
	files []*shardFile // its own by rank, then those of earlier checkpoints
	slots [readerSlots]slot
	next  int // the slot to be replaced next
	// Of encoded files: stored chunks, and a frame.
	stored     [storedSlots]slot
	nextStored int
	frame      frameBuf
	xor        []byte // of bases of differences
}

// shardFile is a file that holds tensors, opened on first use.
type shardFile struct {
	blob
	f     ReadFile
	path  string // where it was found
	codec *codec // of an encoded one
}

// readerSlots is how many verified chunks a Reader keeps, so that small tensors which share a chunk do not each read
// it: two files being read side by side, and one chunk back in each.
const readerSlots = 4

type slot struct {
	file  *shardFile
	chunk int
	data  []byte // nil: empty
	buf   []byte
}

// part is one rank's box of a tensor.
type part struct {
	file *shardFile
	info *TensorInfo
	base *shardFile // that it is a difference to; nil: it is itself
}

// NewReader gives a reader of a checkpoint that Latest, Load or Commit gave.
func (s *Store) NewReader(m Manifest) *Reader {
	r := &Reader{store: s, m: m, parts: map[string][]part{}}
	origins := map[string]*shardFile{}
	for _, b := range m.blobs() {
		f := &shardFile{blob: b}
		r.files = append(r.files, f)
		if b.from != nil {
			origins[b.name] = f
		}
	}
	for i := range m.Shards {
		sh := &m.Shards[i]
		for j := range sh.Tensors {
			t := &sh.Tensors[j]
			f := r.files[i]
			if t.From > 0 {
				f = origins[sh.Origins[t.From-1].name()]
			}
			p := part{file: f, info: t}
			if t.Base > 0 {
				p.base = origins[sh.Origins[t.Base-1].name()]
			}
			r.parts[t.Name] = append(r.parts[t.Name], p)
		}
	}
	return r
}

// Close closes the files. The Reader can not be used after it.
func (r *Reader) Close() error {
	var errs []error
	for _, f := range r.files {
		if f.f != nil {
			errs = append(errs, f.f.Close())
			f.f = nil
		}
	}
	return errors.Join(errs...)
}

// Read fills dst with a whole tensor, last dimension fastest. dst must have exactly its number of elements and its type.
// Errors: ErrNoTensor, ErrInvalid, *CorruptError, the context's (looked at between chunks), the file system's; then dst
// is partly filled.
func Read[T Element](ctx context.Context, r *Reader, name string, dst []T) error {
	parts := r.parts[name]
	if len(parts) == 0 {
		return fmt.Errorf("read tensor %q of %s: %w", name, r.m.Dir, ErrNoTensor)
	}
	global := parts[0].info.Global
	return ReadBox(ctx, r, name, make([]int64, len(global)), global, dst)
}

// ReadBox fills dst with the box of shape at offset of a tensor, in elements of its global shape: what a rank of another world
// size needs. Only chunks that hold a part of the box are read. Errors as of Read.
func ReadBox[T Element](ctx context.Context, r *Reader, name string, offset, shape []int64, dst []T) error {
	if err := r.read(ctx, name, dtypeOf[T](), offset, shape, bytesOf(dst)); err != nil {
		return fmt.Errorf("read tensor %q of %s: %w", name, r.m.Dir, err)
	}
	return nil
}

// ReadRaw fills dst with the box of shape at offset of a tensor of any type, as its bytes in the file. dst has exactly the box's
// size. Errors as of Read.
func (r *Reader) ReadRaw(ctx context.Context, name string, offset, shape []int64, dst []byte) error {
	dtype, _, _ := r.m.Tensor(name)
	if err := r.read(ctx, name, dtype, offset, shape, dst); err != nil {
		return fmt.Errorf("read tensor %q of %s: %w", name, r.m.Dir, err)
	}
	return nil
}

// ReadTensor fills dst with a whole float32 tensor. It opens and closes what it needs; to read many tensors use a Reader.
func (s *Store) ReadTensor(ctx context.Context, m Manifest, name string, dst []float32) error {
	r := s.NewReader(m)
	return errors.Join(Read(ctx, r, name, dst), r.Close())
}

func (r *Reader) read(ctx context.Context, name string, dtype DType, offset, shape []int64, dst []byte) error {
	parts := r.parts[name]
	if len(parts) == 0 {
		return ErrNoTensor
	}
	want := TensorInfo{
		Name: name, DType: dtype, Global: parts[0].info.Global, Offset: offset, Shape: shape,
	}
	if have := parts[0].info.DType; have != dtype {
		return fmt.Errorf("%w: it is %s, not %s", ErrInvalid, have, dtype)
	}
	if err := want.check(); err != nil {
		return err
	}
	if want.size() != int64(len(dst)) {
		return fmt.Errorf("%w: %s%v needs %d bytes, the destination has %d", ErrInvalid, dtype, shape, want.size(), len(dst))
	}
	elem := dtype.Size()
	to := box{offset: offset, shape: shape}
	for i := range parts {
		p := &parts[i]
		from := box{offset: p.info.Offset, shape: p.info.Shape}
		err := runs(from, to, func(src, at, n int64) error {
			out := dst[at*elem : (at+n)*elem]
			if p.base != nil {
				return r.readDelta(ctx, p, p.info.FileOffset+src*elem, p.info.BaseOffset+src*elem, out)
			}
			return r.copyRun(ctx, p.file, p.info.FileOffset+src*elem, out)
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// copyRun fills dst from one place of a shard file, chunk by chunk.
func (r *Reader) copyRun(ctx context.Context, f *shardFile, at int64, dst []byte) error {
	if err := r.open(f); err != nil {
		return err
	}
	for len(dst) > 0 {
		if whole := f.wholeChunks(at, int64(len(dst))); whole > 0 {
			n := whole * f.chunkBytes
			read := r.readWhole
			if f.encoded != nil {
				read = r.decodeWhole
			}
			if err := read(ctx, f, at, dst[:n]); err != nil {
				return err
			}
			dst, at = dst[n:], at+n
			continue
		}
		data, err := r.chunk(ctx, f, int(at/f.chunkBytes))
		if err != nil {
			return err
		}
		n := copy(dst, data[at%f.chunkBytes:])
		dst, at = dst[n:], at+int64(n)
	}
	return nil
}

// wholeChunks gives how many whole chunks begin at a place of a shard file, within n bytes.
func (f *shardFile) wholeChunks(at, n int64) int64 {
	if at%f.chunkBytes != 0 {
		return 0
	}
	return min(n, logicalBytes(f.bytes, f.encoded)-at) / f.chunkBytes
}

// readAtOnce is how many chunks are read at the same time where a tensor covers many: one is summed while another comes from the storage.
const readAtOnce = 3

// readWhole reads whole chunks from a place on to where they are wanted, and verifies them there.
func (r *Reader) readWhole(ctx context.Context, f *shardFile, at int64, dst []byte) error {
	size := f.chunkBytes
	first, count := at/size, int64(len(dst))/size
	var next atomic.Int64
	group, gctx := errgroup.WithContext(ctx)
	for range min(readAtOnce, count) {
		group.Go(func() error {
			for {
				i := next.Add(1) - 1
				if i >= count {
					return nil
				}
				if err := gctx.Err(); err != nil {
					return err
				}
				prefetch(f.f, (first+i+readAtOnce)*size, size)
				if _, err := readChunk(f.f, f.path, f.blob, int(first+i), dst[i*size:(i+1)*size]); err != nil {
					return err
				}
				r.store.progress(size)
			}
		})
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// prefetcher is a ReadFile that can be told what is read soon.
type prefetcher interface{ prefetch(at, n int64) }

func prefetch(f ReadFile, at, n int64) {
	if p, ok := f.(prefetcher); ok {
		p.prefetch(at, n)
	}
}

// open opens a shard file on first use.
func (r *Reader) open(f *shardFile) (err error) {
	if f.f != nil {
		return nil
	}
	if f.encoded != nil {
		if f.codec, err = r.store.codecOf(f.encoded, f.ref, f.rank, f.world, f.chunkBytes); err != nil {
			return err
		}
	}
	f.f, f.path, err = r.store.open(&r.m, &f.blob)
	return err
}

// chunk gives a verified chunk, from a slot or from the file.
func (r *Reader) chunk(ctx context.Context, f *shardFile, chunk int) ([]byte, error) {
	for i := range r.slots {
		if s := &r.slots[i]; s.data != nil && s.file == f && s.chunk == chunk {
			return s.data, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &r.slots[r.next]
	r.next = (r.next + 1) % readerSlots
	var err error
	if f.encoded != nil {
		err = r.decodeChunk(ctx, f, chunk, s)
	} else {
		err = r.readChunk(f, chunk, s)
	}
	return s.data, err
}

// readChunk reads a stored chunk into a slot.
func (r *Reader) readChunk(f *shardFile, chunk int, s *slot) error {
	prefetch(f.f, int64(chunk+1)*f.chunkBytes, f.chunkBytes)
	s.data = nil
	size := int(min(f.chunkBytes, f.bytes))
	s.buf = slices.Grow(s.buf[:0], size)[:size]
	data, err := readChunk(f.f, f.path, f.blob, chunk, s.buf)
	if err != nil {
		return err
	}
	r.store.progress(int64(len(data)))
	s.file, s.chunk, s.data = f, chunk, data
	return nil
}
