package checkpoint

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// check says what is wrong with a manifest, whoever wrote it.
func (m *Manifest) check() error {
	if err := checkMetrics(m.Metrics); err != nil {
		return err
	}
	if m.WorldSize == 0 {
		return m.checkFiles()
	}
	if len(m.Files) > 0 {
		return fmt.Errorf("%w: manifest lists shards of %d ranks and %d files, want one or the other", ErrInvalid, m.WorldSize, len(m.Files))
	}
	if len(m.Shards) != m.WorldSize {
		return fmt.Errorf("%w: manifest lists %d shards of %d ranks", ErrInvalid, len(m.Shards), m.WorldSize)
	}
	if err := checkIdentity(m.Job, m.Epoch, m.WorldSize, m.ChunkBytes); err != nil {
		return err
	}
	if err := checkMeta(m.Meta); err != nil {
		return err
	}
	for i := range m.Shards {
		if m.Shards[i].Rank != i {
			return fmt.Errorf("%w: shard %d is of rank %d", ErrInvalid, i, m.Shards[i].Rank)
		}
		if err := m.Shards[i].check(m.Ref(), m.WorldSize, m.ChunkBytes); err != nil {
			return err
		}
	}
	if err := m.checkOrigins(); err != nil {
		return err
	}
	return m.checkCover()
}

// checkCover checks that the ranks' boxes of each tensor make up the whole tensor exactly once.
func (m *Manifest) checkCover() error {
	first := map[string]*TensorInfo{}
	boxes := map[string][]box{}
	for i := range m.Shards {
		for j := range m.Shards[i].Tensors {
			t := &m.Shards[i].Tensors[j]
			f := first[t.Name]
			if f == nil {
				first[t.Name], f = t, t
			}
			if f.DType != t.DType || !slices.Equal(f.Global, t.Global) {
				return fmt.Errorf("%w: tensor %q is %s%v, but for rank %d it is %s%v", ErrInvalid, t.Name, f.DType, f.Global, i, t.DType, t.Global)
			}
			boxes[t.Name] = append(boxes[t.Name], box{offset: t.Offset, shape: t.Shape})
		}
	}
	for _, name := range m.TensorNames() {
		if err := covers(first[name].Global, boxes[name]); err != nil {
			return fmt.Errorf("%w: tensor %q %v: %w: each element must be written by exactly one rank", ErrInvalid, name, first[name].Global, err)
		}
	}
	return nil
}

// MaxMetrics is the most metrics of one checkpoint: what a progress report may carry.
const MaxMetrics = 32

func checkMetrics(metrics map[string]float64) error {
	if len(metrics) > MaxMetrics {
		return fmt.Errorf("%w: %d metrics, at most %d are allowed", ErrInvalid, len(metrics), MaxMetrics)
	}
	for name, v := range metrics {
		if name == "" || len(name) > MaxNameBytes || math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%w: metric %.80q = %v: want a name and a finite number", ErrInvalid, name, v)
		}
	}
	return nil
}

func (c *sidecar) check() error {
	if err := checkIdentity(c.Job, c.Epoch, c.WorldSize, c.ChunkBytes); err != nil {
		return err
	}
	return c.Shard.check(Ref{Epoch: c.Epoch, Step: c.Step}, c.WorldSize, c.ChunkBytes)
}

func checkIdentity(job string, epoch uint64, worldSize int, chunkBytes int64) error {
	switch {
	case job == "" || len(job) > MaxNameBytes:
		return fmt.Errorf("%w: job name has %d bytes, want 1 to %d", ErrInvalid, len(job), MaxNameBytes)
	case epoch == 0:
		return fmt.Errorf("%w: epoch is 0, a job's first epoch is 1", ErrInvalid)
	case worldSize < 1 || worldSize > MaxWorldSize:
		return fmt.Errorf("%w: world size is %d, want 1 to %d", ErrInvalid, worldSize, MaxWorldSize)
	case chunkBytes < Align || chunkBytes > MaxChunkBytes || chunkBytes%Align != 0:
		return fmt.Errorf("%w: chunk size is %d, want a multiple of %d up to %d", ErrInvalid, chunkBytes, Align, MaxChunkBytes)
	}
	return nil
}

