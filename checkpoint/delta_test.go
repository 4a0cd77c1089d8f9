package checkpoint_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// halfOf describes the bfloat16 tensor of rank 0.
func halfOf(m *checkpoint.Manifest) checkpoint.TensorInfo {
	i := slices.IndexFunc(m.Shards[0].Tensors, func(t checkpoint.TensorInfo) bool { return t.Name == "half" })
	return m.Shards[0].Tensors[i]
}

// TestDeltasAreBounded: at most Delta-1 saves in a row are differences, each to a whole copy, and that stays.
func TestDeltasAreBounded(t *testing.T) {
	t.Parallel()
	cfg := checkpoint.Config{Compress: checkpoint.Zstd, Delta: 3, ReferenceShare: -1}
	disk := faultfs.New()
	s := openAs(t, disk, cfg)
	mustFence(t, s, 1)
	var sizes []int64
	for step := uint64(1); step <= 6; step++ {
		m := mustMix(t, s, ref(1, step), 2)
		size := int64(0)
		for _, n := range m.Shards[0].Encoded.Frames {
			size += n
		}
		sizes = append(sizes, size)
		whole := step - (step-1)%3
		var want []checkpoint.Ref
		if whole != step {
			want = []checkpoint.Ref{ref(1, whole)}
		}
		if got := m.Refs(); !slices.Equal(got, want) || (halfOf(&m).Base > 0) != (whole != step) {
			t.Errorf("step %d: refers to %v, want %v; %+v", step, got, want, halfOf(&m))
		}
		wantMixed(t, openAs(t, disk, cfg), ref(1, step))
		if _, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if got := steps(t, s); !slices.Equal(got, []uint64{6, 4}) {
		t.Errorf("%v stay, want the newest and its base", got)
	}
	if sizes[1] >= sizes[0] {
		t.Errorf("a difference is no smaller: %v", sizes)
	}
	// A new process does not know how many there were, and goes on.
	s = openAs(t, disk, cfg)
	mustFence(t, s, 2)
	if _, _, err := s.Latest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m := mustMix(t, s, ref(2, 7), 2); !slices.Equal(m.Refs(), []checkpoint.Ref{ref(1, 4)}) {
		t.Errorf("after a restart: refers to %v", m.Refs())
	}
	wantMixed(t, s, ref(2, 7))
}

// TestADamagedBaseCostsOneSave: the save that meets the damage fails and says so; the next one is whole.
func TestADamagedBaseCostsOneSave(t *testing.T) {
	t.Parallel()
	cfg := checkpoint.Config{Compress: checkpoint.Zstd, Delta: 8, ReferenceShare: -1, Key: testKey(t, 1)}
	disk := faultfs.New()
	s := openAs(t, disk, cfg)
	mustFence(t, s, 1)
	first := mustMix(t, s, ref(1, 1), 1)
	second := mustMix(t, s, ref(1, 2), 1)
	name := ref(1, 1).String() + "/" + first.Shards[0].File
	span := second.Shards[0].Origins[0].Spans[0]
	if err := disk.Flip(name, int64(span.First)*testChunk+9, 1); err != nil {
		t.Fatal(err)
	}
	_, err := mix(t.Context(), s, ref(1, 3), 1)
	var c *checkpoint.CorruptError
	if !errors.As(err, &c) || c.Path != name {
		t.Fatalf("save against a damaged base: %v", err)
	}
	noHalfFiles(t, disk)
	if m := mustMix(t, s, ref(1, 4), 1); len(m.Refs()) > 0 {
		t.Errorf("refers to %v", m.Refs())
	}
	wantMixed(t, s, ref(1, 4))
}

// TestEncodedImages writes images in the process that filled them, and in one that found them.
func TestEncodedImages(t *testing.T) {
	t.Parallel()
	for name, cfg := range encodings(t) {
		disk := faultfs.New()
		s := openAs(t, disk, cfg)
		mustFence(t, s, 1)
		mem := checkpoint.AlignedBuffer(1 << 20)
		image := s.NewImage(mem)
		for step := uint64(1); step <= 3; step++ {
			if err := image.Fill(mixed(ref(1, step), 0, 1)); err != nil {
				t.Fatal(err)
			}
			if step == 3 { // this process has died
				description, err := image.Describe()
				if err != nil {
					t.Fatal(err)
				}
				agent := openAs(t, disk, checkpoint.Config{ChunkBytes: cfg.ChunkBytes})
				image, err = agent.OpenImage(mem, description)
				if cfg.Key != nil {
					if !errors.Is(err, checkpoint.ErrKey) {
						t.Errorf("%s: an agent without the key: %v", name, err)
					}
					if image, err = openAs(t, disk, cfg).OpenImage(mem, description); err != nil {
						t.Fatal(err)
					}
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := image.Write(t.Context()); err != nil {
				t.Fatal(err)
			}
			m, err := s.Commit(t.Context(), commitOf(ref(1, step), 1))
			if err != nil {
				t.Fatal(err)
			}
			if e := m.Shards[0].Encoded; e == nil || e.Compress != cfg.Compress || (e.Key != "") != (cfg.Key != nil) {
				t.Errorf("%s: step %d is stored as %+v", name, step, e)
			}
			wantMixed(t, s, ref(1, step))
		}
	}
}

// TestEncodedCutEverywhere cuts saves short that compress, encrypt, refer and differ.
func TestEncodedCutEverywhere(t *testing.T) {
	t.Parallel()
	cfg := checkpoint.Config{Compress: checkpoint.Zstd, Key: testKey(t, 9), Delta: 3, ChunkBytes: 8 * testChunk}
	live := func(tb testing.TB, s *checkpoint.Store, epoch, step uint64, collect bool) error {
		if err := s.Fence(tb.Context(), epoch); err != nil {
			return err
		}
		if _, _, err := s.Latest(tb.Context()); err != nil {
			return err
		}
		if _, err := mix(tb.Context(), s, ref(epoch, step), 1); err != nil || !collect {
			return err
		}
		_, err := s.Collect(tb.Context(), checkpoint.CollectRequest{Epoch: epoch, Keep: 1})
		return err
	}
	c := crashCase{
		modes: map[faultfs.CrashMode]int{faultfs.Some: 1},
		world: func(tb testing.TB) (*faultfs.FS, *checkpoint.Store) {
			disk := faultfs.New()
			s := openAs(tb, disk, cfg)
			mustFence(tb, s, 1)
			mustMix(tb, s, ref(1, 10), 1)
			mustMix(tb, s, ref(1, 20), 1)
			return disk, s
		},
		act: func(tb testing.TB, s *checkpoint.Store) error { return live(tb, s, 2, 21, false) },
		check: func(t *testing.T, where string, _ *checkpoint.Store, disk *faultfs.FS, err error) {
			s := openAs(t, disk, cfg)
			m, skipped, lerr := s.Latest(t.Context())
			if lerr != nil || len(skipped) > 0 || m.Ref() != ref(2, 21) && (err == nil || m.Ref() != ref(1, 20)) {
				t.Fatalf("%s: latest is %v, %v, skipped %v\n%v", where, m.Ref(), lerr, skipped, disk.Names())
			}
			if m.Ref() == ref(2, 21) {
				wantMixed(t, s, m.Ref())
			}
			if err := live(t, s, 3, 22, true); err != nil {
				t.Fatalf("%s: next launch: %v", where, err)
			}
			wantMixed(t, s, ref(3, 22))
			if left, err := s.List(t.Context()); err != nil || len(left) > 2 {
				t.Fatalf("%s: %v stay, %v", where, left, err)
			}
		},
	}
	c.cutEverywhere(t)
}
