package checkpoint_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

// BenchmarkFrozen saves 256 MiB of which one part in 16 trains: written each time, and with what stands still referred to.
func BenchmarkFrozen(b *testing.B) {
	const n, parts = 256 << 20, 16
	state := benchState(n)
	for _, share := range []float64{-1, 0} {
		dir, err := checkpoint.NewDir(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		s := openAs(b, dir, checkpoint.Config{ReferenceShare: share, ChunkBytes: checkpoint.DefaultChunkBytes})
		mustFence(b, s, 1)
		at := uint64(0)
		save := func() checkpoint.Manifest {
			at++
			w := checkpoint.ShardWrite{Epoch: 1, Step: at, WorldSize: 1}
			for i := range parts {
				lo, hi := checkpoint.ShareRange(int64(len(state)), i, parts)
				w.Tensors = append(w.Tensors, checkpoint.Whole(fmt.Sprintf("layer%d", i), state[lo:hi], hi-lo))
			}
			if _, err := s.WriteShard(b.Context(), w); err != nil {
				b.Fatal(err)
			}
			m, err := s.Commit(b.Context(), checkpoint.CommitRequest{Epoch: 1, Step: at, WorldSize: 1})
			if err != nil {
				b.Fatal(err)
			}
			return m
		}
		m := save()
		b.Run(fmt.Sprintf("share%v", share), func(b *testing.B) {
			b.SetBytes(n)
			cpu := 0.0
			for b.Loop() {
				b.StopTimer()
				if _, err := s.Collect(b.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1}); err != nil {
					b.Fatal(err)
				}
				for i := range state[:n/4/parts] {
					state[i] = math.Float32frombits(math.Float32bits(state[i]) + 1)
				}
				b.StartTimer()
				cpu -= cpuSeconds(b)
				m = save()
				cpu += cpuSeconds(b)
			}
			b.ReportMetric(cpu/float64(b.N)/n*1e9, "cpu-s/GB")
			b.ReportMetric(float64(m.Bytes())/n, "written/state")
		})
	}
}