func checkMeta(meta map[string]string) error {
	n := 0
	for k, v := range meta {
		if len(k) > MaxNameBytes {
			return fmt.Errorf("%w: a meta key has %d bytes, at most %d are allowed", ErrInvalid, len(k), MaxNameBytes)
		}
		n += len(k) + len(v)
	}
	if n > MaxMetaBytes {
		return fmt.Errorf("%w: meta has %d bytes, at most %d are allowed: put large state into a uint8 tensor", ErrInvalid, n, MaxMetaBytes)
	}
	return nil
}

// checkOrigins checks that ranks which refer to the same file say the same of it.
func (m *Manifest) checkOrigins() error {
	seen := map[string]*Origin{}
	for i := range m.Shards {
		for j := range m.Shards[i].Origins {
			b := &m.Shards[i].Origins[j]
			o := seen[b.name()]
			if o == nil {
				seen[b.name()] = b
			} else if o.Bytes != b.Bytes || o.ChunkBytes != b.ChunkBytes || !o.Encoded.equal(b.Encoded) {
				return fmt.Errorf("%w: origin %s has %d bytes in chunks of %d, but for rank %d %d in chunks of %d",
					ErrInvalid, b.name(), o.Bytes, o.ChunkBytes, i, b.Bytes, b.ChunkBytes)
			}
		}
	}
	return nil
}

// check says what is wrong with one shard's description in the checkpoint owner.
func (i *ShardInfo) check(owner Ref, worldSize int, chunkBytes int64) error {
	if i.Rank < 0 || i.Rank >= worldSize {
		return fmt.Errorf("%w: rank %d of %d", ErrInvalid, i.Rank, worldSize)
	}
	// The name is derived, never taken from the file: a path in a manifest must not lead elsewhere.
	if want := shardName(i.Rank, worldSize); i.File != want {
		return fmt.Errorf("%w: shard of rank %d is named %q, want %q", ErrInvalid, i.Rank, i.File, want)
	}
	if i.Bytes < Align || i.Bytes%Align != 0 || i.Bytes > math.MaxInt64-MaxChunkBytes {
		return fmt.Errorf("%w: shard %s has %d bytes, want a multiple of %d", ErrInvalid, i.File, i.Bytes, Align)
	}
	if want := chunkCount(i.Bytes, chunkBytes); int64(len(i.Chunks)) != want {
		return fmt.Errorf("%w: shard %s has %d checksums, want %d", ErrInvalid, i.File, len(i.Chunks), want)
	}
	if err := checkMeta(i.Meta); err != nil {
		return fmt.Errorf("shard %s: %w", i.File, err)
	}
	if i.Encoded != nil {
		if err := i.Encoded.check(i.Bytes, chunkBytes); err != nil {
			return fmt.Errorf("shard %s: %w", i.File, err)
		}
	}
	if len(i.Origins) > MaxOrigins {
		return fmt.Errorf("%w: shard %s refers to %d files, at most %d are allowed", ErrInvalid, i.File, len(i.Origins), MaxOrigins)
	}
	files := make(map[string]struct{}, len(i.Origins))
	for j := range i.Origins {
		b := &i.Origins[j]
		if err := b.check(owner); err != nil {
			return fmt.Errorf("shard %s: %w", i.File, err)
		}
		if _, twice := files[b.name()]; twice {
			return fmt.Errorf("%w: shard %s refers to %s twice", ErrInvalid, i.File, b.name())
		}
		files[b.name()] = struct{}{}
	}
	return i.checkTensors()
}

// checkTensors checks each tensor and that no two share bytes of the file.
func (i *ShardInfo) checkTensors() error {
	if len(i.Tensors) > MaxTensors {
		return fmt.Errorf("%w: shard %s has %d tensors, at most %d are allowed", ErrInvalid, i.File, len(i.Tensors), MaxTensors)
	}
	order := make([]*TensorInfo, 0, len(i.Tensors)) // those in the shard's own file
	names := make(map[string]struct{}, len(i.Tensors))
	for j := range i.Tensors {
		t := &i.Tensors[j]
		if err := t.check(); err != nil {
			return fmt.Errorf("shard %s: %w", i.File, err)
		}
		if err := i.checkPlace(t); err != nil {
			return err
		}
		if _, twice := names[t.Name]; twice {
			return fmt.Errorf("%w: shard %s: tensor %q is there twice: a rank writes one box of a tensor", ErrInvalid, i.File, t.Name)
		}
		names[t.Name] = struct{}{}
		if t.From == 0 {
			order = append(order, t)
		}
	}
	slices.SortFunc(order, func(a, b *TensorInfo) int {
		return cmp.Or(cmp.Compare(a.FileOffset, b.FileOffset), cmp.Compare(a.size(), b.size()))
	})
	for j := 1; j < len(order); j++ {
		if a, b := order[j-1], order[j]; a.FileOffset+a.size() > b.FileOffset {
			return fmt.Errorf("%w: shard %s: tensors %q and %q overlap", ErrInvalid, i.File, a.Name, b.Name)
		}
	}
	return nil
}

