package checkpoint_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

func TestRoundTripOnDisk(t *testing.T) {
	t.Parallel()
	dir, err := checkpoint.NewDir(filepath.Join(t.TempDir(), "job", "7"))
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if _, _, err := s.Latest(t.Context()); !errors.Is(err, checkpoint.ErrNone) {
		t.Fatalf("latest of nothing: %v, want ErrNone", err)
	}
	mustFence(t, s, 1)
	const world = 4
	var wg sync.WaitGroup
	for rank := range world { // each rank with a Store of its own, at the same time, as processes do
		wg.Go(func() {
			if _, err := open(t, dir).WriteShard(t.Context(), shard(ref(1, 20), rank, world)); err != nil {
				t.Errorf("rank %d: %v", rank, err)
			}
		})
	}
	wg.Wait()
	committed, err := s.Commit(t.Context(), commitOf(ref(1, 20), world))
	if err != nil {
		t.Fatal(err)
	}
	m, skipped, err := open(t, dir).Latest(t.Context())
	if err != nil || len(skipped) != 0 {
		t.Fatalf("latest: %v, skipped %v", err, skipped)
	}
	if diff := cmp.Diff(committed, m); diff != "" {
		t.Errorf("manifest read differs from the one committed (-committed +read):\n%s", diff)
	}
	wantContent(t, s, m)
	if m.Meta["lr"] != "0.1" || m.Shards[3].Meta["data_position"] != "3" {
		t.Errorf("meta is lost: %v, %v", m.Meta, m.Shards[3].Meta)
	}
	if got := m.TensorNames(); !cmp.Equal(got, []string{"rng/0", "rng/1", "rng/2", "rng/3", "w"}) {
		t.Errorf("tensors %v", got)
	}
	loaded, err := s.Load(t.Context(), ref(1, 20))
	if err != nil || !cmp.Equal(loaded, m) {
		t.Errorf("load by ref: %v", err)
	}
	if _, err := s.Load(t.Context(), ref(1, 21)); !errors.Is(err, checkpoint.ErrNone) {
		t.Errorf("load of a step that is not there: %v, want ErrNone", err)
	}
}

