package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

func TestModelIsTheSameForEveryWorldSize(t *testing.T) {
	t.Parallel()
	want := (&gang{world: 1}).train(t, smallConfig())
	if !strings.HasPrefix(want, "trained: step 75/75") {
		t.Fatalf("last line %q", want)
	}
	for _, world := range []int{2, 3, 4, 8, 9} { // 9: more ranks than slices
		t.Run(fmt.Sprint(world), func(t *testing.T) {
			t.Parallel()
			if got := (&gang{world: world}).train(t, smallConfig()); got != want {
				t.Errorf("%d ranks: %q\n1 rank:  %q", world, got, want)
			}
		})
	}
	other := smallConfig()
	other.seed++
	if got := (&gang{world: 1}).train(t, other); got == want {
		t.Error("another seed gives the same model: the comparison compares nothing")
	}
}

// crash trains up to a step, saving as train does, and gives up without a word.
func crash(step int) func(context.Context, *trainer) error {
	return func(ctx context.Context, tr *trainer) error {
		for tr.step < step {
			if _, err := tr.doStep(ctx); err != nil {
				return err
			}
			if tr.step%tr.plan.StepsPerEpoch() == 0 {
				tr.endDataEpoch()
			}
			if tr.step%tr.cfg.checkpointEvery == 0 {
				if _, err := tr.save(ctx); err != nil {
					return err
				}
			}
		}
		return tr.group.Barrier(ctx) // so that no rank leaves while another one still steps
	}
}

func TestModelIsTheSameAfterCrashesWithOtherWorldSizes(t *testing.T) {
	t.Parallel()
	cfg := smallConfig()
	whole := &gang{world: 1}
	want := whole.train(t, cfg)
	fs := shared(t, t.TempDir())
	var last *gang
	for i, c := range []struct{ world, crashAt, resumes int }{
		{4, 9, 0}, // before the first checkpoint
		{3, 37, 0}, {8, 38, 30}, {1, 61, 30}, {2, 75, 60},
	} {
		last = &gang{world: c.world, epoch: uint64(i + 1), fs: fs}
		life := crash(c.crashAt)
		if c.crashAt == 75 {
			life = func(ctx context.Context, tr *trainer) error { return tr.train(ctx) }
		}
		if err := errors.Join(last.each(t, cfg, life)...); err != nil {
			t.Fatalf("epoch %d: %v\n%s", last.epoch, err, last.diag.String())
		}
		if c.resumes > 0 && !strings.Contains(last.out.String(), fmt.Sprintf("resumed from step %d:", c.resumes)) {
			t.Errorf("epoch %d did not resume from step %d:\n%s", last.epoch, c.resumes, last.out.String())
		}
	}
	if got := lastLine([]byte(last.out.String())); got != want {
		t.Errorf("after crashes: %q\nin one go:     %q", got, want)
	}
	// Also the printed loss of an epoch that began before the crash.
	for _, line := range strings.Split(whole.out.String(), "\n") {
		if strings.HasPrefix(line, "epoch 5/5") && !strings.Contains(last.out.String(), line) {
			t.Errorf("after crashes there is no line %q:\n%s", line, last.out.String())
		}
	}
}

func TestOneRankAskedStopsAll(t *testing.T) {
	t.Parallel()
	cfg := smallConfig()
	want := (&gang{world: 1}).train(t, cfg)
	fs := shared(t, t.TempDir())
	stop := newStopper()
	stop.ask("a test")
	first := &gang{world: 3, epoch: 1, fs: fs, stop: map[int]*stopper{2: stop}}
	if line := first.train(t, cfg); line != "stopped after step 1/75 (another rank was asked); newest checkpoint: step 1" {
		t.Errorf("last line %q", line)
	}
	if got := (&gang{world: 2, epoch: 2, fs: fs, known: "step-0000000001.epoch-1"}).train(t, cfg); got != want {
		t.Errorf("after the stop: %q\nin one go:      %q", got, want)
	}
}

