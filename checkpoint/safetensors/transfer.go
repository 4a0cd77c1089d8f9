package safetensors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// pieceBytes is how much of a tensor Export holds at once: some chunks of a checkpoint.
const pieceBytes = 16 << 20

// Export writes the tensors of a sharded checkpoint to w, each whole, in the order of names, whatever number of ranks wrote them.
// Every byte is verified before it is written. The checkpoint's meta and metrics, its job, step and epoch go into the
// file's metadata, and "format": "pt", which PyTorch's readers ask for. Errors: checkpoint.ErrInvalid for a checkpoint of files,
// *checkpoint.CorruptError, the context's, the writer's.
func Export(ctx context.Context, s *checkpoint.Store, m checkpoint.Manifest, w io.Writer) error {
	if m.WorldSize == 0 {
		return fmt.Errorf("%w: checkpoint %s holds a program's own files, not tensors", checkpoint.ErrInvalid, m.Ref())
	}
	h := Header{Metadata: metadata(&m)}
	at := int64(0)
	for _, name := range m.TensorNames() {
		dtype, shape, _ := m.Tensor(name)
		n, _ := elements(shape) // a manifest's shapes have been checked
		h.Tensors = append(h.Tensors, Tensor{Name: name, DType: dtype, Shape: shape, Begin: at, End: at + n*dtype.Size()})
		at += n * dtype.Size()
	}
	head, err := h.encode()
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	r := s.NewReader(m)
	defer r.Close() //nolint:errcheck // it was only read from
	buf := make([]byte, 0, pieceBytes)
	for _, t := range h.Tensors {
		err := checkpoint.Pieces(t.Shape, max(1, pieceBytes/t.DType.Size()), func(offset, shape []int64) error {
			n, _ := elements(shape)
			buf = slices.Grow(buf[:0], int(n*t.DType.Size()))[:n*t.DType.Size()]
			if err := r.ReadRaw(ctx, t.Name, offset, shape, buf); err != nil {
				return err
			}
			_, err := w.Write(buf)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Keys of a file's metadata that tell where it came from.
const (
	keyJob   = "gangline.job"
	keyStep  = "gangline.step"
	keyEpoch = "gangline.epoch"
)

func metadata(m *checkpoint.Manifest) map[string]string {
	out := map[string]string{"format": "pt"}
	for name, v := range m.Metrics {
		out["metric."+name] = strconv.FormatFloat(v, 'g', -1, 64)
	}
	maps.Copy(out, m.Meta)
	out[keyJob], out[keyStep], out[keyEpoch] = m.Job, strconv.FormatUint(m.Step, 10), strconv.FormatUint(m.Epoch, 10)
	return out
}

// ImportRequest says which step of which epoch the tensors become.
type ImportRequest struct {
	Epoch, Step uint64
	SavedAt     time.Time
}

// Import makes a checkpoint of a file whose bytes are data (which may be a memory map): one shard with all tensors, and the file's metadata
// as its meta. The epoch must have begun. Errors wrap ErrFormat, or are those of WriteShard and Commit.
func Import(ctx context.Context, s *checkpoint.Store, data []byte, r ImportRequest) (checkpoint.Manifest, error) {
	h, err := ReadHeader(readerAt(data), int64(len(data)))
	if err != nil {
		return checkpoint.Manifest{}, err
	}
	tensors := make([]checkpoint.Tensor, 0, len(h.Tensors))
	for _, t := range h.Tensors {
		tensors = append(tensors, checkpoint.Tensor{
			Name: t.Name, DType: t.DType, Global: t.Shape, Offset: make([]int64, len(t.Shape)), Shape: t.Shape,
			Data: data[h.DataAt+t.Begin : h.DataAt+t.End],
		})
	}
	w := checkpoint.ShardWrite{Epoch: r.Epoch, Step: r.Step, WorldSize: 1, Tensors: tensors}
	if _, err := s.WriteShard(ctx, w); err != nil {
		return checkpoint.Manifest{}, err
	}
	return s.Commit(ctx, checkpoint.CommitRequest{Epoch: r.Epoch, Step: r.Step, WorldSize: 1, Meta: h.Metadata, SavedAt: r.SavedAt})
}

// readerAt reads from memory.
type readerAt []byte

// ReadAt copies from a place on.
func (b readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(b)) {
		return 0, errors.New("read beyond the file")
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
