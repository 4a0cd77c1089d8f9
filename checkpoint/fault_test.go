package checkpoint_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// TestDiskFull tries each amount of free space from none to enough.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	full := 0
	for room := int64(0); ; room += 512 {
		disk, s := begun(t, 1)
		mustSave(t, s, ref(1, 10), 2)
		used := bytesOn(t, disk)
		disk.Arm(faultfs.Plan{Capacity: used + room})
		err := save(t.Context(), s, ref(1, 20), 2)
		if err == nil {
			wantLatest(t, s, ref(1, 20))
			break
		}
		full++
		var space *checkpoint.NoSpaceError
		if !errors.As(err, &space) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%d bytes free: %v, want a NoSpaceError", room, err)
		}
		if space.Bytes <= 0 || !strings.Contains(err.Error(), space.Path) || !strings.Contains(err.Error(), "free space") {
			t.Fatalf("%d bytes free: error does not help: %v", room, err)
		}
		noHalfFiles(t, disk)
		wantLatest(t, s, ref(1, 10))
		disk.Arm(faultfs.Plan{}) // somebody makes room: the same step can be repeated
		mustSave(t, s, ref(1, 20), 2)
		wantLatest(t, s, ref(1, 20))
	}
	if full < 20 {
		t.Errorf("the disk was full only %d times: the test does not test", full)
	}
}

func bytesOn(t *testing.T, disk *faultfs.FS) int64 {
	t.Helper()
	sum := int64(0)
	for _, dir := range []string{".", "fence", ref(1, 10).String()} {
		entries, err := disk.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			sum += e.Size
		}
	}
	return sum
}

// TestTornWrite lets each write in turn silently keep only its first half.
func TestTornWrite(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustSave(t, s, ref(1, 10), 2)
	disk.Arm(faultfs.Plan{})
	mustSave(t, s, ref(1, 20), 2)
	total, torn := disk.Ops(), 0
	for at := 1; at <= total; at++ {
		disk, s := begun(t, 1)
		mustSave(t, s, ref(1, 10), 2)
		isWrite := false
		disk.Arm(faultfs.Plan{TornAt: at, Before: func(n int, op, _ string) { isWrite = isWrite || n == at && op == "write" }})
		err := save(t.Context(), s, ref(1, 20), 2)
		disk.Arm(faultfs.Plan{})
		got := latest(t, s) // checks the content
		if err != nil && got != ref(1, 10) || !isWrite && got != ref(1, 20) {
			t.Fatalf("torn at %d: save said %v, latest is %v", at, err, got)
		}
		if got == ref(1, 10) {
			torn++
		}
	}
	if torn < 6 { // two shards of several chunks, two sidecars, a manifest
		t.Errorf("only %d torn writes were noticed", torn)
	}
}

