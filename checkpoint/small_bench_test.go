package checkpoint_test

import (
	"fmt"
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

// BenchmarkSaveSmall saves 10,000 tensors against one of the same size: what names and places cost. Compare user CPU as well.
func BenchmarkSaveSmall(b *testing.B) {
	const total = 64 << 20
	data := make([]float32, total/4)
	for _, count := range []int64{1, 10_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			fsys, err := checkpoint.NewDir(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			s, err := checkpoint.Open(checkpoint.Config{FS: fsys, Job: testJob, ReferenceShare: -1})
			if err != nil {
				b.Fatal(err)
			}
			mustFence(b, s, 1)
			var tensors []checkpoint.Tensor
			for i := range count {
				lo, hi := checkpoint.ShareRange(int64(len(data)), int(i), int(count))
				tensors = append(tensors, checkpoint.Whole(fmt.Sprintf("layer.%d.weight", i), data[lo:hi], hi-lo))
			}
			b.SetBytes(total)
			b.ReportAllocs()
			for step := uint64(1); b.Loop(); step++ {
				if _, err := s.WriteShard(b.Context(), checkpoint.ShardWrite{Epoch: 1, Step: step, WorldSize: 1, Tensors: tensors}); err != nil {
					b.Fatal(err)
				}
				if _, err := s.Commit(b.Context(), commitOf(ref(1, step), 1)); err != nil {
					b.Fatal(err)
				}
				if _, err := s.Collect(b.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
