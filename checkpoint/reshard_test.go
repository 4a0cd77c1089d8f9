package checkpoint_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/checkpoint"
)

// matrix is a global tensor whose element at (i, j) is 1000*i + j.
type matrix struct{ rows, cols int64 }

func (m matrix) box(offset, shape []int64) []float32 {
	var out []float32
	for i := offset[0]; i < offset[0]+shape[0]; i++ {
		for j := offset[1]; j < offset[1]+shape[1]; j++ {
			out = append(out, float32(1000*i+j))
		}
	}
	return out
}

// TestReshard writes with 4 ranks, and each later world reads its own slices, then writes with its own number: 4 -> 2 -> 8 -> 3 -> 8 -> 1. The cut
// goes along rows, then columns, and so on.
func TestReshard(t *testing.T) {
	t.Parallel()
	global := matrix{rows: 61, cols: 47}
	shape := []int64{global.rows, global.cols}
	cut := func(turn, rank, world int) (offset, part []int64) {
		d := turn % 2
		lo, hi := checkpoint.ShareRange(shape[d], rank, world)
		offset, part = []int64{0, 0}, []int64{shape[0], shape[1]}
		offset[d], part[d] = lo, hi-lo
		return offset, part
	}
	_, s := begun(t, 1)
	var held [][]float32 // by rank, what the world before wrote
	for turn, world := range []int{4, 2, 8, 3, 8, 1} {
		epoch := uint64(turn + 1)
		mustFence(t, s, epoch)
		next := make([][]float32, world)
		for rank := range world {
			offset, part := cut(turn, rank, world)
			next[rank] = make([]float32, part[0]*part[1])
			if turn == 0 {
				next[rank] = global.box(offset, part)
				continue
			}
			m, _, err := s.Latest(t.Context())
			if err != nil || m.WorldSize != len(held) {
				t.Fatalf("world %d: latest is of %d ranks, %v", world, m.WorldSize, err)
			}
			r := s.NewReader(m)
			if err := checkpoint.ReadBox(t.Context(), r, "w", offset, part, next[rank]); err != nil {
				t.Fatal(err)
			}
			_ = r.Close() // read only
		}
		for rank := range world {
			offset, part := cut(turn, rank, world)
			if got, want := fmt.Sprint(next[rank]), fmt.Sprint(global.box(offset, part)); got != want {
				t.Fatalf("world %d rank %d: got %.60s, want %.60s", world, rank, got, want)
			}
			w := checkpoint.ShardWrite{Epoch: epoch, Step: epoch, Rank: rank, WorldSize: world, Tensors: []checkpoint.Tensor{
				checkpoint.Part("w", next[rank], shape, offset, part),
			}}
			if _, err := s.WriteShard(t.Context(), w); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Commit(t.Context(), checkpoint.CommitRequest{Epoch: epoch, Step: epoch, WorldSize: world}); err != nil {
			t.Fatal(err)
		}
		held = next
	}
}

// TestReadAnyBox cuts a tensor of up to four dimensions into a random grid, and reads random boxes of it.
func TestReadAnyBox(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dims := rapid.IntRange(0, 4).Draw(rt, "dims")
		global, parts := make([]int64, dims), make([]int64, dims)
		world, volume := 1, int64(1)
		for d := range dims {
			global[d] = rapid.Int64Range(1, 13).Draw(rt, "size")
			parts[d] = rapid.Int64Range(1, min(3, global[d])).Draw(rt, "parts")
			world *= int(parts[d])
			volume *= global[d]
		}
		all := make([]int64, volume)
		for i := range all {
			all[i] = int64(i)
		}
		_, s := begun(t, 1)
		for rank := range world {
			offset, shape, left := make([]int64, dims), make([]int64, dims), rank
			for d := range dims {
				lo, hi := checkpoint.ShareRange(global[d], left%int(parts[d]), int(parts[d]))
				offset[d], shape[d], left = lo, hi-lo, left/int(parts[d])
			}
			w := checkpoint.ShardWrite{Epoch: 1, Step: 1, Rank: rank, WorldSize: world, Tensors: []checkpoint.Tensor{
				checkpoint.Part("w", boxOf(all, global, offset, shape), global, offset, shape),
			}}
			if _, err := s.WriteShard(t.Context(), w); err != nil {
				rt.Fatal(err)
			}
		}
		m, err := s.Commit(t.Context(), checkpoint.CommitRequest{Epoch: 1, Step: 1, WorldSize: world})
		if err != nil {
			rt.Fatal(err)
		}
		r := s.NewReader(m)
		defer r.Close()
		for range 5 {
			offset, shape := make([]int64, dims), make([]int64, dims)
			for d := range dims {
				offset[d] = rapid.Int64Range(0, global[d]).Draw(rt, "offset")
				shape[d] = rapid.Int64Range(0, global[d]-offset[d]).Draw(rt, "shape")
			}
			want := boxOf(all, global, offset, shape)
			got := make([]int64, len(want))
			if err := checkpoint.ReadBox(t.Context(), r, "w", offset, shape, got); err != nil {
				rt.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				rt.Fatalf("box of %v at %v in %v by %d ranks: got %v, want %v", shape, offset, global, world, got, want)
			}
		}
	})
}

// boxOf cuts a box out of a tensor, element by element: the plain way.
func boxOf(all, global, offset, shape []int64) []int64 {
	if len(global) == 0 {
		return all
	}
	inner := int64(1)
	for _, d := range global[1:] {
		inner *= d
	}
	out := []int64{}
	for i := offset[0]; i < offset[0]+shape[0]; i++ {
		out = append(out, boxOf(all[i*inner:(i+1)*inner], global[1:], offset[1:], shape[1:])...)
	}
	return out
}
