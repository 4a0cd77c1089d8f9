package checkpoint_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// jobModel is what must be true of a job's checkpoints, kept beside the real ones.
type jobModel struct {
	tb    testing.TB // for the helpers; its failures end the whole test
	disk  *faultfs.FS
	store *checkpoint.Store
	epoch uint64
	step  uint64
	best  checkpoint.Ref  // the newest acknowledged commit
	maybe *checkpoint.Ref // a commit cut by a fault: it may have come through
}

// newest checks the law: the newest checkpoint is the newest acknowledged one, or the one whose commit was cut.
func (j *jobModel) newest(rt *rapid.T) {
	got := latest(j.tb, open(j.tb, j.disk))
	switch {
	case j.maybe != nil && got == *j.maybe:
		j.best = got
	case got != j.best:
		rt.Fatalf("latest is %v, want %v (or %v)\n%v", got, j.best, j.maybe, j.disk.Names())
	}
	j.maybe = nil
}

// tried records how a save ended.
func (j *jobModel) tried(rt *rapid.T, r checkpoint.Ref, err error, allowed ...error) {
	if err == nil {
		j.best = r
		return
	}
	for _, want := range allowed {
		if errors.Is(err, want) {
			j.maybe = &r
			return
		}
	}
	rt.Fatalf("save %v: %v", r, err)
}

func (j *jobModel) actions(rt *rapid.T) map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"save": func(rt *rapid.T) {
			j.step++
			j.tried(rt, ref(j.epoch, j.step), save(j.tb.Context(), j.store, ref(j.epoch, j.step), rapid.IntRange(1, 3).Draw(rt, "world")))
			j.newest(rt)
		},
		"powerCut": func(rt *rapid.T) {
			j.disk.Arm(faultfs.Plan{PowerAt: rapid.IntRange(1, 90).Draw(rt, "at")})
			j.step++
			j.tried(rt, ref(j.epoch, j.step), save(j.tb.Context(), j.store, ref(j.epoch, j.step), 2), faultfs.ErrPower)
			mode := rapid.SampledFrom([]faultfs.CrashMode{faultfs.DropAll, faultfs.KeepNames, faultfs.Some}).Draw(rt, "mode")
			j.disk.Crash(mode, rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1)))
			j.resume(rt)
		},
		"resume": j.resume,
		"rollBack": func(rt *rapid.T) { // a person restarts from an earlier step
			j.resume(rt)
			j.step = uint64(rapid.IntRange(0, int(j.step)).Draw(rt, "to"))
		},
		"lateWriter": func(rt *rapid.T) {
			if j.epoch < 2 {
				rt.Skip("no older epoch")
			}
			r := ref(j.epoch-1, j.step+100)
			if err := save(j.tb.Context(), open(j.tb, j.disk), r, 1); !errors.Is(err, checkpoint.ErrFenced) {
				rt.Fatalf("late save: %v, want ErrFenced", err)
			}
			j.newest(rt)
		},
		"halfWrite": func(rt *rapid.T) {
			j.step++
			if _, err := j.store.WriteShard(j.tb.Context(), shard(ref(j.epoch, j.step), 1, 2)); err != nil {
				rt.Fatal(err)
			}
			j.newest(rt)
		},
		"collect": func(rt *rapid.T) {
			keep := rapid.IntRange(1, 3).Draw(rt, "keep")
			got, err := j.store.Collect(j.tb.Context(), checkpoint.CollectRequest{Epoch: j.epoch, Keep: keep})
			refs, lerr := j.store.List(j.tb.Context())
			if err != nil || lerr != nil || len(refs) > keep || len(got.Skipped) > 0 {
				rt.Fatalf("collect keep %d: left %v, %+v, %v, %v", keep, refs, got, err, lerr)
			}
			j.newest(rt)
		},
	}
}

// resume starts the next epoch the way a job does.
func (j *jobModel) resume(rt *rapid.T) {
	j.store = open(j.tb, j.disk)
	j.epoch++
	if err := j.store.Fence(j.tb.Context(), j.epoch); err != nil {
		rt.Fatal(err)
	}
	j.newest(rt)
	j.step = j.best.Step
}

// TestJobLives runs random lives of a job: saves, power cuts, restarts, roll-backs, late writers, collections.
func TestJobLives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		disk, s := begun(t, 1)
		j := &jobModel{tb: t, disk: disk, store: s, epoch: 1}
		rt.Repeat(j.actions(rt))
	})
}
