package torchfile

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

func open(tb testing.TB) *checkpoint.Store {
	tb.Helper()
	s, err := checkpoint.Open(checkpoint.Config{FS: faultfs.New(), Job: "j", ChunkBytes: checkpoint.Align})
	if err == nil {
		err = s.Fence(tb.Context(), 1)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func commit(tb testing.TB, s *checkpoint.Store, step uint64, ranks ...[]checkpoint.Tensor) checkpoint.Manifest {
	tb.Helper()
	for rank, tensors := range ranks {
		if _, err := s.WriteShard(tb.Context(), checkpoint.ShardWrite{Epoch: 1, Step: step, Rank: rank, WorldSize: len(ranks), Tensors: tensors}); err != nil {
			tb.Fatal(err)
		}
	}
	m, err := s.Commit(tb.Context(), checkpoint.CommitRequest{Epoch: 1, Step: step, WorldSize: len(ranks)})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// sharded saves a matrix that two ranks hold by rows, and one tensor of each other type.
func sharded(tb testing.TB, s *checkpoint.Store) checkpoint.Manifest {
	tb.Helper()
	w := make([]float32, 600*7)
	for i := range w {
		w[i] = float32(i) / 3
	}
	half := func(rank int) checkpoint.Tensor {
		return checkpoint.Part("layer.0/weight é", w[rank*300*7:(rank+1)*300*7], []int64{600, 7}, []int64{int64(rank) * 300, 0}, []int64{300, 7})
	}
	raw := func(name string, dtype checkpoint.DType, data ...byte) checkpoint.Tensor {
		n := int64(len(data)) / dtype.Size()
		return checkpoint.Tensor{Name: name, DType: dtype, Global: []int64{n}, Offset: []int64{0}, Shape: []int64{n}, Data: data}
	}
	return commit(tb, s, 1, []checkpoint.Tensor{half(0)}, []checkpoint.Tensor{
		half(1), checkpoint.Whole("scalar", []int64{-42}), checkpoint.Whole("none", []float32{}, 0, 3), checkpoint.Whole("cube", []float64{1, 2, 3, 4, 5, 6, 7, 8}, 2, 2, 2),
		raw("bf16", checkpoint.BFloat16, 0x80, 0x3f, 0, 0x40), raw("f16", checkpoint.Float16, 0, 0x3c), raw("bool", checkpoint.Bool, 1, 0, 1),
		checkpoint.Whole("u8", []uint8{200}, 1), raw("i8", checkpoint.Int8, 0xfd), raw("i16", checkpoint.Int16, 0xd4, 0xfe), raw("i32", checkpoint.Int32, 0x90, 0xee, 0xfe, 0xff),
	})
}

// TestPyTorchReadsIt, also as nothing but weights, where PyTorch is installed.
func TestPyTorchReadsIt(t *testing.T) {
	t.Parallel()
	python := "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import torch").Run(); err != nil {
		t.Skip("python3 with torch is not installed: apt-get install python3-torch")
	}
	s := open(t)
	m := sharded(t, s)
	path := filepath.Join(t.TempDir(), "model.pt")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(Export(t.Context(), s, m, f), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command(python, "-c", `import sys, torch
for x in torch.load(sys.argv[1]), torch.load(sys.argv[1], weights_only=True):
    w = x["layer.0/weight é"]
    print(type(x).__name__, len(x), tuple(w.shape), w.dtype, w.is_contiguous(), torch.equal(w.flatten(), torch.arange(4200, dtype=torch.float32) / 3))
    print(*[(k, str(v.dtype)[6:], v.tolist()) for k, v in x.items() if v.numel() < 99])`, path).CombinedOutput()
	const one = "OrderedDict 11 (600, 7) torch.float32 True True\n" +
		"('bf16', 'bfloat16', [1.0, 2.0]) ('bool', 'bool', [True, False, True]) ('cube', 'float64', [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]) " +
		"('f16', 'float16', [1.0]) ('i16', 'int16', [-300]) ('i32', 'int32', [-70000]) ('i8', 'int8', [-3]) ('none', 'float32', []) ('scalar', 'int64', -42) ('u8', 'uint8', [200])\n"
	if want := one + one; err != nil || string(got) != want {
		t.Errorf("python says %v\n%s\nwant\n%s", err, got, want)
	}
}

// TestRecords looks at the file without PyTorch: each tensor's bytes are a record of their own, as they are in the checkpoint.
func TestRecords(t *testing.T) {
	t.Parallel()
	s := open(t)
	m := sharded(t, s)
	var out bytes.Buffer
	if err := Export(t.Context(), s, m, &out); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	names := m.TensorNames()
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r) // checks the sum
		if err != nil || f.Method != zip.Store {
			t.Errorf("%s: method %d, %v", f.Name, f.Method, err)
		}
		if f.Name == top+"/data/8" && (names[8] != "none" || len(data) > 0) || f.Name == top+"/version" && string(data) != "3\n" {
			t.Errorf("%s holds %d bytes", f.Name, len(data))
		}
		if f.Name == top+"/data.pkl" && (!bytes.HasPrefix(data, []byte{opProto, 2, 'c'}) || !bytes.Contains(data, []byte("layer.0/weight é")) || data[len(data)-1] != opStop) {
			t.Errorf("the description is %q", data)
		}
	}
	if len(z.File) != len(names)+3 {
		t.Errorf("%d records of %d tensors", len(z.File), len(names))
	}
	if got := strides([]int64{2, 0, 5}); !slices.Equal(got, []int64{5, 5, 1}) {
		t.Errorf("strides of an empty one are %v", got)
	}
	large := pickle{}
	if large.number(1 << 40); !bytes.Equal(large.out, []byte{opLong1, 8, 0, 0, 0, 0, 0, 1, 0, 0}) {
		t.Errorf("2^40 is %v", large.out)
	}
}

func TestWhatCanNotBeExported(t *testing.T) {
	t.Parallel()
	s := open(t)
	m := commit(t, s, 1, []checkpoint.Tensor{{Name: "counts", DType: checkpoint.Uint32, Global: []int64{1}, Offset: []int64{0}, Shape: []int64{1}, Data: make([]byte, 4)}})
	if err := Export(t.Context(), s, m, io.Discard); !errors.Is(err, checkpoint.ErrInvalid) || !strings.Contains(err.Error(), "safetensors") {
		t.Errorf("uint32: %v, want ErrInvalid and what to do", err)
	}
	m.WorldSize = 0
	if err := Export(t.Context(), s, m, io.Discard); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("files: %v", err)
	}
	for path, want := range map[string]bool{"m.pt": true, "/a/b.pth": true, "pt": false, "m.safetensors": false} {
		if Named(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}
