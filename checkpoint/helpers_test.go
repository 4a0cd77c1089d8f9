package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

const (
	testJob   = "digits-7"
	testChunk = checkpoint.Align // small chunks make many boundaries
	testLen   = 3000             // float32 elements of the test tensor: more than one chunk
)

func open(tb testing.TB, fsys checkpoint.FS) *checkpoint.Store {
	tb.Helper()
	s, err := checkpoint.Open(checkpoint.Config{FS: fsys, Job: testJob, ChunkBytes: testChunk})
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	return s
}

// weights gives the test tensor of one checkpoint: every element tells which one it is from.
func weights(ref checkpoint.Ref, n int) []float32 {
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(ref.Epoch)*1e6 + float32(ref.Step)*1e4 + float32(i)
	}
	return w
}

func shard(ref checkpoint.Ref, rank, world int) checkpoint.ShardWrite {
	w := weights(ref, testLen)
	return checkpoint.ShardWrite{
		Epoch: ref.Epoch, Step: ref.Step, Rank: rank, WorldSize: world,
		Tensors: []checkpoint.Tensor{
			checkpoint.Share("w", w, rank, world),
			checkpoint.Whole(fmt.Sprintf("rng/%d", rank), []uint8{byte(rank), 1, 2}, 3),
		},
		Meta: map[string]string{"data_position": fmt.Sprint(rank)},
	}
}

func commitOf(ref checkpoint.Ref, world int) checkpoint.CommitRequest {
	return checkpoint.CommitRequest{
		Epoch: ref.Epoch, Step: ref.Step, WorldSize: world, Meta: map[string]string{"lr": "0.1"},
	}
}

// save does what a gang does for one step; it gives the first error, as ranks that tell each other would.
func save(ctx context.Context, s *checkpoint.Store, ref checkpoint.Ref, world int) error {
	for rank := range world {
		if _, err := s.WriteShard(ctx, shard(ref, rank, world)); err != nil {
			return err
		}
	}
	_, err := s.Commit(ctx, commitOf(ref, world))
	return err
}

func mustSave(tb testing.TB, s *checkpoint.Store, ref checkpoint.Ref, world int) {
	tb.Helper()
	if err := save(tb.Context(), s, ref, world); err != nil {
		tb.Fatalf("save %v: %v", ref, err)
	}
}

func mustFence(tb testing.TB, s *checkpoint.Store, epoch uint64) {
	tb.Helper()
	if err := s.Fence(tb.Context(), epoch); err != nil {
		tb.Fatalf("fence %d: %v", epoch, err)
	}
}

// wantLatest checks that Latest gives ref, and that its content is ref's. The zero Ref stands for none.
func wantLatest(tb testing.TB, s *checkpoint.Store, want checkpoint.Ref) {
	tb.Helper()
	if got := latest(tb, s); got != want {
		tb.Fatalf("latest is %v, want %v", got, want)
	}
}

// latest gives the newest checkpoint after checking that its content is its own; the zero Ref if there is none.
func latest(tb testing.TB, s *checkpoint.Store) checkpoint.Ref {
	tb.Helper()
	m, _, err := s.Latest(tb.Context())
	if errors.Is(err, checkpoint.ErrNone) {
		return checkpoint.Ref{}
	}
	if err != nil {
		tb.Fatalf("latest: %v", err)
	}
	wantContent(tb, s, m)
	return m.Ref()
}

func wantContent(tb testing.TB, s *checkpoint.Store, m checkpoint.Manifest) {
	tb.Helper()
	got := make([]float32, testLen)
	if err := s.ReadTensor(tb.Context(), m, "w", got); err != nil {
		tb.Fatalf("read %v: %v", m.Ref(), err)
	}
	for i, want := range weights(m.Ref(), testLen) {
		if got[i] != want {
			tb.Fatalf("%v: w[%d] = %v, want %v", m.Ref(), i, got[i], want)
		}
	}
}

func ref(epoch, step uint64) checkpoint.Ref { return checkpoint.Ref{Epoch: epoch, Step: step} }

// begun gives a store on a fresh disk with an epoch begun.
func begun(tb testing.TB, epoch uint64) (*faultfs.FS, *checkpoint.Store) {
	tb.Helper()
	disk := faultfs.New()
	s := open(tb, disk)
	mustFence(tb, s, epoch)
	return disk, s
}
