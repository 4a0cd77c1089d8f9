package api

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

type watchStream = grpc.ServerStreamingClient[schedulerv1.WatchJobsResponse]

func (s *testServer) watch(ctx context.Context, t *testing.T, req *schedulerv1.WatchJobsRequest) watchStream {
	t.Helper()
	w, err := s.client.WatchJobs(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// until receives up to the next synced mark and returns the changes as
// "id:State", and the mark.
func until(t *testing.T, w watchStream) (seen []string, mark *schedulerv1.WatchJobsResponse) {
	t.Helper()
	for {
		m, err := w.Recv()
		if err != nil {
			t.Fatalf("after %v: %v", seen, err)
		}
		if m.GetJob() != nil {
			seen = append(seen, fmt.Sprintf("%d:%s", m.GetJob().GetId(), cluster.JobState(m.GetJob().GetState())))
		}
		if m.GetSynced() {
			return seen, m
		}
	}
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWatchLiveAndResume(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.submit(nil)
	f.submit(nil)
	ctx, cancel := context.WithCancel(within(t))
	w := f.s1().watch(ctx, t, &schedulerv1.WatchJobsRequest{})
	seen, mark := until(t, w)
	want(t, seen, "1:Pending", "2:Pending")
	if mark.GetIndex() != f.State().Index() || mark.GetReset_() {
		t.Errorf("mark %v, the state is at %d", mark, f.State().Index())
	}
	f.apply(&cluster.CancelJob{Job: 1})
	seen, mark = until(t, w)
	want(t, seen, "1:Cancelled")
	cancel()

	f.submit(nil)
	f.apply(&cluster.CancelJob{Job: 2})
	w = f.s1().watch(within(t), t, &schedulerv1.WatchJobsRequest{FromIndex: mark.GetIndex()})
	seen, mark = until(t, w)
	want(t, seen, "3:Pending", "2:Cancelled")
	if mark.GetReset_() || mark.GetIndex() != f.State().Index() {
		t.Errorf("mark %v", mark)
	}
}

func TestWatchChosenJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.submit(nil)
	f.submit(nil)
	w := f.s1().watch(within(t), t, &schedulerv1.WatchJobsRequest{JobIds: []uint64{2}})
	seen, _ := until(t, w)
	want(t, seen, "2:Pending")
	f.apply(&cluster.CancelJob{Job: 1}, &cluster.CancelJob{Job: 2})
	seen, _ = until(t, w)
	want(t, seen, "2:Cancelled")
}

func TestWatchTooOldIsReset(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.submit(nil)
	from := f.State().Index()
	f.submit(nil)
	f.apply(&cluster.CancelJob{Job: 1})
	f.forgetEvents()
	w := f.s1().watch(within(t), t, &schedulerv1.WatchJobsRequest{FromIndex: from})
	first, err := w.Recv()
	if err != nil || !first.GetReset_() || first.GetIndex() != 0 {
		t.Fatalf("first message %v, %v: want a reset without an index", first, err)
	}
	seen, mark := until(t, w)
	want(t, seen, "1:Cancelled", "2:Pending")
	if mark.GetIndex() != f.State().Index() {
		t.Errorf("mark %v, the state is at %d", mark, f.State().Index())
	}
	f.submit(nil)
	seen, _ = until(t, w)
	want(t, seen, "3:Pending")
}

// TestWatchMissesNoLateEvent: a state may be seen a little before its events.
func TestWatchMissesNoLateEvent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t)
		defer stopAll(f)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		w := f.s1().watch(ctx, t, &schedulerv1.WatchJobsRequest{})
		until(t, w)
		f.mu.Lock()
		f.late = true
		f.mu.Unlock()
		f.submit(nil)
		time.Sleep(2 * watchMark)
		f.release()
		seen, _ := until(t, w)
		want(t, seen, "1:Pending")
	})
}

// TestWatcherOvertakenByTheLog: more has happened than the server remembers.
func TestWatcherOvertakenByTheLog(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w := f.s1().watch(within(t), t, &schedulerv1.WatchJobsRequest{})
	until(t, w)
	f.mu.Lock()
	f.late = true
	f.mu.Unlock()
	f.submit(nil)
	f.forgetEvents()
	f.release()
	_, err := w.Recv()
	wantStatus(t, err, codes.Aborted, "last index")
}

func TestQuietWatchIsBroughtUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t)
		defer stopAll(f)
		f.submit(nil)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		w := f.s1().watch(ctx, t, &schedulerv1.WatchJobsRequest{JobIds: []uint64{1}})
		_, old := until(t, w)
		f.submit(nil) // not watched
		seen, mark := until(t, w)
		want(t, seen)
		if mark.GetIndex() <= old.GetIndex() {
			t.Errorf("mark %d does not go on from %d", mark.GetIndex(), old.GetIndex())
		}
	})
}

func TestSlowWatcherIsCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t)
		defer stopAll(f)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		w := f.s1().watch(ctx, t, &schedulerv1.WatchJobsRequest{})
		until(t, w)
		for range 1500 {
			f.submit(func(s *cluster.JobSpec) { s.Command = []string{"echo", fmt.Sprintf("%01000d", 0)} })
		}
		time.Sleep(stallLimit + time.Second) // virtual: the client sleeps
		synctest.Wait()
		last := uint64(0)
		for {
			m, err := w.Recv()
			if err != nil {
				wantStatus(t, err, codes.Aborted, "too slowly", "last index")
				break
			}
			last = m.GetIndex()
		}
		// What it missed it gets by resuming.
		w = f.s1().watch(ctx, t, &schedulerv1.WatchJobsRequest{FromIndex: last})
		for last < f.State().Index() {
			seen, mark := until(t, w)
			if len(seen) != int(mark.GetIndex()-last) {
				t.Fatalf("%d changes from %d to %d", len(seen), last, mark.GetIndex())
			}
			last = mark.GetIndex()
		}
	})
}

func TestVanishedClientLeavesNothing(t *testing.T) {
	// Not parallel: it looks at the goroutines of the whole process.
	f := newFixture(t)
	f.submit(nil)
	warm, cancel := context.WithCancel(context.Background())
	until(t, f.s1().watch(warm, t, &schedulerv1.WatchJobsRequest{}))
	cancel()
	f.s1().service.streamsIdle(t)
	before := goleak.IgnoreCurrent()
	for range 20 {
		conn, err := grpc.NewClient("passthrough:///s1", f.net.options()...)
		if err != nil {
			t.Fatal(err)
		}
		w, err := schedulerv1.NewSchedulerServiceClient(conn).WatchJobs(context.Background(), &schedulerv1.WatchJobsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		until(t, w)
		_ = conn.Close() // mid-stream, without a word
	}
	f.s1().service.streamsIdle(t)
	goleak.VerifyNone(t, before)
}

// streamsIdle waits until no stream is being served.
func (s *Service) streamsIdle(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		s.activeMu.Lock()
		n := s.active
		s.activeMu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("streams are still being served")
}

func TestCloseEndsWatches(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w := f.s1().watch(within(t), t, &schedulerv1.WatchJobsRequest{})
	until(t, w)
	f.s1().service.Close()
	_, err := w.Recv()
	wantStatus(t, err, codes.Unavailable, "shutting down")
	w = f.s1().watch(within(t), t, &schedulerv1.WatchJobsRequest{})
	_, err = w.Recv()
	wantStatus(t, err, codes.Unavailable, "shutting down")
}
