package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// TestTwoCommitFilesAtEveryMoment has another process commit the same step before every single operation of a commit, as the agent may while the
// job calls the command; also where an earlier try left something, and where both name the directory differently.
func TestTwoCommitFilesAtEveryMoment(t *testing.T) {
	t.Parallel()
	for _, leftover := range []bool{false, true} {
		firstWon, otherWon := 0, 0
		for at, ran := 1, true; ran; at++ {
			disk, s := begun(t, 1)
			if leftover { // its commit was cut short
				put(t, disk, ref(1, 20).String()+"/old.pt", []byte("old"))
			}
			putFiles(t, disk, "tmp-20", 20)
			request := filesOf(ref(1, 20))
			request.Metrics = map[string]float64{"loss": 1}
			var other checkpoint.Manifest
			ran = false
			disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
				if n == at {
					ran = true
					var err error
					if other, err = open(t, disk).CommitFiles(t.Context(), filesOf(ref(1, 20))); err != nil {
						t.Errorf("the other, at operation %d: %v", at, err)
					}
				}
			}})
			m, err := s.CommitFiles(t.Context(), request)
			disk.Arm(faultfs.Plan{})
			if err != nil {
				t.Fatalf("leftover %v, with another at operation %d: %v\n%v", leftover, at, err, disk.Names())
			}
			if ran && m.Metrics["loss"] != other.Metrics["loss"] {
				t.Fatalf("operation %d: the two callers were told of different checkpoints: %v, %v", at, m.Metrics, other.Metrics)
			}
			if m.Metrics["loss"] == 1 {
				firstWon++
			} else {
				otherWon++
			}
			wantFiles(t, s, disk, ref(1, 20))
			for _, name := range disk.Names() {
				if strings.HasSuffix(name, ".tmp") || strings.Contains(name, "old") {
					t.Fatalf("operation %d: %s is left", at, name)
				}
			}
		}
		if firstWon == 0 || otherWon == 0 {
			t.Errorf("won %d and %d times: the test does not test", firstWon, otherWon)
		}
	}
}

// TestTwoCommitsAtEveryMoment is the same of ranks' shards.
func TestTwoCommitsAtEveryMoment(t *testing.T) {
	t.Parallel()
	for at, ran := 1, true; ran; at++ {
		disk, s := begun(t, 1)
		for rank := range 2 {
			if _, err := s.WriteShard(t.Context(), shard(ref(1, 5), rank, 2)); err != nil {
				t.Fatal(err)
			}
		}
		mine, others := commitOf(ref(1, 5), 2), commitOf(ref(1, 5), 2)
		mine.Metrics, others.Metrics = map[string]float64{"loss": 1}, map[string]float64{"loss": 2}
		var other checkpoint.Manifest
		ran = false
		disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
			if n == at {
				ran = true
				var err error
				if other, err = open(t, disk).Commit(t.Context(), others); err != nil {
					t.Errorf("the other, at operation %d: %v", at, err)
				}
			}
		}})
		m, err := s.Commit(t.Context(), mine)
		disk.Arm(faultfs.Plan{})
		if err != nil || ran && m.Metrics["loss"] != other.Metrics["loss"] {
			t.Fatalf("with another at operation %d: %v, %v and %v", at, err, m.Metrics, other.Metrics)
		}
		wantLatest(t, s, ref(1, 5))
	}
}

