package checkpoint_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/checkpoint"
)

func TestCompareTensors(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	write := func(step uint64, world int, w []float32, more ...checkpoint.Tensor) checkpoint.Manifest {
		for rank := range world {
			ts := []checkpoint.Tensor{checkpoint.Share("w", w, rank, world)}
			if rank == 0 {
				ts = append(ts, more...)
			}
			if _, err := s.WriteShard(t.Context(), checkpoint.ShardWrite{Epoch: 1, Step: step, Rank: rank, WorldSize: world, Tensors: ts}); err != nil {
				t.Fatal(err)
			}
		}
		m, err := s.Commit(t.Context(), commitOf(ref(1, step), world))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	half := func(b ...byte) checkpoint.Tensor {
		return checkpoint.Tensor{Name: "h", DType: checkpoint.Float16, Global: []int64{2}, Offset: []int64{0}, Shape: []int64{2}, Data: b}
	}
	w := weights(ref(1, 1), testLen)
	a := write(1, 2, w, checkpoint.Whole("same", []int64{7}), checkpoint.Whole("gone", []int64{7}), checkpoint.Whole("form", []int64{7}), half(0, 0x3c, 1, 0))
	w[0] += 0.5
	w[testLen-1] -= 4
	b := write(2, 3, w, checkpoint.Whole("same", []int64{7}), checkpoint.Whole("new", []int64{7}), checkpoint.Whole("form", []uint8{7}), half(0, 0xc0, 1, 0))
	got, same, err := checkpoint.Compare(t.Context(), s, a, b)
	want := []checkpoint.Difference{
		{Name: "form", Kind: checkpoint.DiffForm},
		{Name: "gone", Kind: checkpoint.DiffOnlyA},
		{Name: "h", Kind: checkpoint.DiffContent, Changed: 1, Of: 2, MaxAbs: 3},
		{Name: "new", Kind: checkpoint.DiffOnlyB},
		{Name: "w", Kind: checkpoint.DiffContent, Changed: 2, Of: testLen, MaxAbs: 4},
	}
	if err != nil || same != 1 || !cmp.Equal(got, want) {
		t.Errorf("%d are the same, %v, %s", same, err, cmp.Diff(want, got))
	}
	w[1] = float32(math.NaN())
	c := write(3, 1, w)
	if got, _, err = checkpoint.Compare(t.Context(), s, b, c); err != nil || !math.IsNaN(got[len(got)-1].MaxAbs) {
		t.Errorf("with a NaN: %+v, %v", got, err)
	}
}

func TestCompareFiles(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	a := commitFiles(t, s, disk, ref(1, 1))
	putFiles(t, disk, "tmp-2", 1)
	put(t, disk, "tmp-2/model.pt", append(content(1, 1)[:testChunk], content(2, 1)[testChunk:]...))
	put(t, disk, "tmp-2/more", nil)
	b, err := s.CommitFiles(t.Context(), filesOf(ref(1, 2)))
	if err != nil {
		t.Fatal(err)
	}
	got, same, err := checkpoint.Compare(t.Context(), s, a, b)
	want := []checkpoint.Difference{
		{Name: "model.pt", Kind: checkpoint.DiffContent, Changed: 1, Of: 2},
		{Name: "more", Kind: checkpoint.DiffOnlyB},
	}
	if err != nil || same != 2 || !cmp.Equal(got, want) {
		t.Errorf("%d are the same, %v, %s", same, err, cmp.Diff(want, got))
	}
	mustSave(t, s, ref(1, 3), 1)
	m, err := s.Load(t.Context(), ref(1, 3))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := checkpoint.Compare(t.Context(), s, a, m); err == nil {
		t.Error("files were compared with tensors")
	}
}
