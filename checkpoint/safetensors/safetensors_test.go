package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

func open(tb testing.TB) *checkpoint.Store {
	tb.Helper()
	s, err := checkpoint.Open(checkpoint.Config{FS: faultfs.New(), Job: "j", ChunkBytes: checkpoint.Align})
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.Fence(tb.Context(), 1); err != nil {
		tb.Fatal(err)
	}
	return s
}

// sharded saves a matrix cut into two ranks by rows, a bfloat16 vector, a scalar and an empty tensor.
func sharded(tb testing.TB, s *checkpoint.Store) (checkpoint.Manifest, []float32) {
	tb.Helper()
	w := make([]float32, 600*7)
	for i := range w {
		w[i] = float32(i) / 3
	}
	for rank := range 2 {
		ts := []checkpoint.Tensor{checkpoint.Part("w", w[rank*300*7:(rank+1)*300*7], []int64{600, 7}, []int64{int64(rank) * 300, 0}, []int64{300, 7})}
		if rank == 1 {
			ts = append(ts, checkpoint.Whole("n", []int64{42}), checkpoint.Whole("none", []float32{}, 0, 3),
				checkpoint.Tensor{Name: "b", DType: checkpoint.BFloat16, Global: []int64{3}, Offset: []int64{0}, Shape: []int64{3}, Data: []byte{0, 0x3f, 1, 2, 3, 4}})
		}
		if _, err := s.WriteShard(tb.Context(), checkpoint.ShardWrite{Epoch: 1, Step: 5, Rank: rank, WorldSize: 2, Tensors: ts}); err != nil {
			tb.Fatal(err)
		}
	}
	m, err := s.Commit(tb.Context(), checkpoint.CommitRequest{
		Epoch: 1, Step: 5, WorldSize: 2, Meta: map[string]string{"lr": "0.1"}, Metrics: map[string]float64{"loss": 0.5},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return m, w
}

func TestExportAndBack(t *testing.T) {
	t.Parallel()
	s := open(t)
	m, w := sharded(t, s)
	var out bytes.Buffer
	if err := Export(t.Context(), s, m, &out); err != nil {
		t.Fatal(err)
	}
	h, err := ReadHeader(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if h.Metadata["lr"] != "0.1" || h.Metadata["format"] != "pt" || h.Metadata[keyStep] != "5" || h.Metadata["metric.loss"] != "0.5" || h.DataAt%8 != 0 {
		t.Errorf("header is %+v", h)
	}
	back := open(t)
	m2, err := Import(t.Context(), back, out.Bytes(), ImportRequest{Epoch: 1, Step: 9})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m2.TensorNames(), m.TensorNames()) {
		t.Errorf("tensors are %v, want %v", m2.TensorNames(), m.TensorNames())
	}
	got := make([]float32, len(w))
	if err := back.ReadTensor(t.Context(), m2, "w", got); err != nil || !slices.Equal(got, w) {
		t.Errorf("w came back other than it was: %v", err)
	}
	r := back.NewReader(m2)
	b := make([]byte, 6)
	if err := r.ReadRaw(t.Context(), "b", []int64{0}, []int64{3}, b); err != nil || !bytes.Equal(b, []byte{0, 0x3f, 1, 2, 3, 4}) {
		t.Errorf("b is %v, %v", b, err)
	}
	var n [1]int64
	if err := checkpoint.Read(t.Context(), r, "n", n[:]); err != nil || n[0] != 42 {
		t.Errorf("n is %v, %v", n, err)
	}
	if d, shape, ok := m2.Tensor("none"); !ok || d != checkpoint.Float32 || !slices.Equal(shape, []int64{0, 3}) {
		t.Errorf("none is %v%v, %v", d, shape, ok)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestOthersReadIt has the reference implementation read an export, where it is installed.
func TestOthersReadIt(t *testing.T) {
	t.Parallel()
	if err := exec.Command("python3", "-c", "import safetensors.numpy").Run(); err != nil {
		t.Skip("python3 with safetensors and numpy is not installed: apt-get install python3-safetensors python3-numpy")
	}
	s := open(t)
	m, _ := sharded(t, s)
	m.Shards[1].Tensors = slices.DeleteFunc(m.Shards[1].Tensors, func(t checkpoint.TensorInfo) bool { return t.Name == "b" }) // numpy has no bfloat16
	var out bytes.Buffer
	if err := Export(t.Context(), s, m, &out); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	cmd := exec.Command("python3", "-c", `import sys, safetensors.numpy as s
open(sys.argv[1], "wb").write(sys.stdin.buffer.read())
x = s.load_file(sys.argv[1]); print(sorted(x), float(x["w"][599, 6] * 3), int(x["n"]))`, path)
	cmd.Stdin = &out
	got, err := cmd.CombinedOutput()
	if want := "['n', 'none', 'w'] 4199.0 42\n"; err != nil || string(got) != want {
		t.Errorf("python says %s, %v; want %s", got, err, want)
	}
}

func TestPiecesMakeUpTheWhole(t *testing.T) {
	t.Parallel()
	for _, shape := range [][]int64{{}, {1}, {7}, {3, 5}, {4, 1, 6}, {2, 3, 4, 5}, {0, 3}, {3, 0}} {
		total, _ := elements(shape)
		for limit := int64(1); limit <= total+2; limit++ {
			next := int64(0)
			err := checkpoint.Pieces(shape, limit, func(offset, box []int64) error {
				at := int64(0)
				for d := range shape {
					at = at*shape[d] + offset[d]
				}
				n, _ := elements(box)
				if at != next || n > limit || n == 0 {
					return fmt.Errorf("piece %v at %v: want it at element %d", box, offset, next)
				}
				next += n
				return nil
			})
			if err != nil || next != total {
				t.Errorf("shape %v, limit %d: %d of %d elements, %v", shape, limit, next, total, err)
			}
		}
	}
}

// file makes a file of a header's text and n bytes of data.
func file(header string, n int) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), make([]byte, n)...)
}

func TestHostileHeaders(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"empty":     nil,
		"huge":      {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'},
		"not json":  file("hello", 0),
		"gap":       file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8),
		"overlap":   file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4),
		"short":     file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 4),
		"rest":      file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 5),
		"overflow":  file(`{"a":{"dtype":"F64","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`, 0),
		"negative":  file(`{"a":{"dtype":"F64","shape":[-1],"data_offsets":[0,-8]}}`, 0),
		"type":      file(`{"a":{"dtype":"C128","shape":[1],"data_offsets":[0,16]}}`, 16),
		"wrong sum": file(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8),
	} {
		if _, err := ReadHeader(readerAt(data), int64(len(data))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
}

// FuzzHeader gives the parser damaged files. What it takes must import and come out the same.
func FuzzHeader(f *testing.F) {
	f.Add(file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"format":"pt"}}`, 4))
	f.Add(file(`{"a":{"dtype":"BF16","shape":[2,0],"data_offsets":[0,0]}}   `, 0))
	f.Add(file(`{}`, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ReadHeader(readerAt(data), int64(len(data)))
		if err != nil {
			return
		}
		head, err := h.encode()
		if err != nil {
			return // a name twice
		}
		again, err := ReadHeader(readerAt(append(head, data[h.DataAt:]...)), int64(len(head))+int64(len(data))-h.DataAt)
		if err != nil || len(again.Tensors) != len(h.Tensors) {
			t.Fatalf("%v: %d tensors, were %d", err, len(again.Tensors), len(h.Tensors))
		}
		if _, err := Import(t.Context(), open(t), data, ImportRequest{Epoch: 1, Step: 1}); err != nil && !errors.Is(err, checkpoint.ErrInvalid) {
			t.Fatalf("read, but does not import: %v", err)
		}
	})
}