func TestDamagedCheckpoints(t *testing.T) {
	t.Parallel()
	cfg := smallConfig()
	want := (&gang{world: 1}).train(t, cfg)
	path := t.TempDir()
	fs := shared(t, path)
	if err := errors.Join((&gang{world: 2, epoch: 1, fs: fs}).each(t, cfg, crash(45))...); err != nil {
		t.Fatal(err)
	}
	damage := func(pattern string) {
		files, err := filepath.Glob(filepath.Join(path, pattern, "shard-0001-of-0002.glck"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			content[len(content)/2] ^= 1
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	damage("step-0000000040.*")
	second := &gang{world: 3, epoch: 2, fs: fs}
	if err := errors.Join(second.each(t, cfg, crash(39))...); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(second.out.String(), "resumed from step 30:") || !strings.Contains(second.diag.String(), "is damaged") {
		t.Errorf("a damaged newest checkpoint:\n%s%s", second.out.String(), second.diag.String())
	}
	damage("step-00000000[123]0.*")
	for _, err := range (&gang{world: 2, epoch: 3, fs: fs}).each(t, cfg, crash(75)) {
		if err == nil {
			t.Error("a rank started from nothing though all checkpoints are damaged")
		}
	}
	if errs := (&gang{world: 1, epoch: 4, fs: fs}).each(t, cfg, crash(75)); !errors.Is(errs[0], checkpoint.ErrAllBad) {
		t.Errorf("error %v, want ErrAllBad", errs[0])
	}
	if got := (&gang{world: 1, epoch: 1, fs: shared(t, t.TempDir())}).train(t, cfg); got != want {
		t.Errorf("a fresh directory: %q, want %q", got, want)
	}
}

func TestResumeRefusesWhatIsNotItsPast(t *testing.T) {
	t.Parallel()
	cfg := smallConfig()
	path := t.TempDir()
	fs := shared(t, path)
	lost := &gang{world: 2, epoch: 1, fs: fs, known: "step-0000000040.epoch-1"}
	errs := lost.each(t, cfg, crash(10))
	if errs[0] == nil || !strings.Contains(errs[0].Error(), "the scheduler knows of checkpoint") || errs[1] == nil {
		t.Errorf("checkpoints that vanished: %v", errs)
	}
	if err := errors.Join((&gang{world: 2, epoch: 2, fs: fs}).each(t, cfg, crash(10))...); err != nil {
		t.Fatal(err)
	}
	cfg.hidden++
	for _, err := range (&gang{world: 2, epoch: 3, fs: fs}).each(t, cfg, crash(10)) {
		if err == nil || !strings.Contains(err.Error(), "hidden=12 batch=100") || !strings.Contains(err.Error(), "hidden=13") {
			t.Errorf("a checkpoint of another network: %v", err)
		}
	}
}

// fullFS is a directory whose disk can be full.
type fullFS struct {
	*checkpoint.Dir
	full *atomic.Bool
}

func (f fullFS) Create(name string, bulk bool) (checkpoint.WriteFile, error) {
	if f.full.Load() {
		return nil, &os.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	return f.Dir.Create(name, bulk)
}

func TestFullDiskCostsCheckpointsNotTheTraining(t *testing.T) {
	t.Parallel()
	cfg := smallConfig()
	want := (&gang{world: 1}).train(t, cfg)
	path := t.TempDir()
	dir, err := checkpoint.NewDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var full atomic.Bool
	fs := func(rank int) checkpoint.FS {
		if rank == 1 {
			return fullFS{Dir: dir, full: &full}
		}
		return dir
	}
	life := func(ctx context.Context, tr *trainer) error {
		if tr.step == 0 {
			if err := crash(15)(ctx, tr); err != nil {
				return err
			}
			full.Store(true)
		}
		return tr.train(ctx)
	}
	first := &gang{world: 2, epoch: 1, fs: fs}
	for rank, err := range first.each(t, cfg, life) {
		if err == nil || !strings.Contains(err.Error(), "the state after step 75 is not saved: the newest checkpoint is of step 10") {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
	if n := strings.Count(first.diag.String(), "is not committed: 1 of 2 ranks"); n != 7 {
		t.Errorf("%d messages about checkpoints that are not committed, want 7:\n%s", n, first.diag.String())
	}
	full.Store(false)
	second := &gang{world: 2, epoch: 2, fs: fs}
	if got := second.train(t, cfg); got != want || !strings.Contains(second.out.String(), "resumed from step 10:") {
		t.Errorf("with room again: %q, want %q\n%s", got, want, second.out.String())
	}
}

func TestNewerEpochEndsALateGang(t *testing.T) {
	t.Parallel()
	cfg := smallConfig()
	fs := shared(t, t.TempDir())
	life := func(ctx context.Context, tr *trainer) error {
		if err := crash(15)(ctx, tr); err != nil {
			return err
		}
		if err := tr.saver.store.Fence(ctx, 2); err != nil && !errors.Is(err, checkpoint.ErrFenced) {
			return err
		}
		return tr.train(ctx)
	}
	for rank, err := range (&gang{world: 2, epoch: 1, fs: fs}).each(t, cfg, life) {
		if !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("rank %d: %v, want ErrFenced", rank, err)
		}
	}
}

// TestSavesBehindTheTraining saves while training goes on, leaves in the middle, and goes on with another number of ranks.
func TestSavesBehindTheTraining(t *testing.T) {
	t.Parallel()
	cfg := smallConfig()
	want := (&gang{world: 1}).train(t, cfg)
	cfg.async = true
	fs := shared(t, t.TempDir())
	leave := func(ctx context.Context, tr *trainer) error {
		defer tr.leaveBehind()
		for tr.step < 45 {
			if _, err := tr.doStep(ctx); err != nil {
				return err
			}
			if tr.step%tr.plan.StepsPerEpoch() == 0 {
				tr.endDataEpoch()
			}
			if tr.step%tr.cfg.checkpointEvery == 0 {
				if err := tr.saveBehind(ctx); err != nil {
					return err
				}
			}
			if tr.step == 10 {
				tr.settleBehind(ctx) // one is whole, however busy the machine; what becomes of the later ones is left to chance
			}
		}
		return tr.group.Barrier(ctx)
	}
	if err := errors.Join((&gang{world: 3, epoch: 1, fs: fs}).each(t, cfg, leave)...); err != nil {
		t.Fatal(err)
	}
	second := &gang{world: 2, epoch: 2, fs: fs}
	if got := second.train(t, cfg); got != want {
		t.Errorf("saved behind the training: %q\nwithout saves:  %q", got, want)
	}
	if !strings.Contains(second.out.String(), "resumed from step") {
		t.Errorf("nothing was saved in 45 steps:\n%s%s", second.out.String(), second.diag.String())
	}
	third := &gang{world: 4, epoch: 3, fs: fs}
	if got := third.train(t, cfg); got != want || !strings.Contains(third.out.String(), "resumed from step 75:") {
		t.Errorf("after the end: %q\n%s", got, third.out.String())
	}
}
