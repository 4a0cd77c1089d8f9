package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// put writes a file as a program would: no sync, whatever directories are needed.
func put(tb testing.TB, fsys checkpoint.FS, name string, data []byte) {
	tb.Helper()
	for i, c := range name {
		if c == '/' {
			if err := fsys.Mkdir(name[:i]); err != nil && !errors.Is(err, fs.ErrExist) {
				tb.Fatal(err)
			}
		}
	}
	f, err := fsys.Create(name, false)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
}

// content gives file i of a step: every byte tells which.
func content(step uint64, i int) []byte {
	b := make([]byte, 3*testChunk/2*i)
	for j := range b {
		b[j] = byte(step) + byte(i)*16 + byte(j>>8)
	}
	return b
}

func putFiles(tb testing.TB, fsys checkpoint.FS, from string, step uint64) {
	tb.Helper()
	for i, name := range []string{"empty", "model.pt", "ranks/r 1/ünï\"quote.bin"} {
		put(tb, fsys, from+"/"+name, content(step, i))
	}
}

func filesOf(r checkpoint.Ref) checkpoint.FilesCommit {
	return checkpoint.FilesCommit{
		Epoch: r.Epoch, Step: r.Step, From: fmt.Sprintf("tmp-%d", r.Step), Metrics: map[string]float64{"loss": float64(r.Step)},
		SavedAt: time.Unix(1_790_000_000, 0),
	}
}

func commitFiles(tb testing.TB, s *checkpoint.Store, fsys checkpoint.FS, r checkpoint.Ref) checkpoint.Manifest {
	tb.Helper()
	c := filesOf(r)
	putFiles(tb, fsys, c.From, r.Step)
	m, err := s.CommitFiles(tb.Context(), c)
	if err != nil {
		tb.Fatalf("commit files of %v: %v", r, err)
	}
	return m
}

// wantFiles checks that Latest gives ref, and that its files are what the program wrote.
func wantFiles(tb testing.TB, s *checkpoint.Store, fsys checkpoint.FS, want checkpoint.Ref) {
	tb.Helper()
	m, skipped, err := s.Latest(tb.Context())
	if err != nil || m.Ref() != want || len(skipped) > 0 {
		tb.Fatalf("latest is %v, %v, skipped %v; want %v", m.Ref(), err, skipped, want)
	}
	if len(m.Files) != 3 {
		tb.Fatalf("files are %+v, want 3", m.Files)
	}
	for i, info := range m.Files {
		f, err := fsys.Open(m.Dir + "/" + info.Name)
		if err != nil {
			tb.Fatal(err)
		}
		got := make([]byte, info.Bytes)
		if len(got) > 0 {
			if _, err := f.ReadAt(got, 0); err != nil {
				tb.Fatal(err)
			}
		}
		if string(got) != string(content(want.Step, i)) {
			tb.Fatalf("%s is not what was written", info.Name)
		}
	}
}

func TestFilesAreCommitted(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 3)
	m := commitFiles(t, s, disk, ref(3, 20))
	if m.WorldSize != 0 || m.Bytes() != 3*testChunk/2*3 || m.Metrics["loss"] != 20 || m.Saved().Unix() != 1_790_000_000 {
		t.Errorf("manifest is %+v", m)
	}
	wantFiles(t, open(t, disk), disk, ref(3, 20))
	// A repeat gives the same again, also from another process.
	again, err := open(t, disk).CommitFiles(t.Context(), filesOf(ref(3, 20)))
	if err != nil || again.Bytes() != m.Bytes() {
		t.Errorf("repeat: %+v, %v", again, err)
	}
	// New files under a step that is committed are refused, and stay.
	putFiles(t, disk, "tmp-20", 99)
	if _, err := s.CommitFiles(t.Context(), filesOf(ref(3, 20))); !errors.Is(err, checkpoint.ErrCommitted) {
		t.Errorf("second commit of the step: %v", err)
	}
	wantFiles(t, s, disk, ref(3, 20))
}