// checkPlace checks that a tensor's bytes lie where it says.
func (i *ShardInfo) checkPlace(t *TensorInfo) error {
	switch {
	case t.From < 0 || t.From > len(i.Origins):
		return fmt.Errorf("%w: shard %s: tensor %q is in origin %d of %d", ErrInvalid, i.File, t.Name, t.From, len(i.Origins))
	case t.From > 0:
		if err := i.Origins[t.From-1].checkPlace(t.FileOffset, t.size()); err != nil {
			return fmt.Errorf("shard %s: tensor %q: %w", i.File, t.Name, err)
		}
	case t.FileOffset < Align || t.FileOffset%Align != 0 || t.FileOffset > i.logical() || t.size() > i.logical()-t.FileOffset:
		return fmt.Errorf("%w: shard %s: tensor %q at %d does not fit into %d bytes", ErrInvalid, i.File, t.Name, t.FileOffset, i.logical())
	}
	if t.Base == 0 && t.BaseOffset == 0 {
		return nil
	}
	if t.Base < 1 || t.Base > len(i.Origins) || t.From > 0 || t.DType != BFloat16 {
		return fmt.Errorf("%w: shard %s: tensor %q, %s, is a difference to origin %d of %d", ErrInvalid, i.File, t.Name, t.DType, t.Base, len(i.Origins))
	}
	if err := i.Origins[t.Base-1].checkPlace(t.BaseOffset, t.size()); err != nil {
		return fmt.Errorf("shard %s: base of tensor %q: %w", i.File, t.Name, err)
	}
	return nil
}

// check says what is wrong with a tensor's description by itself.
func (t *TensorInfo) check() error {
	if t.Name == "" || len(t.Name) > MaxNameBytes {
		return fmt.Errorf("%w: tensor name has %d bytes, want 1 to %d", ErrInvalid, len(t.Name), MaxNameBytes)
	}
	if t.DType.Size() == 0 {
		return fmt.Errorf("%w: tensor %q has type %q, want a name such as float32, bfloat16 or uint8", ErrInvalid, t.Name, t.DType)
	}
	dims := len(t.Global)
	if dims > MaxDims || len(t.Offset) != dims || len(t.Shape) != dims {
		return fmt.Errorf("%w: tensor %q: global %v, offset %v and shape %v must have the same number of dimensions, at most %d",
			ErrInvalid, t.Name, t.Global, t.Offset, t.Shape, MaxDims)
	}
	n, ok := volume(t.Global)
	if !ok || n > math.MaxInt64/t.DType.Size() {
		return fmt.Errorf("%w: tensor %q: shape %v is negative or too large", ErrInvalid, t.Name, t.Global)
	}
	for d := range dims {
		if t.Offset[d] < 0 || t.Shape[d] < 0 || t.Offset[d] > t.Global[d] || t.Shape[d] > t.Global[d]-t.Offset[d] {
			return fmt.Errorf("%w: tensor %q: box of %v at %v is not inside %v", ErrInvalid, t.Name, t.Shape, t.Offset, t.Global)
		}
	}
	return nil
}

// size gives the box's bytes. The tensor must have passed check.
func (t *TensorInfo) size() int64 {
	n, _ := volume(t.Shape)
	return n * t.DType.Size()
}

// chunkCount gives how many chunks a file has.
func chunkCount(bytes, chunkBytes int64) int64 { return (bytes + chunkBytes - 1) / chunkBytes }

// alignUp rounds n up to a multiple of Align.
func alignUp(n int64) int64 { return (n + Align - 1) &^ (Align - 1) }
