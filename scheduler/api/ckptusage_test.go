package api

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// TestCheckpointUsage: of what two agents say of a user the later measurement holds, whichever comes first; limits are the policy's; another leader begins anew.
func TestCheckpointUsage(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		policy := "checkpoints: {user_limit: 10GiB, users: {bob: none}}"
		if _, err := f.s1().client.SetPolicy(context.Background(), &schedulerv1.SetPolicyRequest{Yaml: []byte(policy), User: "root"}); err != nil {
			t.Fatal(err)
		}
		a, b := f.agent(hello("a", 1)), f.agent(hello("b", 1))
		tell := func(x *testAgent, uses ...*agentv1.CheckpointUsage) {
			x.send(&agentv1.ConnectRequest{Message: &agentv1.ConnectRequest_Heartbeat{Heartbeat: &agentv1.Heartbeat{CheckpointUsage: uses}}})
			settle()
		}
		ask := func(users ...string) []*schedulerv1.CheckpointUsage {
			t.Helper()
			got, err := f.s1().client.ListCheckpointUsage(context.Background(), &schedulerv1.ListCheckpointUsageRequest{Users: users})
			if err != nil || got.GetLimitBytes() != 10<<30 {
				t.Fatalf("%v, %v", got, err)
			}
			return got.GetUsers()
		}
		tell(a, &agentv1.CheckpointUsage{User: "ann", Bytes: 500, Checkpoints: 5, Jobs: 2, AgeMs: 1000}, &agentv1.CheckpointUsage{User: ""})
		tell(b, &agentv1.CheckpointUsage{User: "ann", Bytes: 300, AgeMs: 9000}, &agentv1.CheckpointUsage{User: "bob", Bytes: 7})
		got := ask()
		if len(got) != 2 || got[0].GetUser() != "ann" || got[0].GetBytes() != 500 || got[0].GetJobs() != 2 || got[0].GetLimitBytes() != 10<<30 ||
			got[1].GetUser() != "bob" || got[1].GetBytes() != 7 || got[1].GetLimitBytes() != 0 {
			t.Errorf("known: %v", got)
		}
		if ago := time.Since(time.Unix(0, got[0].GetMeasuredUnixNs())); ago < time.Second || ago > 5*time.Second {
			t.Errorf("measured %v ago, want a little more than 1 s", ago)
		}
		tell(b, &agentv1.CheckpointUsage{User: "ann", Bytes: 600})
		if got := ask("ann", "cara"); len(got) != 2 || got[0].GetBytes() != 600 || got[1].GetLimitBytes() != 10<<30 || got[1].GetMeasuredUnixNs() != 0 {
			t.Errorf("after a later measurement: %v", got)
		}
		_, err := f.s1().client.ListCheckpointUsage(context.Background(), &schedulerv1.ListCheckpointUsageRequest{Users: make([]string, maxUsagesTold+1)})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("too many users: %v", err)
		}
		f.end()
		f.reign()
		if got := ask(); len(got) != 0 {
			t.Errorf("a new reign knows %v", got)
		}
	})
}

func TestUsagesAreBounded(t *testing.T) {
	t.Parallel()
	h := &Hub{usages: map[string]usage{}}
	now := time.Unix(1_790_000_000, 0)
	for i := range maxUsages + 10 {
		h.learnUsage([]*agentv1.CheckpointUsage{{User: string(rune('a'+i%26)) + time.Duration(i).String(), AgeMs: int64(maxUsages - i)}}, now)
	}
	if got := h.CheckpointUsage(&cluster.CheckpointLimits{}, nil); len(got) != maxUsages || h.usages["a0s"].told != nil {
		t.Errorf("%d users are known", len(got))
	}
}
