package keeper

import (
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

// TestWhatIsLocalMeanwhileIsTold: likewise of what lies on nodes' own disks so far, tensors and files; what is older than a complete one is not told.
func TestWhatIsLocalMeanwhileIsTold(t *testing.T) {
	t.Parallel()
	shared, disk, near := t.TempDir(), t.TempDir(), t.TempDir()
	open := func(dir string) checkpoint.FS {
		fs, err := checkpoint.NewDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return fs
	}
	s, err := checkpoint.Open(checkpoint.Config{FS: open(shared), Job: "job-7", Local: &checkpoint.Local{FS: open(disk)}})
	if err == nil {
		err = s.Fence(t.Context(), 2)
	}
	tensor := checkpoint.Whole("w", []uint8("abc"), 3)
	if err == nil {
		_, err = s.WriteShard(t.Context(), checkpoint.ShardWrite{Epoch: 2, Step: 5, WorldSize: 1, Tensors: []checkpoint.Tensor{tensor}})
	}
	if err == nil {
		_, err = s.Commit(t.Context(), checkpoint.CommitRequest{Epoch: 2, Step: 5, WorldSize: 1, SavedAt: keptNow})
	}
	commit := func(dir string, step uint64) {
		own, oerr := new(Job{Dir: dir, Name: "job-7"}).open()
		if err == nil {
			err = oerr
		}
		if err == nil {
			err = own.Fence(t.Context(), 2)
		}
		if err == nil {
			write(t, dir+"/tmp/model.pt", "weights")
			_, err = own.CommitFiles(t.Context(), checkpoint.FilesCommit{Epoch: 2, Step: step, From: "tmp", SavedAt: keptNow})
		}
	}
	commit(near, 6)
	if err != nil {
		t.Fatal(err)
	}
	told := func(want ...uint64) {
		t.Helper()
		k := newKept(t)
		j := job(shared, 2, 0)
		j.Local = near
		k.Watch(j, true)
		for _, step := range want {
			if c := k.next(t); c.Step != step || !c.SavedAt.Equal(keptNow) {
				t.Errorf("told %+v, want step %d", c, step)
			}
		}
		<-k.changed
		if len(k.commits) > 0 {
			t.Errorf("told %+v too", <-k.commits)
		}
	}
	told(5, 6)
	commit(shared, 8)
	if err != nil {
		t.Fatal(err)
	}
	told(8)
}
