package checkpoint_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/checkpoint"
)

// oddNames are names of files and directories that a file system takes.
func oddNames() []string {
	return []string{
		"with space", " leading", "trailing ", "new\nline", "tab\t", "-rf", "--help", "...", ".hidden", "~", "$HOME", "`id`", "a'b\"c", "*?[x]", "%2F..%2F",
		"é", "e\u0301", "日本語", "👩‍💻", "\u202egnp", "con", "MANIFEST.json.bak", "step-7", "shard-0000-of-0001.glck.txt", "fence", strings.Repeat("ü", 127), strings.Repeat("x", 255),
	}
}

// TestOddNames: a job's directory of an odd name holds files and tensors of odd names; all come back under these names, on the real file system.
func TestOddNames(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for i, name := range append(oddNames(), "job.. ..", strings.Repeat("deep/", 40)+"job") {
		dir, err := checkpoint.NewDir(filepath.Join(root, name, "job"))
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		mustFence(t, s, 1)
		if i > 1 { // the rest is of the files below alone
			mustSave(t, s, ref(1, 1), 1)
			wantLatest(t, s, ref(1, 1))
			continue
		}
		from := filepath.Join(root, name, "job", "tmp "+name)
		var want []string
		for _, file := range oddNames() {
			for _, at := range []string{file, file + "x"[:len(file)%2] + "/in/" + file} {
				if len(filepath.Base(at)) > 255 || at == file && len(file)%2 == 0 {
					continue // one name is a file or a directory
				}
				path := filepath.Join(from, at)
				if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
					continue // too long with what was added
				}
				if err := os.WriteFile(path, []byte(at), 0o600); err != nil {
					t.Fatal(err)
				}
				want = append(want, at)
			}
		}
		m, err := s.CommitFiles(t.Context(), checkpoint.FilesCommit{Epoch: 1, Step: 2, From: filepath.Base(from)})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		if got := m.FileNames(); len(want) < 30 || len(got) != len(want) {
			t.Fatalf("%q: %d files of %d", name, len(got), len(want))
		}
		wantNewest(t, s, m.Ref())
		for j, f := range m.Files {
			if f.Name != want[j] || f.Bytes != int64(len(want[j])) {
				t.Errorf("file %d is %q, want %q", j, f.Name, want[j])
			}
		}
		var tensors []checkpoint.Tensor
		for j, name := range oddNames() {
			tensors = append(tensors, checkpoint.Whole(name, []float32{float32(j)}, 1))
		}
		if _, err := s.WriteShard(t.Context(), checkpoint.ShardWrite{Epoch: 1, Step: 3, WorldSize: 1, Tensors: tensors}); err != nil {
			t.Fatal(err)
		}
		if m, err = s.Commit(t.Context(), checkpoint.CommitRequest{Epoch: 1, Step: 3, WorldSize: 1}); err != nil {
			t.Fatal(err)
		}
		for j, name := range oddNames() {
			got := []float32{-1}
			if err := s.ReadTensor(t.Context(), m, name, got); err != nil || got[0] != float32(j) {
				t.Errorf("tensor %q: %v, %v", name, got, err)
			}
		}
	}
}

// wantNewest checks which is the newest that verifies, whatever is in it.
func wantNewest(t *testing.T, s *checkpoint.Store, want checkpoint.Ref) {
	t.Helper()
	if m, skipped, err := s.Latest(t.Context()); err != nil || m.Ref() != want || len(skipped) > 0 {
		t.Fatalf("latest is %v, skipped %v, %v; want %v", m.Ref(), skipped, err, want)
	}
}

// TestManyJobsAtOnce: 200 jobs on one storage save, commit, resume, refer, collect and fence at the same time, on the real file system; none sees another's.
func TestManyJobsAtOnce(t *testing.T) {
	t.Parallel()
	const jobs, steps = 200, 1
	root := t.TempDir()
	group, ctx := errgroup.WithContext(t.Context())
	for job := range jobs {
		group.Go(func() error {
			if err := liveOnDisk(ctx, filepath.Join(root, fmt.Sprint("job-", job)), fmt.Sprint("job-", job), uint64(job)*100+1, steps); err != nil { //nolint:gosec // not negative
				return fmt.Errorf("job %d: %w", job, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func liveOnDisk(ctx context.Context, path, job string, first uint64, steps int) error {
	dir, err := checkpoint.NewDir(path)
	if err != nil {
		return err
	}
	for epoch := uint64(1); epoch <= 2; epoch++ {
		s, err := checkpoint.Open(checkpoint.Config{FS: dir, Job: job, ChunkBytes: testChunk})
		if err != nil {
			return err
		}
		if err := s.Fence(ctx, epoch); err != nil {
			return err
		}
		at := first
		if epoch > 1 {
			m, skipped, err := s.Latest(ctx)
			if err != nil || len(skipped) > 0 || m.Ref() != ref(1, first+uint64(steps)-1) { //nolint:gosec // not negative
				return fmt.Errorf("resumed from %v, skipped %v: %w", m.Ref(), skipped, err)
			}
			got := make([]float32, testLen)
			if err := s.ReadTensor(ctx, m, "w", got); err != nil || !slices.Equal(got, weights(m.Ref(), testLen)) {
				return fmt.Errorf("%v holds something else: %w", m.Ref(), err)
			}
			at = m.Step + 1
		}
		for step := at; step < at+uint64(steps); step++ { //nolint:gosec // not negative
			if err := save(ctx, s, ref(epoch, step), 2); err != nil {
				return err
			}
			if _, err := s.Collect(ctx, checkpoint.CollectRequest{Epoch: epoch, Keep: 1}); err != nil {
				return err
			}
		}
		if left, err := s.List(ctx); err != nil || len(left) != 1 {
			return fmt.Errorf("%v are left: %w", left, err)
		}
	}
	return nil
}
