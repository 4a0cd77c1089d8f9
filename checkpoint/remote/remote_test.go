package remote_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
	"github.com/gangline/gangline/checkpoint/remote"
)

const elements = 20_000

func open(tb testing.TB, fsys checkpoint.FS) *checkpoint.Store {
	tb.Helper()
	s, err := checkpoint.Open(checkpoint.Config{FS: fsys, Job: "job-7", ChunkBytes: checkpoint.Align})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func weights() []float32 {
	w := make([]float32, elements)
	for i := range w {
		w[i] = float32(i) / 7
	}
	return w
}

// saved gives a store with a checkpoint of two shards, and one of files.
func saved(tb testing.TB) (*checkpoint.Store, [2]checkpoint.Manifest) {
	tb.Helper()
	disk := faultfs.New()
	s := open(tb, disk)
	if err := s.Fence(tb.Context(), 1); err != nil {
		tb.Fatal(err)
	}
	w := weights()
	for rank := range 2 {
		if _, err := s.WriteShard(tb.Context(), checkpoint.ShardWrite{
			Epoch: 1, Step: 1, Rank: rank, WorldSize: 2, Tensors: []checkpoint.Tensor{checkpoint.Share("w", w, rank, 2)},
		}); err != nil {
			tb.Fatal(err)
		}
	}
	var ms [2]checkpoint.Manifest
	var err error
	if ms[0], err = s.Commit(tb.Context(), checkpoint.CommitRequest{Epoch: 1, Step: 1, WorldSize: 2}); err != nil {
		tb.Fatal(err)
	}
	for _, dir := range []string{"tmp", "tmp/a", "tmp/a/b"} {
		if err := disk.Mkdir(dir); err != nil {
			tb.Fatal(err)
		}
	}
	for name, n := range map[string]int{"empty": 0, "a/b/odd name%2f": 9001, "a/page": 2 * checkpoint.Align} {
		f, err := disk.Create("tmp/"+name, false)
		if err == nil {
			_, err = f.Write(slices.Repeat([]byte{7}, n))
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if ms[1], err = s.CommitFiles(tb.Context(), checkpoint.FilesCommit{Epoch: 1, Step: 2, From: "tmp"}); err != nil {
		tb.Fatal(err)
	}
	return s, ms
}

// roundTrip pushes both kinds of checkpoints, and pulls them into an empty directory.
func roundTrip(t *testing.T, b remote.Bucket) {
	t.Helper()
	s, ms := saved(t)
	for _, m := range ms {
		for range 2 { // again is no error
			if err := remote.Push(t.Context(), b, s, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	refs, err := remote.List(t.Context(), b, "job-7")
	if err != nil || !slices.Equal(refs, []checkpoint.Ref{ms[1].Ref(), ms[0].Ref()}) {
		t.Fatalf("list: %v, %v", refs, err)
	}
	back := open(t, faultfs.New())
	for _, ref := range refs {
		for range 2 {
			m, err := remote.Pull(t.Context(), b, back, "job-7", ref)
			if err == nil {
				err = back.Verify(t.Context(), m)
			}
			if err != nil {
				t.Fatalf("pull %s: %v", ref, err)
			}
		}
	}
	m, err := back.Load(t.Context(), ms[0].Ref())
	got := make([]float32, elements)
	if err == nil {
		err = back.ReadTensor(t.Context(), m, "w", got)
	}
	if err != nil || !slices.Equal(got, weights()) {
		t.Errorf("what came back is not what went: %v", err)
	}
	if err := remote.Remove(t.Context(), b, "job-7", ms[0].Ref(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Pull(t.Context(), b, open(t, faultfs.New()), "job-7", ms[0].Ref()); !errors.Is(err, checkpoint.ErrNone) {
		t.Errorf("pull of what was removed: %v", err)
	}
	if objects, err := b.List(t.Context(), "job-7/"+ms[0].Ref().String()); err != nil || len(objects) > 0 {
		t.Errorf("left in the bucket: %v, %v", objects, err)
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	roundTrip(t, &remote.Memory{})
}

// TestPushCutAtEveryOperation: afterwards the checkpoint is whole in the bucket or absent, and a second push completes it.
func TestPushCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	s, ms := saved(t)
	m := ms[1]
	calm := &remote.Memory{}
	if err := remote.Push(t.Context(), calm, s, m); err != nil {
		t.Fatal(err)
	}
	cut := errors.New("the link is cut")
	for at := 1; at < calm.Ops(); at++ { // the last one gives the lease back: the copy is made then
		for _, forGood := range []bool{true, false} { // the link stays down, or one operation fails
			var healed atomic.Bool
			b := &remote.Memory{Before: func(n int, _, _ string) error {
				if !healed.Load() && (n == at || forGood && n > at) {
					return cut
				}
				return nil
			}}
			err := remote.Push(t.Context(), b, s, m)
			healed.Store(true)
			if err == nil || !errors.Is(err, cut) {
				t.Fatalf("operation %d: %v", at, err)
			}
			if _, err := remote.Pull(t.Context(), b, open(t, faultfs.New()), m.Job, m.Ref()); !errors.Is(err, checkpoint.ErrNone) {
				t.Fatalf("operation %d: a pull of half a checkpoint: %v", at, err)
			}
			if err := remote.Push(t.Context(), b, s, m); err != nil {
				t.Fatalf("operation %d: again: %v", at, err)
			}
			if _, err := remote.Pull(t.Context(), b, open(t, faultfs.New()), m.Job, m.Ref()); err != nil {
				t.Fatalf("operation %d: %v", at, err)
			}
		}
	}
}

// TestPullPowerCutAtEveryOperation cuts the power of the machine that pulls: afterwards the checkpoint is whole or absent, and a second pull completes it.
func TestPullPowerCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	s, ms := saved(t)
	b := &remote.Memory{}
	for _, m := range ms {
		if err := remote.Push(t.Context(), b, s, m); err != nil {
			t.Fatal(err)
		}
		calm := faultfs.New()
		if _, err := remote.Pull(t.Context(), b, open(t, calm), m.Job, m.Ref()); err != nil {
			t.Fatal(err)
		}
		for at := 1; at <= calm.Ops(); at++ {
			for _, mode := range []faultfs.CrashMode{faultfs.DropAll, faultfs.KeepNames} {
				disk := faultfs.New()
				disk.Arm(faultfs.Plan{PowerAt: at})
				_, err := remote.Pull(t.Context(), b, open(t, disk), m.Job, m.Ref())
				disk.Crash(mode, nil)
				where := fmt.Sprintf("%s, power cut at operation %d (pull said %v)", m.Ref(), at, err)
				back := open(t, disk)
				got, skipped, lerr := back.Latest(t.Context())
				if len(skipped) > 0 || lerr != nil && !errors.Is(lerr, checkpoint.ErrNone) || err == nil && got.Ref() != m.Ref() {
					t.Fatalf("%s: latest %v, %v, skipped %v", where, got.Ref(), lerr, skipped)
				}
				if got, err = remote.Pull(t.Context(), b, back, m.Job, m.Ref()); err == nil {
					err = back.Verify(t.Context(), got)
				}
				if err != nil {
					t.Fatalf("%s: again: %v", where, err)
				}
			}
		}
	}
}

func TestDamageOnTheWayIsFound(t *testing.T) {
	t.Parallel()
	s, ms := saved(t)
	b := &remote.Memory{}
	m := ms[0]
	if err := remote.Push(t.Context(), b, s, m); err != nil {
		t.Fatal(err)
	}
	objects, err := b.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		for at := 0; at < int(o.Bytes); at += 1 + int(o.Bytes)/40 {
			b.Flip(o.Name, at)
			back := open(t, faultfs.New())
			if _, err := remote.Pull(t.Context(), b, back, m.Job, m.Ref()); err == nil {
				t.Errorf("a bit flipped at %d of %s was not seen", at, o.Name)
			}
			if _, _, err := back.Latest(t.Context()); !errors.Is(err, checkpoint.ErrNone) {
				t.Errorf("a damaged checkpoint is there: %v", err)
			}
			b.Flip(o.Name, at)
		}
	}
}

// TestAnotherCheckpointOfTheSameName is refused, not replaced.
func TestAnotherCheckpointOfTheSameName(t *testing.T) {
	t.Parallel()
	s, ms := saved(t)
	b := &remote.Memory{}
	m := ms[0]
	if err := remote.Push(t.Context(), b, s, m); err != nil {
		t.Fatal(err)
	}
	other := m
	other.Meta = map[string]string{"from": "another cluster"}
	data, err := other.Encode()
	if err != nil {
		t.Fatal(err)
	}
	taken := &remote.Memory{}
	if err := taken.PutNew(t.Context(), m.Job+"/"+m.Ref().String()+"/MANIFEST.json", data); err != nil {
		t.Fatal(err)
	}
	if err := remote.Push(t.Context(), taken, s, m); !errors.Is(err, remote.ErrExists) {
		t.Errorf("%v, want ErrExists", err)
	}
	if err := remote.Push(t.Context(), &remote.Memory{}, s, other); err == nil {
		t.Error("a manifest that is not the one on the disk was pushed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := remote.Push(ctx, &remote.Memory{}, s, ms[1]); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOpenS3RefusesOtherAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{{"http://x/y", ""}, {"s3://", ""}, {"bucket/prefix", ""}, {"s3://b/p?x=1", ""}, {"s3://b", "ftp://x"}, {"s3://b", "x:9000"}, {"s3://b", "http://x/path"}} {
		if _, err := remote.OpenS3(c[0], c[1]); err == nil {
			t.Errorf("%v was taken", c)
		}
	}
}
