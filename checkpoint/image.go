package checkpoint

import (
	"context"
	"fmt"
	"slices"
)

// Image is a copy of one rank's tensors in memory, laid out as its shard file is, so that it can be written while the tensors
// change, without another copy. The memory may be shared with another process, which can write it after this one has died: see
// the package async. One goroutine uses an Image at a time.
type Image struct {
	store *Store
	mem   []byte
	write ShardWrite // without the tensors' data
	info  ShardInfo
	as    *Encoding // how it is to be stored
}

// ImageBytes gives how much memory an image of these tensors needs.
func (s *Store) ImageBytes(w ShardWrite) (int64, error) {
	info, err := s.plan(w)
	return info.Bytes, err
}

// NewImage gives an image in mem, whose address is a multiple of Align (AlignedBuffer, or a memory map). It holds nothing before Fill.
func (s *Store) NewImage(mem []byte) *Image { return &Image{store: s, mem: mem, as: s.as} }

// Fill copies the tensors. If they are laid out as at the last Fill (names, types and shapes in the same order) it allocates
// nothing. Errors: ErrInvalid, also if they need more memory than there is; then the image holds nothing.
func (i *Image) Fill(w ShardWrite) error {
	if !i.sameLayout(w) {
		i.info = ShardInfo{}
		info, err := i.store.plan(w)
		if err != nil {
			return err
		}
		if info.Bytes > int64(len(i.mem)) {
			return fmt.Errorf("%w: the tensors of rank %d need %d bytes, the image has %d", ErrInvalid, w.Rank, info.Bytes, len(i.mem))
		}
		i.info = info
		i.clearGaps()
	}
	i.info.Meta = w.Meta
	i.write = w
	i.write.Tensors = nil
	header := i.store.header(w, &i.info)
	header.put(i.mem[:Align])
	for j := range w.Tensors {
		copy(i.mem[i.info.Tensors[j].FileOffset:], w.Tensors[j].Data)
	}
	return nil
}

// sameLayout says whether the tensors fit into the places of the last Fill.
func (i *Image) sameLayout(w ShardWrite) bool {
	if i.info.Bytes == 0 || i.write.Rank != w.Rank || i.write.WorldSize != w.WorldSize || len(w.Tensors) != len(i.info.Tensors) || checkMeta(w.Meta) != nil {
		return false
	}
	for j := range w.Tensors {
		t, o := &w.Tensors[j], &i.info.Tensors[j]
		if t.Name != o.Name || t.DType != o.DType || int64(len(t.Data)) != o.size() ||
			!slices.Equal(t.Global, o.Global) || !slices.Equal(t.Offset, o.Offset) || !slices.Equal(t.Shape, o.Shape) {
			return false
		}
	}
	return true
}

// clearGaps zeroes what no tensor covers.
func (i *Image) clearGaps() {
	at := int64(Align)
	for j := range i.info.Tensors {
		t := &i.info.Tensors[j]
		clear(i.mem[at:t.FileOffset])
		at = t.FileOffset + t.size()
	}
	clear(i.mem[at:i.info.Bytes])
}

// Write makes the filled image a durable shard, with its sidecar, as WriteShard does, with the same errors. Tensors that have not changed are
// referred to as there. It allocates nothing that is as large as the tensors.
func (i *Image) Write(ctx context.Context) (ShardInfo, error) {
	w := i.write
	if i.info.Bytes == 0 {
		return ShardInfo{}, fmt.Errorf("%w: write an image that holds nothing", ErrInvalid)
	}
	what := fmt.Sprintf("write shard of rank %d, step %d", w.Rank, w.Step)
	if err := i.store.current(ctx, w.Epoch, what); err != nil {
		return ShardInfo{}, err
	}
	if err := i.store.prepare(Ref{Epoch: w.Epoch, Step: w.Step}); err != nil {
		return ShardInfo{}, fmt.Errorf("%s: %w", what, err)
	}
	info := i.info
	info.Chunks = slices.Clone(info.Chunks) // the caller keeps them
	w.Tensors = i.tensors()
	sv, err := i.store.refer(ctx, &w, &info)
	if err == nil {
		info.Encoded = i.store.newEncoding(i.as)
		var src content = inMemory{i.mem[:info.Bytes], i.store.chunkBytes}
		if sv.refers || sv.differs { // what is to be stored is not as the image any more
			src = i.store.compact(w, &info, sv)
		}
		err = i.store.writeBoth(ctx, w, &info, src, sv)
	}
	if err != nil {
		return ShardInfo{}, i.store.blameFence(ctx, w.Epoch, fmt.Errorf("%s: %w", what, err))
	}
	return info, nil
}

