package checkpoint_test

import (
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

// BenchmarkDrain copies a shard of 256 MiB from one directory to another, verified and durable. Its processor time is what draining costs a node.
func BenchmarkDrain(b *testing.B) {
	shared, err := checkpoint.NewDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	own, err := checkpoint.NewDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s, err := checkpoint.Open(checkpoint.Config{FS: shared, Job: testJob, Local: &checkpoint.Local{FS: own}})
	if err != nil {
		b.Fatal(err)
	}
	mustFence(b, s, 1)
	info, err := s.WriteShard(b.Context(), checkpoint.ShardWrite{
		Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{checkpoint.Whole("w", make([]float32, 64<<20), 64<<20)},
	})
	if err != nil {
		b.Fatal(err)
	}
	p, err := s.LocalShard(b.Context(), ref(1, 1), info.File)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Bytes)
	for b.Loop() {
		src, err := own.Open(p.File())
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Drain(b.Context(), p, src, nil); err != nil {
			b.Fatal(err)
		}
		if err := src.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