// TestEveryFlippedBitIsFound flips one bit at many places of every file of the newest checkpoint.
func TestEveryFlippedBitIsFound(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustSave(t, s, ref(1, 10), 2)
	mustSave(t, s, ref(1, 20), 2)
	dir := ref(1, 20).String()
	for _, file := range []string{"MANIFEST.json", "shard-0000-of-0002.glck", "shard-0001-of-0002.glck"} {
		f, err := disk.Open(dir + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < size; at += 37 {
			if err := disk.Flip(dir+"/"+file, at, uint(at)); err != nil {
				t.Fatal(err)
			}
			m, skipped, err := s.Latest(t.Context())
			if err != nil || m.Ref() != ref(1, 10) || len(skipped) != 1 {
				t.Fatalf("%s byte %d: latest is %v, skipped %v, %v", file, at, m.Ref(), skipped, err)
			}
			var c *checkpoint.CorruptError
			if !errors.As(skipped[0].Err, &c) || c.Path != dir+"/"+file || c.Want == "" || c.Got == "" {
				t.Fatalf("%s byte %d: reason is %v", file, at, skipped[0].Err)
			}
			if strings.HasPrefix(file, "shard") && c.Chunk != int(at/testChunk) {
				t.Fatalf("%s byte %d: reason names chunk %d", file, at, c.Chunk)
			}
			if err := disk.Flip(dir+"/"+file, at, uint(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantLatest(t, s, ref(1, 20))
}

// TestDamageFarIntoALargeShard has more chunks than one worker checks in a row.
func TestDamageFarIntoALargeShard(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	w := checkpoint.ShardWrite{Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{
		checkpoint.Whole("w", make([]float64, 1<<16), 1<<16), // 128 chunks and the header
	}}
	if _, err := s.WriteShard(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	m, err := s.Commit(t.Context(), commitOf(ref(1, 1), 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for _, chunk := range []int{0, 31, 32, 33, 127, 128} {
		name, at := m.Dir+"/"+m.Shards[0].File, int64(chunk)*testChunk+40
		if err := disk.Flip(name, at, 1); err != nil {
			t.Fatal(err)
		}
		var c *checkpoint.CorruptError
		if err := s.Verify(t.Context(), m); !errors.As(err, &c) || c.Chunk != chunk {
			t.Errorf("damage in chunk %d: %v", chunk, err)
		}
		if err := disk.Flip(name, at, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReaderVerifiesWhatItReads damages a checkpoint after it was found.
func TestReaderVerifiesWhatItReads(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustSave(t, s, ref(1, 10), 2)
	m, _, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := m.Dir + "/" + m.Shards[1].File
	if err := disk.Flip(name, testChunk+9, 0); err != nil { // first chunk of data of rank 1
		t.Fatal(err)
	}
	r := s.NewReader(m)
	defer r.Close()
	first := make([]float32, 100)
	if err := checkpoint.ReadBox(t.Context(), r, "w", []int64{0}, []int64{100}, first); err != nil {
		t.Errorf("read of an undamaged part: %v", err)
	}
	var c *checkpoint.CorruptError
	err = checkpoint.Read(t.Context(), r, "w", make([]float32, testLen))
	if !errors.As(err, &c) || c.Path != name || c.Chunk != 1 {
		t.Errorf("read of a damaged part: %v, want a CorruptError for chunk 1 of %s", err, name)
	}
}

// TestMissingFile removes each file of the newest checkpoint in turn.
func TestMissingFile(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"MANIFEST.json", "shard-0000-of-0002.glck"} {
		disk, s := begun(t, 1)
		mustSave(t, s, ref(1, 10), 2)
		mustSave(t, s, ref(1, 20), 2)
		if err := disk.Remove(ref(1, 20).String() + "/" + file); err != nil {
			t.Fatal(err)
		}
		wantLatest(t, s, ref(1, 10))
	}
}

// TestUnreadableDirectoryIsNotNone makes the listing fail: a job must not start from nothing because a mount is away.
func TestUnreadableDirectoryIsNotNone(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustSave(t, s, ref(1, 10), 2)
	disk.Arm(faultfs.Plan{FailAt: 1, Err: syscall.ESTALE})
	if _, _, err := s.Latest(t.Context()); !errors.Is(err, syscall.ESTALE) || errors.Is(err, checkpoint.ErrNone) {
		t.Errorf("latest: %v, want ESTALE", err)
	}
}

// TestSlowDiskObeysDeadline has a write that takes longer than the caller's deadline.
func TestSlowDiskObeysDeadline(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("too late")
	disk.Arm(faultfs.Plan{Before: func(_ int, op, _ string) {
		if op == "sync" {
			cancel(late) // the deadline passes while the disk is busy
		}
	}})
	err := save(ctx, s, ref(1, 10), 2)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("save over its deadline: %v, want context.Canceled", err)
	}
	disk.Arm(faultfs.Plan{})
	wantLatest(t, s, checkpoint.Ref{})
}

// TestEveryFlippedBitOfASidecarIsFound flips a bit of each byte of what a commit goes by: it is refused.
func TestEveryFlippedBitOfASidecarIsFound(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustTune(t, s, ref(1, 10), 1)
	if _, err := s.WriteShard(t.Context(), tuned(ref(1, 20), 0, 1)); err != nil {
		t.Fatal(err)
	}
	name := ref(1, 20).String() + "/shard-0000-of-0001.json"
	for at := 0; at < len(readAll(t, disk, name)); at++ {
		if err := disk.Flip(name, int64(at), uint(at)); err != nil {
			t.Fatal(err)
		}
		var c *checkpoint.CorruptError
		if _, err := s.Commit(t.Context(), commitOf(ref(1, 20), 1)); !errors.As(err, &c) || c.Path != name {
			t.Fatalf("byte %d: %v", at, err)
		}
		if err := disk.Flip(name, int64(at), uint(at)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Commit(t.Context(), commitOf(ref(1, 20), 1)); err != nil {
		t.Fatal(err)
	}
	wantTuned(t, s, ref(1, 20))
}