func TestFilesThatCannotBeCommitted(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 3)
	if err := disk.Mkdir("tmp-1"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r    checkpoint.FilesCommit
		want error
	}{
		"empty":   {filesOf(ref(3, 1)), checkpoint.ErrIncomplete},
		"missing": {filesOf(ref(3, 2)), checkpoint.ErrIncomplete},
		"old":     {filesOf(ref(2, 1)), checkpoint.ErrFenced},
		"future":  {filesOf(ref(4, 1)), checkpoint.ErrNotBegun},
		"path":    {checkpoint.FilesCommit{Epoch: 3, Step: 1, From: "../x"}, checkpoint.ErrInvalid},
		"ours":    {checkpoint.FilesCommit{Epoch: 3, Step: 1, From: "fence"}, checkpoint.ErrInvalid},
		"other":   {checkpoint.FilesCommit{Epoch: 3, Step: 1, From: ref(3, 7).String()}, checkpoint.ErrInvalid},
		"sealed":  {checkpoint.FilesCommit{Epoch: 3, Step: 1, From: ref(2, 7).String() + ".sealed"}, checkpoint.ErrInvalid},
		"itself":  {checkpoint.FilesCommit{Epoch: 3, Step: 1, From: "."}, checkpoint.ErrInvalid},
	} {
		if _, err := s.CommitFiles(t.Context(), c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestFilesThatChangeMeanwhile has the program write on while its files are summed.
func TestFilesThatChangeMeanwhile(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	putFiles(t, disk, "tmp-5", 5)
	disk.Arm(faultfs.Plan{Before: func(_ int, op, name string) {
		if op == "syncfile" && name == ref(1, 5).String()+"/model.pt" {
			put(t, disk, name, []byte("shorter"))
		}
	}})
	if _, err := s.CommitFiles(t.Context(), filesOf(ref(1, 5))); err == nil {
		t.Fatal("files that changed were committed")
	}
	wantLatest(t, s, checkpoint.Ref{})
}

// TestFilesPowerCutAtEveryOperation cuts the power at each operation of a commit of files, in each way a disk can lose what was not synced.
func TestFilesPowerCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	before := func() (*faultfs.FS, *checkpoint.Store) {
		disk, s := begun(t, 1)
		commitFiles(t, s, disk, ref(1, 10))
		putFiles(t, disk, "tmp-20", 20)
		return disk, s
	}
	disk, s := before()
	disk.Arm(faultfs.Plan{})
	if _, err := s.CommitFiles(t.Context(), filesOf(ref(1, 20))); err != nil {
		t.Fatal(err)
	}
	total := disk.Ops()
	if total < 30 {
		t.Fatalf("only %d operations: the test does not test", total)
	}
	for mode, tries := range map[faultfs.CrashMode]int{faultfs.DropAll: 1, faultfs.KeepNames: 1, faultfs.Some: 4} {
		for at := 1; at <= total+1; at++ {
			for try := range tries {
				disk, s := before()
				disk.Arm(faultfs.Plan{PowerAt: at})
				_, err := s.CommitFiles(t.Context(), filesOf(ref(1, 20)))
				disk.Crash(mode, rand.New(rand.NewPCG(uint64(try), uint64(at))))
				s = open(t, disk)
				m, skipped, lerr := s.Latest(t.Context())
				if lerr != nil || len(skipped) > 0 || err == nil && m.Ref() != ref(1, 20) {
					t.Fatalf("mode %d, operation %d (commit said %v): latest %v, %v, skipped %v", mode, at, err, m.Ref(), lerr, skipped)
				}
				wantFiles(t, s, disk, m.Ref())
				// The next launch goes on with whatever is left.
				mustFence(t, s, 2)
				commitFiles(t, s, disk, ref(2, 21))
				if _, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 2, Keep: 1}); err != nil {
					t.Fatalf("mode %d, operation %d: collect: %v", mode, at, err)
				}
				wantFiles(t, s, disk, ref(2, 21))
			}
		}
	}
}

// TestCutCommitOfFilesIsTakenUp stops a commit at each operation with an error; the same call again, without the directory it came from, ends it.
func TestCutCommitOfFilesIsTakenUp(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	putFiles(t, disk, "tmp-20", 20)
	disk.Arm(faultfs.Plan{})
	if _, err := s.CommitFiles(t.Context(), filesOf(ref(1, 20))); err != nil {
		t.Fatal(err)
	}
	total := disk.Ops()
	for at := 1; at <= total; at++ {
		disk, s := begun(t, 1)
		putFiles(t, disk, "tmp-20", 20)
		disk.Arm(faultfs.Plan{FailAt: at, Err: syscall.EIO})
		_, err := s.CommitFiles(t.Context(), filesOf(ref(1, 20)))
		disk.Arm(faultfs.Plan{})
		if err != nil && !errors.Is(err, syscall.EIO) {
			t.Fatalf("operation %d: the error hides its cause: %v", at, err)
		}
		half, herr := s.HalfFiles(t.Context(), 1)
		if herr != nil || len(half) > 1 {
			t.Fatalf("operation %d: half files %v, %v", at, half, herr)
		}
		if _, err := s.CommitFiles(t.Context(), filesOf(ref(1, 20))); err != nil {
			t.Fatalf("operation %d: again: %v", at, err)
		}
		wantFiles(t, s, disk, ref(1, 20))
	}
}

// TestFenceAtEveryMomentOfFiles begins a new epoch before every operation of a commit of files: what is complete when Fence returns is final.
func TestFenceAtEveryMomentOfFiles(t *testing.T) {
	t.Parallel()
	for at, total := 1, 1; at <= total; at++ {
		disk, s := begun(t, 1)
		commitFiles(t, s, disk, ref(1, 10))
		putFiles(t, disk, "tmp-20", 20)
		var seen checkpoint.Ref
		disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
			if n != at {
				return
			}
			newer := open(t, disk)
			mustFence(t, newer, 2)
			m, _, err := newer.Latest(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			seen = m.Ref()
		}})
		_, err := s.CommitFiles(t.Context(), filesOf(ref(1, 20)))
		if err != nil && !errors.Is(err, checkpoint.ErrFenced) {
			t.Fatalf("operation %d: %v", at, err)
		}
		if at == 1 {
			calm, cs := begun(t, 1)
			putFiles(t, calm, "tmp-20", 20)
			calm.Arm(faultfs.Plan{})
			if _, err := cs.CommitFiles(t.Context(), filesOf(ref(1, 20))); err != nil {
				t.Fatal(err)
			}
			total = calm.Ops()
		}
		wantFiles(t, open(t, disk), disk, seen)
	}
}

// TestEveryFlippedByteOfFilesIsFound flips a bit in each byte of the smaller parts and in some of the larger.
func TestFlippedBitsOfFilesAreFound(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	m := commitFiles(t, s, disk, ref(1, 10))
	for _, f := range m.Files {
		for at := int64(0); at < f.Bytes; at += 97 {
			name := m.Dir + "/" + f.Name
			if err := disk.Flip(name, at, uint(at)); err != nil {
				t.Fatal(err)
			}
			var bad *checkpoint.CorruptError
			if err := s.Verify(t.Context(), m); !errors.As(err, &bad) || bad.Path != name {
				t.Fatalf("bit flipped at %d of %s: %v", at, name, err)
			}
			if err := disk.Flip(name, at, uint(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantFiles(t, s, disk, ref(1, 10))
}
