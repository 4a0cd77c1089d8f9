package api

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

func TestFollowerForwards(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "s1", "s2", "s3")
	f.node("a", 2)
	f.lead("s2")
	ctx := within(t)
	for _, id := range []string{"s1", "s2", "s3"} {
		c := f.servers[id].client
		got, err := c.SubmitJob(ctx, submitRequest("from-"+id))
		if err != nil {
			t.Fatalf("submit by %s: %v", id, err)
		}
		if got.GetJob().GetUser() != "ann" {
			t.Errorf("by %s: user is %q", id, got.GetJob().GetUser())
		}
		one := got.GetJob().GetId()
		if _, err := c.GetJob(ctx, &schedulerv1.GetJobRequest{Id: one}); err != nil {
			t.Errorf("get by %s: %v", id, err)
		}
		if l, err := c.ListJobs(ctx, &schedulerv1.ListJobsRequest{}); err != nil || len(l.GetJobs()) == 0 {
			t.Errorf("list by %s: %v, %v", id, l, err)
		}
		if n, err := c.ListNodes(ctx, &schedulerv1.ListNodesRequest{}); err != nil || len(n.GetNodes()) != 1 {
			t.Errorf("nodes by %s: %v, %v", id, n, err)
		}
		if _, err := c.CancelJob(ctx, &schedulerv1.CancelJobRequest{Id: one}); err != nil {
			t.Errorf("cancel by %s: %v", id, err)
		}
		_, err = c.GetJob(ctx, &schedulerv1.GetJobRequest{Id: 999})
		wantStatus(t, err, codes.NotFound, "job 999")
	}
	if f.State().Jobs() != 3 {
		t.Errorf("%d jobs, want 3", f.State().Jobs())
	}
}

func TestForwardingLoopEnds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "s1", "s2")
	f.lead("s2")
	ctx := metadata.AppendToOutgoingContext(within(t), forwardedKey, "s8", forwardedKey, "s9")
	_, err := f.s1().client.SubmitJob(ctx, submitRequest("a"))
	wantStatus(t, err, codes.Unavailable, "no server leads")
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, run func(t *testing.T)) {
	t.Parallel()
	synctest.Test(t, run)
}

func TestWaitsForALeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t, "s1", "s2")
		defer stopAll(f)
		f.lead("")
		time.AfterFunc(2*time.Second, func() { f.lead("s2") })
		begin := time.Now()
		if _, err := f.s1().client.SubmitJob(context.Background(), submitRequest("a")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 2*time.Second || took > 2200*time.Millisecond {
			t.Errorf("took %s, the leader came after 2s", took)
		}
	})
}

func TestWaitForALeaderIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t)
		defer stopAll(f)
		f.lead("")
		begin := time.Now()
		_, err := f.s1().client.GetJob(context.Background(), &schedulerv1.GetJobRequest{Id: 1})
		wantStatus(t, err, codes.Unavailable, "no server leads")
		if took := time.Since(begin); took != leaderWait {
			t.Errorf("took %s, want %s", took, leaderWait)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = f.s1().client.SubmitJob(ctx, submitRequest("a"))
		wantStatus(t, err, codes.DeadlineExceeded)
	})
}

func TestDeadLeaderIsReplaced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t, "s1", "s2", "s3")
		defer stopAll(f)
		f.lead("s2")
		f.servers["s2"].stop()
		time.AfterFunc(time.Second, func() { f.lead("s3") })
		if _, err := f.s1().client.SubmitJob(context.Background(), submitRequest("a")); err != nil {
			t.Fatal(err)
		}
	})
}

// TestHungLeaderIsReplaced: the old leader takes calls but does not answer.
func TestHungLeaderIsReplaced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t, "s1", "s3")
		defer stopAll(f)
		stop := f.net.serve("s2", grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			<-s.Context().Done()
			return s.Context().Err()
		})))
		defer stop()
		f.lead("s2")
		time.AfterFunc(time.Second, func() { f.lead("s3") })
		begin := time.Now()
		if _, err := f.s1().client.SubmitJob(context.Background(), submitRequest("a")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 1200*time.Millisecond {
			t.Errorf("took %s, the new leader came after 1s", took)
		}
	})
}

// TestUnknownOutcomeIsRetried loses the answer to the first proposal, which
// took effect: the retry must find the job instead of making another.
func TestUnknownOutcomeIsRetried(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"s1", "s2"} {
		f := newFixture(t, "s1", "s2")
		failed := false
		f.fail = func(cmds []cluster.Command) error {
			if _, ok := cmds[0].(*cluster.SubmitJob); ok && !failed {
				failed = true
				return ErrUnknownOutcome
			}
			return nil
		}
		got, err := f.servers[by].client.SubmitJob(within(t), submitRequest("a"))
		if err != nil {
			t.Fatalf("by %s: %v", by, err)
		}
		if !failed || f.State().Jobs() != 1 || !got.GetDuplicate() {
			t.Errorf("by %s: %d jobs, answer %v", by, f.State().Jobs(), got)
		}
	}
}

// stopAll stops the servers inside a bubble, which must end empty.
func stopAll(f *fixture) {
	for _, s := range f.servers {
		s.stop()
	}
}