// tensors gives the tensors as they lie in the image.
func (i *Image) tensors() []Tensor {
	out := make([]Tensor, len(i.info.Tensors))
	for j := range out {
		t := &i.info.Tensors[j]
		out[j] = Tensor{
			Name: t.Name, DType: t.DType, Global: t.Global, Offset: t.Offset, Shape: t.Shape,
			Data: i.mem[t.FileOffset:][:t.size()],
		}
	}
	return out
}

// inMemory is the content of a file that lies in memory as it is.
type inMemory struct {
	mem   []byte
	chunk int64
}

func (inMemory) needsBuffers() bool { return false }

func (m inMemory) next(_ context.Context, _ []byte, start int64) ([]byte, error) {
	return m.mem[start:min(start+m.chunk, int64(len(m.mem)))], nil
}

const imageFormat = "gangline-image"

// Describe gives what OpenImage needs to know of a filled image beside its memory.
func (i *Image) Describe() ([]byte, error) {
	return seal(imageFormat, sidecar{
		Job: i.store.job, Epoch: i.write.Epoch, Step: i.write.Step, WorldSize: i.write.WorldSize,
		ChunkBytes: i.store.chunkBytes, Shard: i.info, As: i.as,
	}, nil) // it lies in the node's memory, not on the storage
}

// OpenImage gives the image that another process of the job has filled and described. mem is its memory. It checks that they belong
// together; damage to the tensors can not be seen, for their checksums are made when they are written. It will be compressed as that process
// would have; if it is to be encrypted, this Store must have the key (ErrKey): nothing is written in the clear instead.
func (s *Store) OpenImage(mem, description []byte) (*Image, error) {
	var c sidecar
	if _, err := unseal(imageFormat, description, &c); err != nil {
		return nil, fmt.Errorf("%w: an image's description: %w", ErrInvalid, err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Job != s.job || c.ChunkBytes != s.chunkBytes || int64(len(mem)) < c.Shard.Bytes {
		return nil, fmt.Errorf("%w: an image of job %q, chunks of %d, %d bytes: want job %q, chunks of %d, and at most %d bytes",
			ErrInvalid, c.Job, c.ChunkBytes, c.Shard.Bytes, s.job, s.chunkBytes, len(mem))
	}
	if c.As != nil && c.As.Key != "" {
		if _, err := s.keyOf(c.As.Key); err != nil {
			return nil, err
		}
	}
	if c.As != nil && c.As.Compress != NoCompression && c.As.Compress != Zstd {
		return nil, fmt.Errorf("%w: an image to be compressed by %q", ErrInvalid, c.As.Compress)
	}
	i := &Image{store: s, mem: mem, info: c.Shard, as: c.As, write: ShardWrite{
		Epoch: c.Epoch, Step: c.Step, Rank: c.Shard.Rank, WorldSize: c.WorldSize, Meta: c.Shard.Meta,
	}}
	m := Manifest{Job: c.Job, Epoch: c.Epoch, Step: c.Step, WorldSize: c.WorldSize, ChunkBytes: c.ChunkBytes}
	if err := checkHeader(mem[:Align], "image", m, &c.Shard); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return i, nil
}

// Ref gives the checkpoint that the image is a part of.
func (i *Image) Ref() Ref { return Ref{Epoch: i.write.Epoch, Step: i.write.Step} }