// TestManyCommitTheSameFiles lets processes run against each other on a real file system.
func TestManyCommitTheSameFiles(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir, err := checkpoint.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	mustFence(t, open(t, dir), 1)
	for step := uint64(1); step <= 20; step++ {
		putFiles(t, dir, fmt.Sprintf("tmp-%d", step), step)
		var all sync.WaitGroup
		metrics := make([]float64, 4)
		for i := range metrics {
			all.Go(func() {
				r := filesOf(ref(1, step))
				r.Metrics = map[string]float64{"caller": float64(i)}
				m, err := open(t, dir).CommitFiles(context.Background(), r)
				if err != nil {
					t.Errorf("step %d, caller %d: %v", step, i, err)
				}
				metrics[i] = m.Metrics["caller"]
			})
		}
		all.Wait()
		m, err := open(t, dir).Load(t.Context(), ref(1, step))
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range metrics {
			if got != m.Metrics["caller"] {
				t.Errorf("step %d: caller %d was told of the manifest of %v, there is that of %v", step, i, got, m.Metrics["caller"])
			}
		}
		wantFiles(t, open(t, dir), dir, ref(1, step))
		if left, err := filepath.Glob(filepath.Join(root, "*", "*.tmp")); err != nil || len(left) > 0 {
			t.Errorf("step %d: left are %v, %v", step, left, err)
		}
	}
}

// TestRenameNewIsExclusive holds what publish relies on, where the file system of the tests can do it.
func TestRenameNewIsExclusive(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir, err := checkpoint.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err = dir.RenameNew("a", "b")
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("%s is on a file system without it", root)
	}
	if !errors.Is(err, os.ErrExist) {
		t.Errorf("to a name that is taken: %v", err)
	}
	if err := dir.RenameNew("a", "c"); err != nil {
		t.Errorf("to a free name: %v", err)
	}
	if err := dir.RenameNew("a", "d"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of what is gone: %v", err)
	}
}

// TestTwoWritersOfOneRank: two processes that both believe to be a rank write the same step at the same time, one before each single operation of
// the other, with other content. It must not happen, and nothing keeps it from happening on storage that a lost node still reaches: what was there before
// stays, and a checkpoint of torn bytes is never given.
func TestTwoWritersOfOneRank(t *testing.T) {
	t.Parallel()
	other := func() checkpoint.ShardWrite {
		w := shard(ref(1, 20), 0, 2)
		w.Tensors[0] = checkpoint.Share("w", weights(ref(1, 77), testLen), 0, 2)
		return w
	}
	good, total := 0, 40
	for at := 1; at <= total; at++ {
		disk, s := begun(t, 1)
		mustSave(t, s, ref(1, 10), 2)
		if _, err := s.WriteShard(t.Context(), shard(ref(1, 20), 1, 2)); err != nil {
			t.Fatal(err)
		}
		second := open(t, disk)
		disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
			if n == at {
				_, _ = second.WriteShard(t.Context(), other()) // either may fail
			}
		}})
		_, err := s.WriteShard(t.Context(), shard(ref(1, 20), 0, 2))
		if at == 1 {
			total = disk.Ops()
		}
		disk.Arm(faultfs.Plan{})
		if err == nil {
			_, err = s.Commit(t.Context(), commitOf(ref(1, 20), 2))
		}
		m, skipped, lerr := open(t, disk).Latest(t.Context())
		if lerr != nil || m.Ref() != ref(1, 10) && m.Ref() != ref(1, 20) || m.Ref() == ref(1, 10) && err == nil && len(skipped) == 0 {
			t.Fatalf("operation %d (%v): latest is %v, skipped %v, %v", at, err, m.Ref(), skipped, lerr)
		}
		if m.Ref() == ref(1, 10) {
			wantContent(t, s, m)
			continue
		}
		good++
		got := make([]float32, testLen)
		if err := s.ReadTensor(t.Context(), m, "w", got); err != nil {
			t.Fatalf("operation %d: %v", at, err)
		}
		mine, theirs := weights(ref(1, 20), testLen), weights(ref(1, 77), testLen)
		half := testLen / 2
		if !slices.Equal(got[half:], mine[half:]) || !slices.Equal(got[:half], mine[:half]) && !slices.Equal(got[:half], theirs[:half]) {
			t.Fatalf("operation %d: a shard is of neither writer", at)
		}
	}
	if good < total/4 {
		t.Errorf("of %d only %d were complete", total, good)
	}
}
