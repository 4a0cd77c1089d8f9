package async

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const elements = 5000

func open(tb testing.TB, fsys checkpoint.FS) *checkpoint.Store {
	tb.Helper()
	s, err := checkpoint.Open(checkpoint.Config{FS: fsys, Job: "j", ChunkBytes: checkpoint.Align})
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.Fence(tb.Context(), 1); err != nil {
		tb.Fatal(err)
	}
	return s
}

// state is a rank's weights at a step.
func state(step uint64) []float32 {
	w := make([]float32, elements)
	for i := range w {
		w[i] = float32(step)*1e5 + float32(i)
	}
	return w
}

func saver(tb testing.TB, store *checkpoint.Store, rank, world int, dir string, done func(Result)) *Saver {
	tb.Helper()
	s, err := New(Config{Store: store, Epoch: 1, Rank: rank, WorldSize: world, Dir: dir, Done: done})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func request(step uint64, w []float32, rank, world int) SaveRequest {
	return SaveRequest{
		Step: step, Tensors: []checkpoint.Tensor{checkpoint.Share("w", w, rank, world)},
		Commit: checkpoint.CommitRequest{Metrics: map[string]float64{"loss": float64(step)}},
	}
}

// wantLatest checks that the newest checkpoint is step's, with its content.
func wantLatest(tb testing.TB, s *checkpoint.Store, step uint64) {
	tb.Helper()
	m, skipped, err := s.Latest(tb.Context())
	if err != nil || m.Step != step || len(skipped) > 0 || m.Metrics["loss"] != float64(step) {
		tb.Fatalf("latest is %+v, %v, skipped %v; want step %d", m.Ref(), err, skipped, step)
	}
	got := make([]float32, elements)
	if err := s.ReadTensor(tb.Context(), m, "w", got); err != nil || !slices.Equal(got, state(step)) {
		tb.Fatalf("step %d holds something else: %v", step, err)
	}
}

// TestTrainingGoesOn changes the tensors right after each Save: what was copied is saved.
func TestTrainingGoesOn(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir() + "/images"} {
		const world = 3
		store := open(t, faultfs.New())
		var mu sync.Mutex
		var committed []uint64
		var ranks sync.WaitGroup
		var inStep [5]sync.WaitGroup // ranks train in step, as an all-reduce makes them
		for i := range inStep {
			inStep[i].Add(world)
		}
		for rank := range world {
			s := saver(t, store, rank, world, dir, func(r Result) {
				mu.Lock()
				defer mu.Unlock()
				if r.Err != nil {
					t.Errorf("step %d: %v", r.Step, r.Err)
				}
				if r.Manifest != nil {
					committed = append(committed, r.Step)
				}
			})
			ranks.Go(func() {
				for step := uint64(1); step <= 5; step++ {
					w := state(step)
					if _, err := s.Save(t.Context(), request(step, w, rank, world)); err != nil {
						t.Error(err)
					}
					clear(w)
					inStep[step-1].Done()
					inStep[step-1].Wait()
				}
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		ranks.Wait()
		if !slices.Equal(committed, []uint64{1, 2, 3, 4, 5}) {
			t.Errorf("committed %v", committed)
		}
		wantLatest(t, store, 5)
		if left, err := os.ReadDir(dir); dir != "" && (err != nil || len(left) > 0) {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// TestTooSoonWaits lets the storage hang: the second save waits for the first, and says so.
func TestTooSoonWaits(t *testing.T) {
	t.Parallel()
	disk := faultfs.New()
	store := open(t, disk)
	hang, reached := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.Arm(faultfs.Plan{Before: func(_ int, op, _ string) {
		if op == "sync" {
			once.Do(func() { close(reached); <-hang })
		}
	}})
	s := saver(t, store, 0, 1, "", nil)
	w := state(1)
	if stall, err := s.Save(t.Context(), request(1, w, 0, 1)); err != nil || stall.Copy <= 0 || stall.Total() < stall.Copy {
		t.Fatalf("%+v, %v", stall, err)
	}
	<-reached
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Save(ctx, request(2, w, 0, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("a save that comes too soon, and is given up: %v", err)
	}
	second := make(chan Stall)
	go func() {
		stall, err := s.Save(t.Context(), request(3, state(3), 0, 1))
		if err != nil {
			t.Error(err)
		}
		second <- stall
	}()
	select {
	case <-second:
		t.Error("a save did not wait for the one before")
	case <-time.After(20 * time.Millisecond): // it can only miss a fault, never make one up
	}
	close(hang)
	if stall := <-second; stall.Wait <= 0 {
		t.Errorf("the wait is not told: %+v", stall)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wantLatest(t, store, 3)
}

// TestAFailedSaveIsTold has one rank's disk fail: the step is no checkpoint, the next one is.
func TestAFailedSaveIsTold(t *testing.T) {
	t.Parallel()
	disk := faultfs.New()
	store := open(t, disk)
	broken := errors.New("broken disk")
	results := make(chan Result, 8)
	s := saver(t, store, 0, 1, "", func(r Result) { results <- r })
	disk.Arm(faultfs.Plan{FailAt: 9, Err: broken})
	if _, err := s.Save(t.Context(), request(1, state(1), 0, 1)); err != nil {
		t.Fatal(err)
	}
	if r := <-results; !errors.Is(r.Err, broken) {
		t.Errorf("step 1: %+v", r)
	}
	if _, err := s.Save(t.Context(), request(2, state(2), 0, 1)); err != nil {
		t.Fatal(err)
	}
	if r := <-results; r.Err != nil || r.Manifest == nil || r.Persist <= 0 {
		t.Errorf("step 2: %+v", r)
	}
	if err := s.Close(t.Context()); !errors.Is(err, broken) {
		t.Errorf("close: %v", err)
	}
	wantLatest(t, store, 2)
}

// TestAMissingRankGivesWayToANewerStep saves steps that another rank skips.
func TestAMissingRankGivesWayToANewerStep(t *testing.T) {
	t.Parallel()
	store := open(t, faultfs.New())
	results := make(chan Result, 8)
	zero := saver(t, store, 0, 2, "", func(r Result) { results <- r })
	one := saver(t, store, 1, 2, "", nil)
	for _, step := range []uint64{1, 2, 3} {
		if _, err := zero.Save(t.Context(), request(step, state(step), 0, 2)); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-results; r.Step != 1 || !errors.Is(r.Err, checkpoint.ErrIncomplete) {
		t.Errorf("step 1: %+v", r)
	}
	for _, step := range []uint64{2, 3} {
		if _, err := one.Save(t.Context(), request(step, state(step), 1, 2)); err != nil {
			t.Fatal(err)
		}
		if r := <-results; r.Step != step || r.Err != nil {
			t.Errorf("step %d: %+v", step, r)
		}
	}
	if err := errors.Join(one.Close(t.Context()), zero.Close(t.Context())); !errors.Is(err, checkpoint.ErrIncomplete) {
		t.Errorf("close: %v", err)
	}
	wantLatest(t, store, 3)
}

func TestSaveAllocatesNothing(t *testing.T) {
	store := open(t, faultfs.New())
	image := store.NewImage(checkpoint.AlignedBuffer(1 << 20))
	w := checkpoint.ShardWrite{Epoch: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{checkpoint.Whole("w", state(1), elements), checkpoint.Whole("n", []int64{1}, 1)}}
	if n := testing.AllocsPerRun(20, func() {
		w.Step++
		if err := image.Fill(w); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("a copy allocates %v times", n)
	}
}

// died leaves images and notes as a worker that was killed after its copy does: nothing of the step is durable.
func died(t *testing.T, step uint64, world int) string {
	t.Helper()
	dir := t.TempDir()
	dieWith(t, open(t, faultfs.New()), dir, step, world) // the store stands for the worker's, whose storage never answers
	return dir
}

func dieWith(t *testing.T, store *checkpoint.Store, dir string, step uint64, world int) {
	t.Helper()
	for rank := range world {
		m := memory{dir: dir, rank: rank}
		w := checkpoint.ShardWrite{Epoch: 1, Step: step, Rank: rank, WorldSize: world, Tensors: request(step, state(step), rank, world).Tensors}
		need, err := store.ImageBytes(w)
		if err != nil {
			t.Fatal(err)
		}
		mem, err := m.take(need)
		if err != nil {
			t.Fatal(err)
		}
		image := store.NewImage(mem)
		if err := image.Fill(w); err != nil {
			t.Fatal(err)
		}
		c := request(step, nil, rank, world).Commit
		c.Epoch, c.Step, c.WorldSize = 1, step, world
		if err := errors.Join(m.note(image, c), m.unmap()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFinishAfterTheDeathOfTheWorker(t *testing.T) {
	t.Parallel()
	dir := died(t, 7, 2)
	store := open(t, faultfs.New())
	got, err := Finish(t.Context(), store, dir, time.Minute)
	if err != nil || len(got) != 1 || got[0].Step != 7 {
		t.Fatalf("%v, %v", got, err)
	}
	wantLatest(t, store, 7)
	if left, _ := filepath.Glob(dir + "/*" + noteSuffix); len(left) > 0 {
		t.Errorf("notes are left: %v", left)
	}
	if got, err := Finish(t.Context(), store, filepath.Join(dir, "none"), 0); err != nil || len(got) > 0 {
		t.Errorf("no directory: %v, %v", got, err)
	}
}

// TestFinishRefusesWhatIsNotWhole: a later copy had begun in the same memory, a note is damaged, an epoch is over.
func TestFinishRefusesWhatIsNotWhole(t *testing.T) {
	t.Parallel()
	store := open(t, faultfs.New())
	dir := died(t, 7, 1)
	if err := store.Fence(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if _, err := Finish(t.Context(), store, dir, 0); !errors.Is(err, checkpoint.ErrFenced) {
		t.Errorf("an epoch that is over: %v", err)
	}
	store = open(t, faultfs.New())
	f, err := os.OpenFile(dir+"/rank-0"+imageSuffix, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{9}, 40); err != nil { // the step in the header
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := Finish(t.Context(), store, dir, 0); !errors.Is(err, checkpoint.ErrIncomplete) || len(got) > 0 {
		t.Errorf("an image of another step: %v, %v", got, err)
	}
	if err := os.WriteFile(dir+"/rank-0.step-7"+noteSuffix, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Finish(t.Context(), store, dir, 0); err == nil || len(got) > 0 {
		t.Errorf("a damaged note: %v, %v", got, err)
	}
	if _, _, err := store.Latest(t.Context()); !errors.Is(err, checkpoint.ErrNone) {
		t.Errorf("latest: %v", err)
	}
}

// TestFinishNeedsTheKey: an image that is to be encrypted is not written in the clear by an agent that has no key.
func TestFinishNeedsTheKey(t *testing.T) {
	t.Parallel()
	key, err := checkpoint.NewKey(make([]byte, checkpoint.KeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	dir, disk := t.TempDir(), faultfs.New()
	cfg := checkpoint.Config{FS: disk, Job: "j", ChunkBytes: checkpoint.Align, Compress: checkpoint.Zstd, Key: key}
	worker, err := checkpoint.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	dieWith(t, worker, dir, 7, 1)
	agent := open(t, disk)
	if got, err := Finish(t.Context(), agent, dir, 0); !errors.Is(err, checkpoint.ErrKey) || len(got) > 0 {
		t.Errorf("without the key: %v, %v", got, err)
	}
	for _, name := range disk.Names() {
		if strings.HasSuffix(name, ".glck") {
			t.Errorf("%s was written", name)
		}
	}
	if got, err := Finish(t.Context(), worker, dir, 0); err != nil || len(got) != 1 || got[0].KeyID() != key.ID() || got[0].Shards[0].Encoded.Compress != checkpoint.Zstd {
		t.Errorf("with the key: %v, %v", got, err)
	}
	wantLatest(t, worker, 7)
}