func TestReadEveryType(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	_, err := s.WriteShard(t.Context(), checkpoint.ShardWrite{
		Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{
			checkpoint.Whole("f64", []float64{1.5, -2}, 2),
			checkpoint.Whole("empty", []float32{}, 0),
			checkpoint.Whole("i64", []int64{-1 << 62}),
			checkpoint.Whole("raw", []byte("optimizer"), 9),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Commit(t.Context(), commitOf(ref(1, 1), 1))
	if err != nil {
		t.Fatal(err)
	}
	r := s.NewReader(m)
	defer r.Close()
	f64, i64, raw := make([]float64, 2), make([]int64, 1), make([]byte, 9)
	err = errors.Join(
		checkpoint.Read(t.Context(), r, "f64", f64), checkpoint.Read(t.Context(), r, "i64", i64),
		checkpoint.Read(t.Context(), r, "raw", raw), checkpoint.Read(t.Context(), r, "empty", []float32{}))
	if err != nil {
		t.Fatal(err)
	}
	if f64[0] != 1.5 || f64[1] != -2 || i64[0] != -1<<62 || string(raw) != "optimizer" {
		t.Errorf("got %v %v %q", f64, i64, raw)
	}
	if err := checkpoint.Read(t.Context(), r, "f64", make([]float32, 2)); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("read as another type: %v, want ErrInvalid", err)
	}
	if err := checkpoint.Read(t.Context(), r, "raw", make([]byte, 8)); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("read into a short slice: %v, want ErrInvalid", err)
	}
	if err := checkpoint.Read(t.Context(), r, "bias", make([]byte, 8)); !errors.Is(err, checkpoint.ErrNoTensor) {
		t.Errorf("read of an unknown name: %v, want ErrNoTensor", err)
	}
}

func TestCommitNeedsEveryShard(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	for _, rank := range []int{0, 2, 3} {
		if _, err := s.WriteShard(t.Context(), shard(ref(1, 5), rank, 4)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Commit(t.Context(), commitOf(ref(1, 5), 4))
	if !errors.Is(err, checkpoint.ErrIncomplete) || !strings.Contains(err.Error(), "ranks [1]") {
		t.Fatalf("commit without rank 1: %v, want ErrIncomplete naming it", err)
	}
	wantLatest(t, s, checkpoint.Ref{})
	if _, err := s.WriteShard(t.Context(), shard(ref(1, 5), 1, 4)); err != nil {
		t.Fatal(err)
	}
	first, err := s.Commit(t.Context(), commitOf(ref(1, 5), 4))
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Commit(t.Context(), commitOf(ref(1, 5), 4))
	if err != nil || !cmp.Equal(first, again) {
		t.Errorf("repeated commit: %v, or another manifest", err)
	}
	if _, err := s.WriteShard(t.Context(), shard(ref(1, 5), 1, 4)); !errors.Is(err, checkpoint.ErrCommitted) {
		t.Errorf("write into a committed step: %v, want ErrCommitted", err)
	}
	wantLatest(t, s, ref(1, 5))
}

func TestRequestsThatBreakTheFormat(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	vec := func(name string, n, global, at int64) checkpoint.Tensor {
		return checkpoint.Part(name, make([]float32, n), []int64{global}, []int64{at}, []int64{n})
	}
	tests := map[string]checkpoint.ShardWrite{
		"no epoch":        {Step: 1, WorldSize: 1},
		"rank too high":   {Epoch: 1, Step: 1, Rank: 1, WorldSize: 1},
		"negative rank":   {Epoch: 1, Step: 1, Rank: -1, WorldSize: 1},
		"no world":        {Epoch: 1, Step: 1},
		"box outside":     {Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{vec("w", 4, 6, 3)}},
		"twice":           {Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{vec("w", 1, 2, 0), vec("w", 1, 2, 1)}},
		"no name":         {Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{vec("", 1, 1, 0)}},
		"data too short":  {Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{checkpoint.Whole("w", make([]float32, 5), 2, 3)}},
		"shape too large": {Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{checkpoint.Whole("w", []float32{}, 1<<40, 1<<40)}},
		"unknown type":    {Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{{Name: "w", DType: "float16"}}},
		"meta too large":  {Epoch: 1, Step: 1, WorldSize: 1, Meta: map[string]string{"k": strings.Repeat("x", checkpoint.MaxMetaBytes)}},
	}
	for name, w := range tests {
		if _, err := s.WriteShard(t.Context(), w); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func TestCommitRefusesGapsAndOverlaps(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		parts [2][2]int64 // [lo, hi) of 10 elements, per rank
		ok    bool
	}{
		{"fits", [2][2]int64{{0, 6}, {6, 10}}, true},
		{"turned", [2][2]int64{{6, 10}, {0, 6}}, true},
		{"one has all", [2][2]int64{{0, 10}, {10, 10}}, true},
		{"gap", [2][2]int64{{0, 5}, {6, 10}}, false},
		{"overlap", [2][2]int64{{0, 6}, {5, 10}}, false},
		{"overlap and gap of one size", [2][2]int64{{0, 6}, {5, 9}}, false},
	}
	for _, tt := range tests {
		_, s := begun(t, 1)
		for rank, p := range tt.parts {
			data := make([]float32, p[1]-p[0])
			w := checkpoint.ShardWrite{Epoch: 1, Step: 1, Rank: rank, WorldSize: 2, Tensors: []checkpoint.Tensor{
				checkpoint.Part("w", data, []int64{10}, []int64{p[0]}, []int64{p[1] - p[0]}),
			}}
			if _, err := s.WriteShard(t.Context(), w); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
		}
		_, err := s.Commit(t.Context(), commitOf(ref(1, 1), 2))
		if tt.ok != (err == nil) || err != nil && !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("%s: %v, want ok %v", tt.name, err, tt.ok)
		}
	}
}

func TestOtherJobsDirectoryIsNotResumed(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustSave(t, s, ref(1, 3), 2)
	other, err := checkpoint.Open(checkpoint.Config{FS: disk, Job: "another"})
	if err != nil {
		t.Fatal(err)
	}
	_, skipped, err := other.Latest(t.Context())
	if !errors.Is(err, checkpoint.ErrAllBad) || len(skipped) != 1 {
		t.Errorf("latest of another job: %v, skipped %v; want ErrAllBad", err, skipped)
	}
}

func TestCancelledContextStopsBetweenChunks(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustSave(t, s, ref(1, 1), 2)
	ctx, cancel := context.WithCancel(t.Context())
	disk.Arm(faultfs.Plan{Before: func(_ int, op, _ string) {
		if op == "write" {
			cancel() // while the first chunk is on its way
		}
	}})
	big := checkpoint.ShardWrite{Epoch: 1, Step: 2, WorldSize: 1, Tensors: []checkpoint.Tensor{
		checkpoint.Whole("w", make([]float32, 1<<20), 1<<20),
	}}
	if _, err := s.WriteShard(ctx, big); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled write: %v, want context.Canceled", err)
	}
	if n := disk.Ops(); n > 100 { // the whole file has over 1,000 chunks
		t.Errorf("%d operations after the cancel", n)
	}
	disk.Arm(faultfs.Plan{})
	noHalfFiles(t, disk)
	wantLatest(t, s, ref(1, 1))
	if _, _, err := s.Latest(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled latest: %v, want context.Canceled", err)
	}
}

func noHalfFiles(t *testing.T, disk *faultfs.FS) {
	t.Helper()
	for _, name := range disk.Names() {
		if strings.HasSuffix(name, ".tmp") {
			t.Errorf("half-written file stays: %s", name)
		}
	}
}

func TestOpenRefusesBadConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []checkpoint.Config{
		{Job: "j"},
		{FS: faultfs.New()},
		{FS: faultfs.New(), Job: "j", ChunkBytes: 1000},
		{FS: faultfs.New(), Job: "j", VerifyWorkers: -1},
	} {
		if _, err := checkpoint.Open(cfg); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("open %+v: %v, want ErrInvalid", cfg, err)
		}
	}
}

func TestBulkFileFallsBackWithoutDirectIO(t *testing.T) {
	t.Parallel()
	const shm = "/dev/shm" // tmpfs: refuses or ignores O_DIRECT, depending on the kernel
	if _, err := os.Stat(shm); err != nil {
		t.Skip("no /dev/shm on this machine")
	}
	path, err := os.MkdirTemp(shm, "gangline-checkpoint-test") //nolint:usetesting // it must lie in memory, where O_DIRECT is refused
	if err != nil {
		t.Skipf("can not write to /dev/shm: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(path) }) // best effort
	dir, err := checkpoint.NewDir(path)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	mustFence(t, s, 1)
	mustSave(t, s, ref(1, 1), 2)
	wantLatest(t, s, ref(1, 1))
}
