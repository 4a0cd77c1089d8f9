package session

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// TestSavesGoToTheNodesOwnDisk: where the agent has a disk for it, as it says by the environment; into another directory they do not.
func TestSavesGoToTheNodesOwnDisk(t *testing.T) {
	t.Parallel()
	shared, own := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(own, "room"), []byte(`{"bytes":1000000}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w := workers(t, 1, shared)[0]
	env, err := w.Env()
	if err != nil {
		t.Fatal(err)
	}
	env.CheckpointLocal, env.LocalWorldSize = own, 1
	w.Env = func() (workerclient.Environment, error) { return env, nil }
	for _, c := range []struct{ dir, shard string }{{"", own}, {filepath.Join(shared, "other"), filepath.Join(shared, "other")}} {
		handle, err := w.OpenCheckpoints(CheckpointsRequest{Dir: c.dir})
		if err != nil {
			t.Fatal(err)
		}
		save, err := w.BeginSave(handle, 7)
		if err != nil {
			t.Fatal(err)
		}
		s, err := w.Save(save)
		if err != nil {
			t.Fatal(err)
		}
		s.Add(checkpoint.Whole("v", []float32{1, 2}, 2))
		if err := s.Write(); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
		const name = "step-0000000007.epoch-2/shard-0000-of-0001.glck"
		for _, dir := range []string{own, shared, filepath.Join(shared, "other")} {
			if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != (dir == c.shard) {
				t.Errorf("saved to %q: in %s: %v", c.dir, dir, err)
			}
		}
		if err := os.RemoveAll(filepath.Join(own, filepath.Dir(name))); err != nil {
			t.Fatal(err)
		}
	}
}
