package checkpoint_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
)

// BenchmarkEncoded saves and loads 128 MiB of weights in each way to store them: float32 as they are initialised, and bfloat16 after a
// step of training that moved them by a thousandth. Beside MB/s it tells the stored bytes by the state's.
func BenchmarkEncoded(b *testing.B) {
	const n = 64 << 20 // bytes of each
	key := testKey(b, 1)
	rng := rand.New(rand.NewPCG(1, 2))
	full, half := make([]float32, n/4), make([]byte, n)
	master := make([]float32, n/2)
	for i := range full {
		full[i] = float32(rng.NormFloat64() * .02)
	}
	for i := range master {
		master[i] = float32(rng.NormFloat64() * .02)
	}
	step := func() { // of an optimizer whose master copy is float32
		for i := range master {
			master[i] += float32(rng.NormFloat64() * 2e-5)
			binary.LittleEndian.PutUint16(half[2*i:], uint16(math.Float32bits(master[i])>>16)) //nolint:gosec // the upper half
		}
	}
	whole := checkpoint.Tensor{Name: "half", DType: checkpoint.BFloat16, Global: []int64{n / 2}, Offset: []int64{0}, Shape: []int64{n / 2}, Data: half}
	for _, c := range []struct {
		name    string
		cfg     checkpoint.Config
		tensors []checkpoint.Tensor
	}{
		{"fp32", checkpoint.Config{}, []checkpoint.Tensor{checkpoint.Whole("full", full, n/4)}},
		{"fp32/key", checkpoint.Config{Key: key}, []checkpoint.Tensor{checkpoint.Whole("full", full, n/4)}},
		{"fp32/zstd", checkpoint.Config{Compress: checkpoint.Zstd}, []checkpoint.Tensor{checkpoint.Whole("full", full, n/4)}},
		{"bf16", checkpoint.Config{}, []checkpoint.Tensor{whole}},
		{"bf16/zstd", checkpoint.Config{Compress: checkpoint.Zstd}, []checkpoint.Tensor{whole}},
		{"bf16/zstd,key", checkpoint.Config{Compress: checkpoint.Zstd, Key: key}, []checkpoint.Tensor{whole}},
		{"bf16/zstd,delta", checkpoint.Config{Compress: checkpoint.Zstd, Delta: 1 << 20}, []checkpoint.Tensor{whole}},
	} {
		dir, err := checkpoint.NewDir(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		c.cfg.ReferenceShare = -1
		c.cfg.ChunkBytes = checkpoint.DefaultChunkBytes
		s := openAs(b, dir, c.cfg)
		mustFence(b, s, 1)
		at := uint64(0)
		save := func() checkpoint.Manifest {
			at++
			w := checkpoint.ShardWrite{Epoch: 1, Step: at, WorldSize: 1, Tensors: c.tensors}
			if _, err := s.WriteShard(b.Context(), w); err != nil {
				b.Fatal(err)
			}
			m, err := s.Commit(b.Context(), checkpoint.CommitRequest{Epoch: 1, Step: at, WorldSize: 1})
			if err != nil {
				b.Fatal(err)
			}
			return m
		}
		step()
		m := save()
		b.Run(fmt.Sprintf("save/%s", c.name), func(b *testing.B) {
			b.SetBytes(n)
			cpu := 0.0
			for b.Loop() {
				b.StopTimer()
				if _, err := s.Collect(b.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1}); err != nil {
					b.Fatal(err)
				}
				step()
				b.StartTimer()
				cpu -= cpuSeconds(b)
				m = save()
				cpu += cpuSeconds(b)
			}
			b.ReportMetric(float64(m.Bytes())/n, "stored/state")
			b.ReportMetric(cpu/float64(b.N)/n*1e9, "cpu-s/GB")
		})
		b.Run(fmt.Sprintf("load/%s", c.name), func(b *testing.B) {
			b.SetBytes(n)
			got := make([]byte, n)
			cpu := -cpuSeconds(b)
			for b.Loop() {
				r := s.NewReader(m)
				t := c.tensors[0]
				if err := r.ReadRaw(b.Context(), t.Name, t.Offset, t.Shape, got); err != nil {
					b.Fatal(err)
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpu+cpuSeconds(b))/float64(b.N)/n*1e9, "cpu-s/GB")
		})
	}
}

// cpuSeconds is the processor time of this process, which a busy machine changes less than the time that passes.
func cpuSeconds(tb testing.TB) float64 {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
