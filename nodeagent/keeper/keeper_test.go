package keeper

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/async"
	"github.com/gangline/gangline/checkpoint/faultfs"
	"github.com/gangline/gangline/nodeagent/reconcile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// keptNow is what their clocks say.
var keptNow = time.Unix(1_790_000_000, 0)

type kept struct {
	*Keeper
	commits chan Commit
	changed chan struct{}
}

func newKept(t *testing.T) *kept {
	t.Helper()
	k := &kept{commits: make(chan Commit, 16), changed: make(chan struct{}, 16)}
	k.Keeper = New(Config{
		Committed: func(c Commit) { k.commits <- c },
		Changed:   func() { k.changed <- struct{}{} },
		Clock:     func() time.Time { return keptNow },
	})
	t.Cleanup(k.Close)
	return k
}

func (k *kept) next(t *testing.T) Commit {
	t.Helper()
	select {
	case c := <-k.commits:
		return c
	case <-time.After(patience):
		t.Fatal("nothing is committed")
		return Commit{}
	}
}

func job(dir string, epoch uint64, keep int) Job {
	return Job{Key: reconcile.Key{Job: 7, Epoch: epoch}, Dir: dir, Name: "job-7", Stay: Retention{Keep: keep}}
}

func TestARenameIsCommitted(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), newKept(t)
	j := job(dir, 2, 1)
	k.Watch(j, false)
	if k.Settled(j.Key) {
		t.Error("settled while the job runs")
	}
	for i, name := range []string{"step-5", "step-0000006"} { // in this order: one is kept
		step := uint64(5 + i)
		write(t, dir+"/tmp/model.pt", name)
		if err := os.Rename(dir+"/tmp", dir+"/"+name); err != nil {
			t.Fatal(err)
		}
		c := k.next(t)
		if c.Step != step || c.Key != j.Key || c.Bytes != int64(len(name)) || read(t, c.Path+"/model.pt") != name {
			t.Errorf("committed %+v", c)
		}
	}
	write(t, dir+"/tmp-7/model.pt", "is being written")
	k.Watch(j, true)
	<-k.changed
	if !k.Settled(j.Key) {
		t.Error("not settled after the last look")
	}
	if read(t, dir+"/tmp-7/model.pt") == "" || len(k.commits) > 0 {
		t.Error("a directory that is no step's was touched")
	}
}

// TestTheLastLook commits what a program renamed just before it ended, and what a killed commit command left.
func TestTheLastLook(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), newKept(t)
	j := job(dir, 3, 0)
	write(t, dir+"/"+checkpoint.Ref{Epoch: 3, Step: 8}.String()+"/model.pt", "half committed")
	write(t, dir+"/step-9/model.pt", "renamed")
	write(t, dir+"/step-x/model.pt", "not a step")
	k.Watch(j, true)
	got := map[uint64]string{}
	for range 2 {
		c := k.next(t)
		got[c.Step] = read(t, c.Path+"/model.pt")
	}
	if got[8] != "half committed" || got[9] != "renamed" {
		t.Errorf("committed %v", got)
	}
	<-k.changed
	if !k.Settled(j.Key) || len(k.commits) > 0 {
		t.Error("not settled, or more was committed")
	}
	k.Forget(func(reconcile.Key) bool { return false })
	if k.Settled(j.Key) {
		t.Error("a job that is not watched is settled")
	}
}

func TestAnOldEpochCommitsNothing(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), newKept(t)
	s, err := new(Job{Dir: dir, Name: "job-7"}).open()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fence(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/step-9/model.pt", "late")
	k.Watch(job(dir, 4, 0), true)
	<-k.changed
	if len(k.commits) > 0 || read(t, dir+"/step-9/model.pt") != "late" {
		t.Error("a late epoch's files were committed, or are gone")
	}
}

