package remote_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
	"github.com/gangline/gangline/checkpoint/remote"
)

// steps says in a line which steps of job 7 are in the bucket, the newest first.
func steps(tb testing.TB, b remote.Bucket) string {
	tb.Helper()
	refs, err := remote.List(tb.Context(), b, "job-7")
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, ref := range refs {
		out = append(out, fmt.Sprint(ref.Step))
	}
	return strings.Join(out, " ")
}

// left lists the objects of the bucket.
func left(tb testing.TB, b remote.Bucket) []string {
	tb.Helper()
	objects, err := b.List(tb.Context(), "")
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	for _, o := range objects {
		names = append(names, o.Name)
	}
	slices.Sort(names)
	return names
}

// pushed gives a bucket with checkpoints of which each but the first refers to the first.
func pushed(tb testing.TB, s *checkpoint.Store, ms []checkpoint.Manifest) *remote.Memory {
	tb.Helper()
	b := &remote.Memory{}
	for _, m := range ms {
		if err := remote.Push(tb.Context(), b, s, m); err != nil {
			tb.Fatal(err)
		}
	}
	return b
}

func collect(tb testing.TB, b remote.Bucket, r checkpoint.CollectRequest, pinned ...checkpoint.Ref) (checkpoint.Collected, error) {
	tb.Helper()
	return remote.Collect(tb.Context(), b, "job-7", r, pinned)
}

// TestCollectKeepsWhatItIsTold: the newest, each nth, pinned ones in the bucket and in the directory, and leased ones stay; files that they refer to do too.
func TestCollectKeepsWhatItIsTold(t *testing.T) {
	t.Parallel()
	s, ms := tuned(t, 9)
	b := pushed(t, s, ms)
	if err := remote.Pin(t.Context(), b, "job-7", ms[1].Ref()); err != nil {
		t.Fatal(err)
	}
	if err := remote.Pin(t.Context(), b, "job-7", checkpoint.Ref{Epoch: 1, Step: 99}); !errors.Is(err, checkpoint.ErrNone) {
		t.Errorf("a pin of what is not there: %v", err)
	}
	release, err := remote.Lease(t.Context(), b, "job-7", ms[4].Ref())
	if err != nil {
		t.Fatal(err)
	}
	r := checkpoint.CollectRequest{Keep: 1, Every: 3}
	r.DryRun = true
	if out, err := collect(t, b, r, ms[6].Ref()); err != nil || len(out.Removed) != 3 || steps(t, b) != "9 8 7 6 5 4 3 2 1" {
		t.Errorf("a dry run: %+v, %v; there are %s", out, err, steps(t, b))
	}
	r.DryRun = false
	out, err := collect(t, b, r, ms[6].Ref())
	if err != nil || steps(t, b) != "9 7 6 5 3 2" || len(out.Removed) != 3 || len(out.Kept) != 6 {
		t.Errorf("there are %s; %+v, %v", steps(t, b), out, err)
	}
	if err := remote.Remove(t.Context(), b, "job-7", ms[1].Ref(), false); !errors.Is(err, checkpoint.ErrInUse) || steps(t, b) != "9 7 6 5 3 2" {
		t.Errorf("removal of a pinned one: %v; there are %s", err, steps(t, b))
	}
	if err := remote.Remove(t.Context(), b, "job-7", ms[4].Ref(), true); !errors.Is(err, checkpoint.ErrInUse) || steps(t, b) != "9 7 6 5 3 2" {
		t.Errorf("removal of a leased one: %v; there are %s", err, steps(t, b))
	}
	for _, i := range []int{8, 6, 5, 4, 2, 1} {
		wantPulled(t, b, ms[i]) // all need the file of step 1
	}
	if err := errors.Join(release(), remote.Unpin(t.Context(), b, "job-7", ms[1].Ref())); err != nil {
		t.Fatal(err)
	}
	if _, err := collect(t, b, checkpoint.CollectRequest{Keep: 1}); err != nil || steps(t, b) != "9" {
		t.Errorf("there are %s, %v", steps(t, b), err)
	}
	wantPulled(t, b, ms[8])
	if got := left(t, b); len(got) != 3 { // its shard, its manifest, the shard of step 1
		t.Errorf("left are %v", got)
	}
}

// TestCollectNeedsAWholeOne: a copy that lacks a file does not count, and nothing goes as long as no other is whole.
func TestCollectNeedsAWholeOne(t *testing.T) {
	t.Parallel()
	s, ms := saved(t)
	b := pushed(t, s, ms[:])
	if err := b.Remove(t.Context(), []string{"job-7/" + ms[1].Ref().String() + "/a/page"}); err != nil {
		t.Fatal(err)
	}
	if out, err := collect(t, b, checkpoint.CollectRequest{Keep: 1}); err != nil || steps(t, b) != "2 1" || len(out.Skipped) != 1 {
		t.Errorf("there are %s; %+v, %v", steps(t, b), out, err)
	}
	if _, err := remote.Pull(t.Context(), b, open(t, faultfs.New()), "job-7", ms[1].Ref()); !isDamage(err) {
		t.Errorf("a pull of a copy that lacks a file: %v", err)
	}
	if err := b.Remove(t.Context(), []string{"job-7/" + ms[0].Ref().String() + "/" + ms[0].Shards[0].File}); err != nil {
		t.Fatal(err)
	}
	if out, err := collect(t, b, checkpoint.CollectRequest{Keep: 1}); err != nil || steps(t, b) != "2 1" || len(out.Skipped) != 2 {
		t.Errorf("none is whole: there are %s; %+v, %v", steps(t, b), out, err)
	}
	if _, err := collect(t, b, checkpoint.CollectRequest{}); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("keep none: %v", err)
	}
}

