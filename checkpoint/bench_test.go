package checkpoint_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

// benchBytes is the size of one saved state: small with -short.
func benchBytes() int {
	if testing.Short() {
		return 64 << 20
	}
	return 512 << 20
}

func benchState(n int) []float32 {
	state := make([]float32, n/4)
	for i := range state {
		state[i] = float32(i) * 1.0001
	}
	return state
}

// BenchmarkSave compares, in one run, a durable checked save of one rank with the plainest durable write of the
// same bytes: write, fsync, close. GB/s is MB/s / 1000.
func BenchmarkSave(b *testing.B) {
	n := benchBytes()
	state := benchState(n)
	b.Run("plain", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "plain")
		raw := checkpoint.Whole("w", state, int64(len(state))).Data
		b.SetBytes(int64(n))
		for b.Loop() {
			f, err := os.Create(path)
			if err != nil {
				b.Fatal(err)
			}
			for rest := raw; len(rest) > 0; rest = rest[min(len(rest), 4<<20):] {
				if _, err := f.Write(rest[:min(len(rest), 4<<20)]); err != nil {
					b.Fatal(err)
				}
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			if err := f.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("checkpoint", func(b *testing.B) {
		s := benchStore(b)
		b.SetBytes(int64(n))
		step := uint64(0)
		for b.Loop() {
			step++
			saveState(b, s, step, state)
			b.StopTimer()
			if _, err := s.Collect(b.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

// BenchmarkResume finds, verifies and reads a checkpoint that the page cache holds after its first pass.
func BenchmarkResume(b *testing.B) {
	n := benchBytes()
	state := benchState(n)
	s := benchStore(b)
	saveState(b, s, 1, state)
	b.SetBytes(int64(n))
	for b.Loop() {
		m, _, err := s.Latest(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := s.ReadTensor(b.Context(), m, "w", state); err != nil {
			b.Fatal(err)
		}
	}
}

func benchStore(b *testing.B) *checkpoint.Store {
	b.Helper()
	dir, err := checkpoint.NewDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s, err := checkpoint.Open(checkpoint.Config{FS: dir, Job: testJob, ReferenceShare: -1}) // every save writes all
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Fence(b.Context(), 1); err != nil {
		b.Fatal(err)
	}
	return s
}

func saveState(b *testing.B, s *checkpoint.Store, step uint64, state []float32) {
	b.Helper()
	w := checkpoint.ShardWrite{Epoch: 1, Step: step, WorldSize: 1, Tensors: []checkpoint.Tensor{
		checkpoint.Whole("w", state, int64(len(state))),
	}}
	if _, err := s.WriteShard(b.Context(), w); err != nil {
		b.Fatal(err)
	}
	if _, err := s.Commit(b.Context(), checkpoint.CommitRequest{Epoch: 1, Step: step, WorldSize: 1}); err != nil {
		b.Fatal(err)
	}
}
