package checkpoint_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// copyWhole makes a whole copy of a checkpoint on another disk, as an agent without a key does.
func copyWhole(tb testing.TB, from *checkpoint.Store, r checkpoint.Ref) *faultfs.FS {
	tb.Helper()
	n := &node{shared: faultfs.New(), disk: faultfs.New(), far: from}
	n.own, n.whole = dirOf(tb, n.disk, "own"), dirOf(tb, n.disk, "whole")
	m := mustLoad(tb, from, r)
	manifest, err := from.ManifestFile(&m)
	if err == nil {
		err = n.bring(tb.Context(), m, manifest, open(tb, n.whole))
	}
	if err != nil {
		tb.Fatal(err)
	}
	return n.disk
}

// spoilFiles flips a bit in each chunk of each shard of the job's directory.
func spoilFiles(tb testing.TB, disk *faultfs.FS) {
	tb.Helper()
	for _, name := range disk.Names() {
		if !strings.HasSuffix(name, ".glck") {
			continue
		}
		for at := int64(5); at < int64(len(readAll(tb, disk, name))); at += testChunk {
			if err := disk.Flip(name, at, 1); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// TestAWholeCopyIsReadAlone: in all encodings, with references and deltas, the ranks read nothing of the shared storage's shards, in whatever number they come back.
func TestAWholeCopyIsReadAlone(t *testing.T) {
	t.Parallel()
	all := encodings(t)
	all["plain"] = checkpoint.Config{}
	for name, cfg := range all {
		shared := faultfs.New()
		s := openAs(t, shared, cfg)
		mustFence(t, s, 1)
		for step := uint64(1); step <= 4; step++ {
			mustMix(t, s, ref(1, step), 8)
		}
		disk := copyWhole(t, s, ref(1, 4))
		mustFence(t, s, 2)
		spoilFiles(t, shared)
		cfg.Local = &checkpoint.Local{FS: faultfs.New(), Whole: below{disk, "whole"}, Resume: ref(1, 4), Epoch: 2}
		start := openAs(t, shared, cfg)
		m, skipped, err := start.Latest(t.Context())
		if err != nil || len(skipped) > 0 || m.Ref() != ref(1, 4) {
			t.Fatalf("%s: latest is %v, %v, %v", name, m.Ref(), skipped, err)
		}
		r := start.NewReader(mustLoad(t, start, ref(1, 4)))
		want := bf16(4, 4*testLen)
		for rank := range 3 { // 8 ranks wrote it
			lo, hi := checkpoint.ShareRange(4*testLen, rank, 3)
			got := make([]byte, 2*(hi-lo))
			if err := r.ReadRaw(t.Context(), "half", []int64{lo}, []int64{hi - lo}, got); err != nil || !slices.Equal(got, want[2*lo:2*hi]) {
				t.Fatalf("%s: rank %d of 3: %v", name, rank, err)
			}
		}
		got := make([]float32, len(frozen()))
		if err := checkpoint.Read(t.Context(), r, "frozen", got); err != nil || !slices.Equal(got, frozen()) {
			t.Fatalf("%s: what has not changed: %v", name, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReshardFromAWholeCopy: 8 ranks wrote it, 3 read the copy and save, 8 read the copy of that.
func TestReshardFromAWholeCopy(t *testing.T) {
	t.Parallel()
	shared := faultfs.New()
	s := open(t, shared)
	mustFence(t, s, 1)
	mustSave(t, s, ref(1, 1), 8)
	want := weights(ref(1, 1), testLen)
	for turn, world := range []int{3, 8, 3, 8} {
		epoch := uint64(turn + 2)
		before := latest0(t, s)
		disk := copyWhole(t, s, before)
		mustFence(t, s, epoch)
		spoilFiles(t, shared)
		start := openAs(t, shared, checkpoint.Config{Local: &checkpoint.Local{FS: faultfs.New(), Whole: below{disk, "whole"}, Resume: before, Epoch: epoch}})
		m, _, err := start.Latest(t.Context())
		if err != nil || m.Ref() != before {
			t.Fatalf("turn %d: latest is %v, %v", turn, m.Ref(), err)
		}
		far := open(t, shared)
		for rank := range world {
			part := make([]float32, 0)
			lo, hi := checkpoint.ShareRange(testLen, rank, world)
			part = append(part, make([]float32, hi-lo)...)
			r := start.NewReader(m)
			if err := checkpoint.ReadBox(t.Context(), r, "w", []int64{lo}, []int64{hi - lo}, part); err != nil {
				t.Fatalf("turn %d, rank %d of %d: %v", turn, rank, world, err)
			}
			_ = r.Close() // read only
			if !slices.Equal(part, want[lo:hi]) {
				t.Fatalf("turn %d, rank %d of %d: other elements", turn, rank, world)
			}
			_, err := far.WriteShard(t.Context(), checkpoint.ShardWrite{
				Epoch: epoch, Step: epoch, Rank: rank, WorldSize: world, Tensors: []checkpoint.Tensor{checkpoint.Share("w", want, rank, world)},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := far.Commit(t.Context(), commitOf(ref(epoch, epoch), world)); err != nil {
			t.Fatal(err)
		}
	}
}

// latest0 is the newest that is complete.
func latest0(tb testing.TB, s *checkpoint.Store) checkpoint.Ref {
	tb.Helper()
	refs, err := s.List(tb.Context())
	if err != nil || len(refs) == 0 {
		tb.Fatal(refs, err)
	}
	return refs[0]
}

// TestWhatComesBeforeAWholeCopy: what this epoch has saved since; and behind it, where the copy cannot be used, what is on the shared storage; a chunk of the copy
// that is damaged is read there.
func TestWhatComesBeforeAWholeCopy(t *testing.T) {
	t.Parallel()
	shared := faultfs.New()
	s := open(t, shared)
	mustFence(t, s, 1)
	mustSave(t, s, ref(1, 1), 2)
	mustSave(t, s, ref(1, 2), 2)
	disk := copyWhole(t, s, ref(1, 1)) // the agent has found step 2 damaged
	mustFence(t, s, 2)
	local := checkpoint.Local{FS: faultfs.New(), Whole: below{disk, "whole"}, Resume: ref(1, 1), Epoch: 2}
	start := func() *checkpoint.Store { return openAs(t, shared, checkpoint.Config{Local: &local}) }
	wantLatest(t, start(), ref(1, 1))
	if err := disk.Flip("whole/"+ref(1, 1).String()+"/shard-0001-of-0002.glck", testChunk+1, 1); err != nil {
		t.Fatal(err)
	}
	wantLatest(t, start(), ref(1, 1)) // by that chunk of the shared storage
	mustSave(t, s, ref(2, 3), 2)
	wantLatest(t, start(), ref(2, 3))
	if err := disk.Remove("whole/" + ref(1, 1).String() + "/MANIFEST.json"); err != nil {
		t.Fatal(err)
	}
	local.Epoch = 3
	mustFence(t, s, 3)
	wantLatest(t, start(), ref(2, 3))
	strict := openAs(t, shared, checkpoint.Config{NotBefore: ref(1, 2), Local: &checkpoint.Local{
		FS: faultfs.New(), Whole: below{copyWhole(t, s, ref(1, 1)), "whole"}, Resume: ref(1, 1), Epoch: 3,
	}})
	wantLatest(t, strict, ref(2, 3)) // the copy is older than what is known to have been committed
}