func isDamage(err error) bool {
	var c *checkpoint.CorruptError
	return errors.As(err, &c)
}

// TestCollectCutAtEveryOperation: afterwards each copy that is there is whole, the newest is, and another Collect, of anybody, leaves what it should.
func TestCollectCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	s, ms := tuned(t, 4)
	cut := errors.New("the link is cut")
	for at, whole := int64(1), false; !whole; at++ {
		for _, forGood := range []bool{true, false} {
			b := pushed(t, s, ms)
			var n atomic.Int64
			var calm atomic.Bool
			half := "job-7/" + checkpoint.Ref{Epoch: 1, Step: 2}.String() + "/left-over"
			if err := b.PutNew(t.Context(), half, []byte("of a push that was cut")); err != nil {
				t.Fatal(err)
			}
			b.Before = func(int, string, string) error {
				if n := n.Add(1); !calm.Load() && (n == at || forGood && n > at) {
					return cut
				}
				return nil
			}
			_, err := collect(t, b, checkpoint.CollectRequest{Keep: 2})
			calm.Store(true)
			whole = n.Load() < at
			if (err == nil) != whole {
				t.Fatalf("cut at %d: %v", at, err)
			}
			if got := steps(t, b); !strings.HasPrefix(got, "4 3") {
				t.Fatalf("cut at %d: there are %s", at, got)
			}
			for _, m := range ms[2:] {
				wantPulled(t, b, m)
			}
			later := time.Now().Add(time.Hour) // what the dead one said has run out
			if _, err := collect(t, b, checkpoint.CollectRequest{Keep: 2, Now: later}); err != nil || steps(t, b) != "4 3" {
				t.Fatalf("cut at %d, again: %v, there are %s", at, err, steps(t, b))
			}
			if got := left(t, b); len(got) != 5 {
				t.Fatalf("cut at %d: left are %v", at, got)
			}
		}
	}
}

// TestCopiesAtEveryMomentOfACollection pushes what refers to a copy that is being removed, and pulls one, before every operation of a
// collection; and collects before every operation of these. Whatever was said to be done is whole.
func TestCopiesAtEveryMomentOfACollection(t *testing.T) {
	t.Parallel()
	s, ms := tuned(t, 2)
	first, second := ms[0], ms[1] // the second refers to the first, and is pinned
	later, newest := unrelated(t)
	gc := func(b remote.Bucket) error {
		_, err := collect(t, b, checkpoint.CollectRequest{Keep: 1}, second.Ref())
		return err
	}
	push := func(b remote.Bucket) error { return remote.Push(t.Context(), b, s, second) }
	pull := func(b remote.Bucket) error {
		disk := open(t, faultfs.New())
		m, err := remote.Pull(t.Context(), b, disk, "job-7", first.Ref())
		if err == nil {
			err = disk.Verify(t.Context(), m)
		}
		return err
	}
	for name, c := range map[string]struct{ outer, inner func(remote.Bucket) error }{
		"push in collect": {gc, push}, "collect in push": {push, gc}, "pull in collect": {gc, pull}, "collect in pull": {pull, gc},
	} {
		for at, over := int64(1), false; !over; at++ {
			b := pushed(t, s, ms[:1])
			var n atomic.Int64
			var busy atomic.Bool
			if err := remote.Push(t.Context(), b, later, newest); err != nil {
				t.Fatal(err)
			}
			var inner error
			b.Before = func(int, string, string) error {
				if !busy.Load() && n.Add(1) == at {
					busy.Store(true)
					inner = c.inner(b)
				}
				return nil
			}
			outer := c.outer(b)
			over, b.Before = n.Load() < at, nil
			where := fmt.Sprintf("%s, at %d: outer %v, inner %v", name, at, outer, inner)
			for _, err := range []error{outer, inner} {
				if err != nil && !errors.Is(err, remote.ErrRemoving) && !errors.Is(err, checkpoint.ErrNone) {
					t.Fatal(where)
				}
			}
			if strings.Contains(name, "push") {
				if errors.Join(outer, inner) != nil || over {
					if err := push(b); err != nil { // it was told to try again
						t.Fatalf("%s: again: %v", where, err)
					}
				}
				wantPulled(t, b, second)
			}
			wantPulled(t, b, newest)
			if t.Failed() {
				t.Fatal(where)
			}
			if err := gc(b); err != nil || strings.Contains(steps(t, b), "1 ") {
				t.Fatalf("%s: there are %s, %v", where, steps(t, b), err)
			}
		}
	}
}

// unrelated gives a store with a later checkpoint that refers to none.
func unrelated(tb testing.TB) (*checkpoint.Store, checkpoint.Manifest) {
	tb.Helper()
	s := open(tb, faultfs.New())
	if err := s.Fence(tb.Context(), 1); err != nil {
		tb.Fatal(err)
	}
	if _, err := s.WriteShard(tb.Context(), checkpoint.ShardWrite{
		Epoch: 1, Step: 50, WorldSize: 1, Tensors: []checkpoint.Tensor{checkpoint.Whole("w", weights(), elements)},
	}); err != nil {
		tb.Fatal(err)
	}
	m, err := s.Commit(tb.Context(), checkpoint.CommitRequest{Epoch: 1, Step: 50, WorldSize: 1})
	if err != nil {
		tb.Fatal(err)
	}
	return s, m
}
