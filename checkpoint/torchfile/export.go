package torchfile

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/gangline/gangline/checkpoint"
)

// pieceBytes is how much of a tensor Export holds at once: some chunks of a checkpoint.
const pieceBytes = 16 << 20

// top is the one directory that all records of a file lie in. PyTorch takes any.
const top = "archive"

// storages are the classes of PyTorch that hold each element type. What is not here has none in the releases that people have.
//
//nolint:gochecknoglobals // table, never written
var storages = map[checkpoint.DType]string{
	checkpoint.Float64: "DoubleStorage", checkpoint.Float32: "FloatStorage", checkpoint.Float16: "HalfStorage", checkpoint.BFloat16: "BFloat16Storage",
	checkpoint.Int64: "LongStorage", checkpoint.Int32: "IntStorage", checkpoint.Int16: "ShortStorage", checkpoint.Int8: "CharStorage",
	checkpoint.Uint8: "ByteStorage", checkpoint.Bool: "BoolStorage",
}

// tensor is one of the checkpoint's, whole.
type tensor struct {
	name  string
	dtype checkpoint.DType
	shape []int64
}

func (t *tensor) elements() int64 {
	n := int64(1)
	for _, d := range t.shape {
		n *= d
	}
	return n
}

// Export writes the tensors of a sharded checkpoint to w as torch.save writes an OrderedDict of them by name, each whole, on the CPU, whatever number of ranks
// wrote them. Every byte is verified before it is written. Errors: checkpoint.ErrInvalid for a checkpoint of files and for element types that PyTorch's files
// have no storage for (unsigned ones of several bytes, 8-bit floats), *checkpoint.CorruptError, the context's, the writer's.
func Export(ctx context.Context, s *checkpoint.Store, m checkpoint.Manifest, w io.Writer) error {
	if m.WorldSize == 0 {
		return fmt.Errorf("%w: checkpoint %s holds a program's own files, not tensors", checkpoint.ErrInvalid, m.Ref())
	}
	var all []tensor
	for _, name := range m.TensorNames() {
		dtype, shape, _ := m.Tensor(name)
		if storages[dtype] == "" {
			return fmt.Errorf("%w: tensor %q is %s, which PyTorch's files have no storage for: export to safetensors", checkpoint.ErrInvalid, name, dtype)
		}
		all = append(all, tensor{name, dtype, shape})
	}
	out := zip.NewWriter(w)
	if err := put(out, "data.pkl", describe(all)); err != nil {
		return err
	}
	if err := put(out, "byteorder", []byte("little")); err != nil {
		return err
	}
	r := s.NewReader(m)
	defer r.Close() //nolint:errcheck // it was only read from
	for i := range all {
		if err := writeTensor(ctx, out, r, i, &all[i]); err != nil {
			return err
		}
	}
	return errors.Join(put(out, "version", []byte("3\n")), out.Close())
}

// describe is the pickle of a dictionary of tensors, whose bytes are records of their numbers.
func describe(all []tensor) []byte {
	var p pickle
	p.op(opProto, 2)
	p.orderedDict()
	p.op(opMark)
	for i := range all {
		t := &all[i]
		p.text(t.name)
		p.global("torch._utils", "_rebuild_tensor_v2")
		p.op(opMark)
		p.op(opMark)
		p.text("storage")
		p.global("torch", storages[t.dtype])
		p.text(strconv.Itoa(i))
		p.text("cpu")
		p.number(t.elements())
		p.op(opTuple, opBinPersID)
		p.number(0) // where it begins in its storage
		p.numbers(t.shape)
		p.numbers(strides(t.shape))
		p.op(opNewFalse) // requires no gradient
		p.orderedDict()  // no hooks
		p.op(opTuple, opReduce)
	}
	p.op(opSetItems, opStop)
	return p.out
}

// strides are the distances in elements of neighbours along each dimension, the last one fastest.
func strides(shape []int64) []int64 {
	out := make([]int64, len(shape))
	step := int64(1)
	for d := len(shape) - 1; d >= 0; d-- {
		out[d] = step
		step *= max(shape[d], 1)
	}
	return out
}

// put adds a small record.
func put(out *zip.Writer, name string, data []byte) error {
	w, err := record(out, name)
	if err == nil {
		_, err = w.Write(data)
	}
	return err
}

// record begins one that is stored as it is. Its length and checksum follow it; PyTorch reads them at the file's end.
func record(out *zip.Writer, name string) (io.Writer, error) {
	return out.CreateHeader(&zip.FileHeader{Name: top + "/" + name, Method: zip.Store})
}

// writeTensor adds the record of one tensor's bytes.
func writeTensor(ctx context.Context, out *zip.Writer, r *checkpoint.Reader, i int, t *tensor) error {
	w, err := record(out, "data/"+strconv.Itoa(i))
	if err != nil {
		return err
	}
	size := t.dtype.Size()
	buf := make([]byte, min(max(pieceBytes, size), t.elements()*size))
	return checkpoint.Pieces(t.shape, max(1, pieceBytes/size), func(offset, shape []int64) error {
		n := size
		for _, d := range shape {
			n *= d
		}
		if int64(len(buf)) < n {
			buf = make([]byte, n)
		}
		if err := r.ReadRaw(ctx, t.name, offset, shape, buf[:n]); err != nil {
			return err
		}
		_, err := w.Write(buf[:n])
		return err
	})
}

// Named says whether a path is named as PyTorch's files are: .pt or .pth.
func Named(path string) bool {
	return strings.HasSuffix(path, ".pt") || strings.HasSuffix(path, ".pth")
}
