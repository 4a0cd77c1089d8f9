package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// frozen gives weights that no step changes.
func frozen() []float32 {
	w := make([]float32, 2*testLen)
	for i := range w {
		w[i] = float32(i) / 3
	}
	return w
}

// tuned is a fine-tuning's shard: most of it frozen, "w" new at each step, as shard's is.
func tuned(r checkpoint.Ref, rank, world int) checkpoint.ShardWrite {
	w := shard(r, rank, world)
	w.Tensors = append([]checkpoint.Tensor{checkpoint.Share("frozen", frozen(), rank, world)}, w.Tensors...)
	return w
}

// tune saves one step of it.
func tune(ctx context.Context, s *checkpoint.Store, r checkpoint.Ref, world int) (m checkpoint.Manifest, err error) {
	for rank := range world {
		if _, err := s.WriteShard(ctx, tuned(r, rank, world)); err != nil {
			return m, err
		}
	}
	return s.Commit(ctx, commitOf(r, world))
}

func mustTune(tb testing.TB, s *checkpoint.Store, r checkpoint.Ref, world int) checkpoint.Manifest {
	tb.Helper()
	m, err := tune(tb.Context(), s, r, world)
	if err != nil {
		tb.Fatalf("save %v: %v", r, err)
	}
	return m
}

// wantTuned checks that a checkpoint verifies and holds what was saved.
func wantTuned(tb testing.TB, s *checkpoint.Store, r checkpoint.Ref) {
	tb.Helper()
	m, err := s.Load(tb.Context(), r)
	if err == nil {
		err = s.Verify(tb.Context(), m)
	}
	if err != nil {
		tb.Fatalf("%v: %v", r, err)
	}
	wantContent(tb, s, m)
	got := make([]float32, len(frozen()))
	if err := s.ReadTensor(tb.Context(), m, "frozen", got); err != nil || !slices.Equal(got, frozen()) {
		tb.Fatalf("%v: frozen weights are not what they were: %v", r, err)
	}
}

func TestUnchangedTensorsAreReferredTo(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	first := mustTune(t, s, ref(1, 1), 2)
	for step := uint64(2); step <= 5; step++ {
		m := mustTune(t, s, ref(1, step), 2)
		if got := m.Refs(); !slices.Equal(got, []checkpoint.Ref{ref(1, 1)}) {
			t.Errorf("step %d refers to %v, want the one that wrote the bytes", step, got)
		}
		if m.Bytes()*2 > first.Bytes() || m.ReferredBytes()*2 < first.Bytes() {
			t.Errorf("step %d: %d bytes written and %d referred to, of %d", step, m.Bytes(), m.ReferredBytes(), first.Bytes())
		}
		wantTuned(t, s, ref(1, step))
	}
	if diffs, same, err := checkpoint.Compare(t.Context(), s, first, mustLoad(t, s, ref(1, 5))); err != nil || len(diffs) != 1 || diffs[0].Name != "w" || same != 3 {
		t.Errorf("compared: %v, %d the same, %v", diffs, same, err)
	}
}