// saved gives a directory in which epoch 1 has committed two steps of files.
func saved(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := new(Job{Dir: dir, Name: "job-7"}).open()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for _, step := range []uint64{10, 20} {
		write(t, dir+"/tmp/model.pt", strings.Repeat("x", int(step)))
		if _, err := s.CommitFiles(t.Context(), checkpoint.FilesCommit{Epoch: 1, Step: step, From: "tmp"}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestResumeTakesTheNewestThatVerifies(t *testing.T) {
	t.Parallel()
	dir := saved(t)
	write(t, dir+"/step-30/model.pt", "never committed")
	got, err := Resume(t.Context(), job(dir, 2, 0), true)
	if err != nil || filepath.Base(got.Path) != "step-0000000020.epoch-1" || len(got.Skipped) > 0 || len(got.Aside) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if read(t, dir+"/"+got.Aside[0]+"/model.pt") != "never committed" {
		t.Error("what was not committed is gone")
	}
	write(t, got.Path+"/model.pt", strings.Repeat("y", 20))
	got, err = Resume(t.Context(), job(dir, 3, 0), false)
	if err != nil || filepath.Base(got.Path) != "step-0000000010.epoch-1" || len(got.Skipped) != 1 {
		t.Errorf("with a damaged one: %+v, %v", got, err)
	}
	if _, err := Resume(t.Context(), job(dir, 2, 0), false); !errors.Is(err, checkpoint.ErrFenced) {
		t.Errorf("an older epoch: %v", err)
	}
	write(t, got.Path+"/model.pt", strings.Repeat("y", 10))
	if _, err := Resume(t.Context(), job(dir, 4, 0), false); !errors.Is(err, checkpoint.ErrAllBad) {
		t.Errorf("with all damaged: %v", err)
	}
}

// TestResumeLeavesOthersAlone: without files there is nothing to verify, and no fence to put.
func TestResumeLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for step := uint64(1); step <= 2; step++ {
		if got, err := Resume(t.Context(), job(dir, 2, 0), true); err != nil || got.Path != "" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := os.Stat(dir + "/fence"); err == nil {
			t.Error("the epoch was begun")
		}
		s, err := new(Job{Dir: dir, Name: "job-7"}).open()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Fence(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if _, err := s.WriteShard(t.Context(), checkpoint.ShardWrite{Epoch: 1, Step: step, WorldSize: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), checkpoint.CommitRequest{Epoch: 1, Step: step, WorldSize: 1}); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir + "/fence"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Resume(t.Context(), job(dir+"/none", 2, 0), true); err != nil || got.Path != "" {
		t.Errorf("no directory: %+v, %v", got, err)
	}
}

// TestACopyOfADeadWorkerIsFinished leaves what a worker leaves that dies before its storage has answered: the copy in shared memory. It
// is written as the worker's environment says.
func TestACopyOfADeadWorkerIsFinished(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("ab", checkpoint.KeyBytes)
	for name, env := range map[string][]string{
		"plain":     nil,
		"encrypted": {checkpoint.EnvKey + "=env:SECRET", "SECRET=" + secret},
		"command":   {checkpoint.EnvKey + "=command:echo $SECRET", "SECRET=" + secret},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, images, k := t.TempDir(), t.TempDir()+"/7-2-0", newKept(t)
			j := job(dir, 2, 0)
			j.Images, j.Environ = images, func() ([]string, string) { return env, "" }
			ring := &keyring{}
			shared, err := j.openToWrite(t.Context(), ring)
			leaveCopies(t, images, env, ring)
			if err != nil {
				t.Fatal(err)
			}
			if err := shared.Fence(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			k.Watch(j, true)
			if c := k.next(t); c.Step != 9 || c.Path != dir+"/step-0000000009.epoch-2" {
				t.Errorf("committed %+v", c)
			}
			<-k.changed
			got := make([]float32, 3)
			m, _, err := shared.Latest(t.Context())
			if err == nil {
				err = shared.ReadTensor(t.Context(), m, "w", got)
			}
			if err != nil || got[0] != 1 || got[2] != 3 {
				t.Errorf("%v, %v", got, err)
			}
			bare, err := new(Job{Dir: dir, Name: "job-7"}).open()
			if err == nil {
				err = bare.ReadTensor(t.Context(), m, "w", got)
			}
			if (env != nil) != errors.Is(err, checkpoint.ErrKey) {
				t.Errorf("read without a key: %v", err)
			}
			if _, err := os.Stat(images); err == nil {
				t.Error("the shared memory is not given back")
			}
		})
	}
}

// leaveCopies leaves copies of two ranks of epoch 2, of step 9.
func leaveCopies(t *testing.T, images string, env []string, ring *keyring) {
	t.Helper()
	broken := faultfs.New()
	cfg := checkpoint.Config{FS: broken, Job: "job-7"}
	load := func(ref string) (*checkpoint.Key, error) { return ring.load(t.Context(), ref, env, "") }
	if err := cfg.FromEnvBy(lookup(env), load); err != nil {
		t.Fatal(err)
	}
	store, err := checkpoint.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Fence(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	broken.Arm(faultfs.Plan{PowerAt: 1})
	for rank := range 2 {
		s, err := async.New(async.Config{Store: store, Epoch: 2, Rank: rank, WorldSize: 2, Dir: images})
		if err != nil {
			t.Fatal(err)
		}
		w := []float32{1, 2, 3}
		if _, err := s.Save(t.Context(), async.SaveRequest{Step: 9, Tensors: []checkpoint.Tensor{checkpoint.Share("w", w, rank, 2)}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); !errors.Is(err, faultfs.ErrPower) {
			t.Fatalf("close: %v", err)
		}
	}
}

// TestAReportIsCollected: what a worker has committed by itself is kept by the job's policy, and what the keeper commits has the worker's metrics.
func TestAReportIsCollected(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := New(Config{
		Committed: func(Commit) {}, Changed: func() {}, Clock: time.Now,
		Metrics: func(reconcile.Key) map[string]float64 { return map[string]float64{"loss": 0.5, "bad": math.NaN()} },
	})
	t.Cleanup(k.Close)
	j := job(dir, 1, 1)
	j.Stay.Every, j.Stay.Best = 40, []checkpoint.Best{{Metric: "loss", Lowest: true, Count: 1}}
	s, err := j.open()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for step, loss := range map[uint64]float64{10: 3, 20: 1, 30: 2, 40: 5, 50: 4} {
		write(t, dir+"/tmp/model.pt", "x")
		if _, err := s.CommitFiles(t.Context(), checkpoint.FilesCommit{Epoch: 1, Step: step, From: "tmp", Metrics: map[string]float64{"loss": loss}}); err != nil {
			t.Fatal(err)
		}
	}
	k.Watch(j, false)
	k.Reported(j.Key)
	steps := func() string {
		refs, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range refs {
			out = append(out, fmt.Sprint(r.Step))
		}
		return strings.Join(out, " ")
	}
	await(t, func() bool { return steps() == "50 40 20" })
	write(t, dir+"/tmp/model.pt", "y")
	if err := os.Rename(dir+"/tmp", dir+"/step-60"); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return steps() == "60 40 20" })
	m, err := s.Load(t.Context(), checkpoint.Ref{Epoch: 1, Step: 60})
	if err != nil || m.Metrics["loss"] != 0.5 || len(m.Metrics) != 1 {
		t.Errorf("metrics %v, %v", m.Metrics, err)
	}
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	for limit := time.After(patience); !ok(); {
		select {
		case <-limit:
			t.Fatal("it does not come to it")
		case <-time.After(time.Millisecond):
		}
	}
}

// TestWhatWasCommittedMeanwhileIsTold: an agent that begins tells of the newest that the worker has committed while none was there, however long ago, and when that was; of nothing of
// an older epoch.
func TestWhatWasCommittedMeanwhileIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := new(Job{Dir: dir, Name: "job-7"}).open()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []checkpoint.Ref{{Epoch: 1, Step: 5}, {Epoch: 2, Step: 4}} {
		if err := s.Fence(t.Context(), r.Epoch); err != nil {
			t.Fatal(err)
		}
		write(t, dir+"/tmp/model.pt", "weights")
		at := keptNow.Add(-time.Duration(r.Step) * time.Hour)
		if _, err := s.CommitFiles(t.Context(), checkpoint.FilesCommit{Epoch: r.Epoch, Step: r.Step, From: "tmp", SavedAt: at}); err != nil {
			t.Fatal(err)
		}
	}
	k := newKept(t)
	k.Watch(job(dir, 3, 0), true)
	<-k.changed
	k.Watch(job(dir, 2, 0), true)
	if c := k.next(t); c.Step != 4 || c.Key.Epoch != 2 || c.Path != dir+"/step-0000000004.epoch-2" || c.Bytes != 7 || !c.SavedAt.Equal(keptNow.Add(-4*time.Hour)) {
		t.Errorf("told %+v", c)
	}
	<-k.changed
	if len(k.commits) > 0 {
		t.Errorf("told %+v too", <-k.commits)
	}
}
