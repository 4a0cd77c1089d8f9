package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

func TestThreeServersAgree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		l := w.leader()
		must(t, l, node())
		var index uint64
		for i := range 50 {
			index = must(t, l, submitted(fmt.Sprint("job", i)))
		}
		sameState(t, index, w.replicas)
		s, err := l.Read(testContext(t))
		if err != nil || s.Jobs() != 50 {
			t.Fatalf("read: %d jobs, %v; want 50", s.Jobs(), err)
		}
		for id, r := range w.replicas {
			if r == l {
				continue
			}
			_, _, err := r.Propose(testContext(t), submitted("x"))
			var not *NotLeaderError
			if !errors.As(err, &not) || not.LeaderID != l.cfg.ID || not.LeaderAddress != l.cfg.ID+":1" {
				t.Errorf("%s: propose to a follower: %v, want the leader %s", id, err, l.cfg.ID)
			}
			if r.State().ClusterID() == "" || r.State().ClusterID() != l.State().ClusterID() {
				t.Errorf("%s: cluster id %q, leader's %q", id, r.State().ClusterID(), l.State().ClusterID())
			}
		}
	})
}

func TestLeadFollowsLeadership(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		type call struct {
			id    string
			term  uint64
			began bool
		}
		calls := make(chan call, 100)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 3)
		for id, r := range w.replicas {
			go func() {
				ended <- r.Lead(ctx, func(ctx context.Context, term uint64) error {
					calls <- call{id, term, true}
					<-ctx.Done()
					calls <- call{id, term, false}
					return ctx.Err()
				})
			}()
		}
		first := <-calls
		w.isolate(first.id)
		seen := map[string]call{}
		for range 2 { // the old one ends, another begins, in any order
			c := <-calls
			seen[fmt.Sprint(c.began)] = c
		}
		if end := seen["false"]; end.id != first.id || end.term != first.term {
			t.Errorf("ended %+v, want the end of %+v", end, first)
		}
		if next := seen["true"]; next.id == first.id || next.term <= first.term {
			t.Errorf("began %+v after %+v, want another server and a later term", next, first)
		}
		w.heal(first.id)
		cancel()
		for range 3 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Lead: %v, want context.Canceled", err)
			}
		}
	})
}

func TestTransferLeadership(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		old := w.leader()
		if err := old.TransferLeadership(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if next := w.leader(); next == old {
			t.Errorf("%s still leads", old.cfg.ID)
		}
		var not *NotLeaderError
		if err := old.TransferLeadership(testContext(t)); !errors.As(err, &not) {
			t.Errorf("transfer from a follower: %v", err)
		}
	})
}

// Clients retry with the same request id through leader changes: each request
// makes exactly one job, and no acknowledged one is lost.
func TestNothingLostOrDoubled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const clients, rounds = 8, 12
		w := newWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		must(t, w.leader(), node())
		ctx, cancel := context.WithCancel(context.Background())
		acked := make([]map[string]cluster.JobID, clients)
		done := make(chan struct{}, clients)
		members := []*Replica{w.replicas["a"], w.replicas["b"], w.replicas["c"]}
		for c := range clients {
			acked[c] = map[string]cluster.JobID{}
			go func() {
				defer func() { done <- struct{}{} }()
				submitUntil(ctx, members, c, acked[c])
			}()
		}
		for range rounds {
			id := w.leader().cfg.ID
			w.isolate(id)
			var others []string
			for other := range w.replicas {
				if other != id {
					others = append(others, other)
				}
			}
			w.leader(others...)
			time.Sleep(200 * time.Millisecond) // virtual
			w.heal(id)
			time.Sleep(time.Second)
		}
		cancel()
		for range clients {
			<-done
		}
		index := must(t, w.leader(), submitted("last"))
		sameState(t, index, w.replicas)
		s := w.leader().State()
		total := 0
		for _, m := range acked {
			total += len(m)
			for request, job := range m {
				if r := s.Request(request); r == nil || r.Job != job {
					t.Fatalf("request %s was acknowledged as job %d, state says %v", request, job, r)
				}
			}
		}
		t.Logf("%d requests acknowledged over %d leader changes", total, rounds)
		if total < 100 {
			t.Errorf("only %d requests went through", total)
		}
		byRequest := map[string]bool{}
		s.EachJob(func(j *cluster.Job) bool {
			if byRequest[j.RequestID] {
				t.Errorf("request %s made two jobs", j.RequestID)
			}
			byRequest[j.RequestID] = true
			return true
		})
		if err := s.Check(); err != nil {
			t.Error(err)
		}
	})
}

// submitUntil submits one job after another until ctx ends, trying each with the
// same id until a server acknowledges it.
func submitUntil(ctx context.Context, members []*Replica, client int, acked map[string]cluster.JobID) {
	for n := 0; ; n++ {
		request := fmt.Sprintf("c%d-%d", client, n)
		for try := client; ; try++ {
			if ctx.Err() != nil {
				return
			}
			one, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			results, _, err := members[try%len(members)].Propose(one, submitted(request))
			cancel()
			if err == nil && results[0].Code == cluster.OK {
				acked[request] = results[0].Job
				break
			}
			time.Sleep(10 * time.Millisecond) // virtual
		}
		time.Sleep(5 * time.Millisecond) // virtual
	}
}