func mustLoad(tb testing.TB, s *checkpoint.Store, r checkpoint.Ref) checkpoint.Manifest {
	tb.Helper()
	m, err := s.Load(tb.Context(), r)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// TestOneChangedByteIsNoticed changes each byte region of a large frozen tensor in turn, wherever samples may be taken.
func TestOneChangedByteIsNoticed(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	data := make([]byte, 64<<10)
	write := func(step uint64) checkpoint.Manifest {
		w := checkpoint.ShardWrite{Epoch: 1, Step: step, WorldSize: 1, Tensors: []checkpoint.Tensor{checkpoint.Whole("b", data, int64(len(data)))}}
		if _, err := s.WriteShard(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		m, err := s.Commit(t.Context(), commitOf(ref(1, step), 1))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	write(1)
	step := uint64(2)
	for at := 0; at < len(data); at += 1009 {
		data[at]++
		m := write(step)
		got := make([]byte, len(data))
		r := s.NewReader(m)
		err := errors.Join(checkpoint.Read(t.Context(), r, "b", got), r.Close())
		if err != nil || !slices.Equal(got, data) {
			t.Fatalf("byte %d changed: not saved (%v)", at, err)
		}
		// A change that the samples missed is summed at the next save, and referred to from the one after that on.
		write(step + 1)
		if again := write(step + 2); again.ReferredBytes() == 0 {
			t.Fatalf("after byte %d nothing changed, and nothing is referred to", at)
		}
		step += 3
	}
}

func TestSmallGainIsNoReference(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64]int{0: 1, 0.5: 1, 0.95: 0, -1: 0} {
		s, err := checkpoint.Open(checkpoint.Config{FS: faultfs.New(), Job: testJob, ChunkBytes: testChunk, ReferenceShare: share})
		if err != nil {
			t.Fatal(err)
		}
		mustFence(t, s, 1)
		mustTune(t, s, ref(1, 1), 1)
		if m := mustTune(t, s, ref(1, 2), 1); len(m.Refs()) != want {
			t.Errorf("share %v: refers to %v, want %d", share, m.Refs(), want)
		}
	}
}

// TestANewProcessRefersToWhatItResumedFrom goes on in another epoch, also with another number of ranks.
func TestANewProcessRefersToWhatItResumedFrom(t *testing.T) {
	t.Parallel()
	for world, want := range map[int]int{2: 1, 3: 0} {
		disk, s := begun(t, 1)
		mustTune(t, s, ref(1, 1), 2)
		mustTune(t, s, ref(1, 2), 2)
		s = open(t, disk)
		mustFence(t, s, 2)
		if _, _, err := s.Latest(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantTuned(t, s, ref(1, 2))
		m := mustTune(t, s, ref(2, 3), world)
		if got := m.Refs(); len(got) != want || want == 1 && got[0] != ref(1, 1) {
			t.Errorf("%d ranks: refers to %v, want %d, step 1", world, got, want)
		}
		wantTuned(t, s, ref(2, 3))
	}
}

func TestWhatIsReferredToStays(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	for step := uint64(1); step <= 6; step++ {
		mustTune(t, s, ref(1, step), 1)
		collect(t, s, 1, 2)
	}
	if got := steps(t, s); !slices.Equal(got, []uint64{6, 5, 1}) {
		t.Fatalf("%v stay, want the two newest and what they refer to", got)
	}
	err := s.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, 1), Force: true})
	if !errors.Is(err, checkpoint.ErrInUse) {
		t.Errorf("remove what others refer to: %v", err)
	}
	if found, err := s.Inventory(t.Context(), time.Time{}); err != nil || len(found[2].Users) != 2 {
		t.Errorf("users of step 1: %+v, %v", found, err)
	}
	wantTuned(t, s, ref(1, 6))
	mustSave(t, s, ref(1, 7), 1) // the frozen part is gone
	mustSave(t, s, ref(1, 8), 1)
	collect(t, s, 1, 2)
	if got := steps(t, s); !slices.Equal(got, []uint64{8, 7}) {
		t.Errorf("%v stay, though nothing refers to step 1 any more", got)
	}
	onlySteps(t, disk, 7, 8)
}

// onlySteps checks that nothing is left of other checkpoints of epoch 1.
func onlySteps(t *testing.T, disk *faultfs.FS, steps ...uint64) {
	t.Helper()
	for _, name := range disk.Names() {
		ok := !strings.HasPrefix(name, "step-")
		for _, step := range steps {
			ok = ok || strings.HasPrefix(name, ref(1, step).String()+"/")
		}
		if !ok {
			t.Errorf("%s stays", name)
		}
	}
}

// TestDamageIsNotReferredTo flips a bit of what is referred to: once it is found, the next save writes the tensors again.
func TestDamageIsNotReferredTo(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustTune(t, s, ref(1, 1), 1)
	m := mustTune(t, s, ref(1, 2), 1)
	name := ref(1, 1).String() + "/shard-0000-of-0001.glck"
	if err := disk.Flip(name, 3*testChunk, 2); err != nil {
		t.Fatal(err)
	}
	var c *checkpoint.CorruptError
	if err := open(t, disk).Verify(t.Context(), m); !errors.As(err, &c) || c.Path != name {
		t.Fatalf("verify: %v", err)
	}
	if err := s.ReadTensor(t.Context(), m, "frozen", make([]float32, len(frozen()))); !errors.As(err, &c) || c.Path != name {
		t.Fatalf("read: %v", err)
	}
	if m := mustTune(t, s, ref(1, 3), 1); len(m.Refs()) > 0 {
		t.Errorf("refers to damage: %v", m.Refs())
	}
	wantTuned(t, s, ref(1, 3))
	if m := mustTune(t, s, ref(1, 4), 1); !slices.Equal(m.Refs(), []checkpoint.Ref{ref(1, 3)}) {
		t.Errorf("refers to %v, want step 3", m.Refs())
	}
	got := collect(t, open(t, disk), 1, 1)
	if !slices.Equal(got.Kept, []checkpoint.Ref{ref(1, 4), ref(1, 3)}) {
		t.Errorf("kept %v", got.Kept)
	}
}

// TestFilesThatAreReferredToMustBeThere takes the source away by force, and its file, and swaps it.
func TestFilesThatAreReferredToMustBeThere(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"file gone", "all gone", "shorter"} {
		disk, s := begun(t, 1)
		mustTune(t, s, ref(1, 1), 1)
		mustTune(t, s, ref(1, 2), 1)
		file := ref(1, 1).String() + "/shard-0000-of-0001.glck"
		var err error
		switch how {
		case "file gone":
			err = disk.Remove(file)
		case "all gone":
			err = disk.Rename(ref(1, 1).String(), "elsewhere")
		case "shorter":
			f, cerr := disk.Create(file, false)
			_, werr := f.Write(make([]byte, testChunk))
			err = errors.Join(cerr, werr)
		}
		if err != nil {
			t.Fatal(err)
		}
		var c *checkpoint.CorruptError
		if _, err := s.Load(t.Context(), ref(1, 2)); !errors.As(err, &c) || c.Path != file {
			t.Errorf("%s: load: %v", how, err)
		}
		if _, skipped, err := s.Latest(t.Context()); !errors.Is(err, checkpoint.ErrAllBad) || len(skipped) == 0 {
			t.Errorf("%s: latest: %v, skipped %v", how, err, skipped)
		}
		if _, err := tune(t.Context(), s, ref(1, 3), 1); how == "all gone" && err != nil {
			t.Errorf("%s: the next save: %v", how, err)
		}
	}
}

// TestReceivedWithAndWithoutItsSource copies a checkpoint that refers to another by the names that FileNames gives.
func TestReceivedWithAndWithoutItsSource(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	ms := []checkpoint.Manifest{mustTune(t, s, ref(1, 1), 2), mustTune(t, s, ref(1, 2), 2)}
	receive := func(to *checkpoint.Store, m checkpoint.Manifest) []string {
		t.Helper()
		data, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var asked []string
		done := make(chan string, 1000)
		_, err = to.Receive(t.Context(), data, func(ctx context.Context, name string, at int64, dst []byte) error {
			done <- name
			f, err := s.OpenFile(m, name)
			if err != nil {
				return err
			}
			_, err = f.ReadChunks(ctx, int(at/f.ChunkBytes()), dst)
			return errors.Join(err, f.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
		for close(done); ; {
			name, ok := <-done
			if !ok {
				return asked
			}
			if m.OfEarlier(name) {
				asked = append(asked, name)
			}
		}
	}
	disk := faultfs.New()
	alone := open(t, disk)
	if asked := receive(alone, ms[1]); len(asked) == 0 {
		t.Error("the files of the earlier checkpoint were not asked for")
	}
	wantTuned(t, alone, ref(1, 2))
	receive(alone, ms[0])
	mustFence(t, alone, 2)
	if err := alone.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, 1)}); err != nil && !errors.Is(err, checkpoint.ErrInUse) {
		t.Error(err)
	}
	wantTuned(t, alone, ref(1, 2))

	both := open(t, faultfs.New())
	receive(both, ms[0])
	if asked := receive(both, ms[1]); len(asked) > 0 {
		t.Errorf("the earlier checkpoint is there, and yet %v were fetched", asked)
	}
	if err := both.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, 1)}); !errors.Is(err, checkpoint.ErrInUse) {
		t.Errorf("remove what is referred to: %v", err)
	}
	wantTuned(t, both, ref(1, 2))
}

// TestImagesRefer writes images as the asynchronous saves do.
func TestImagesRefer(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	image := s.NewImage(checkpoint.AlignedBuffer(1 << 20))
	for step := uint64(1); step <= 3; step++ {
		if err := image.Fill(tuned(ref(1, step), 0, 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := image.Write(t.Context()); err != nil {
			t.Fatal(err)
		}
		m, err := s.Commit(t.Context(), commitOf(ref(1, step), 1))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(m.Refs()); step > 1 && got != fmt.Sprint([]checkpoint.Ref{ref(1, 1)}) {
			t.Errorf("step %d refers to %s", step, got)
		}
		wantTuned(t, s, ref(1, step))
	}
}
