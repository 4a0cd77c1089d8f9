package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/policyfile"
)

const twoQueues = "queues: {research: {quota: {h100: 4}}, default: {quota: {h100: 4}}}\n"

func setPolicy(t *testing.T, c schedulerv1.SchedulerServiceClient, file string) *schedulerv1.SetPolicyResponse {
	t.Helper()
	out, err := c.SetPolicy(within(t), &schedulerv1.SetPolicyRequest{Yaml: []byte(file), User: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSetPolicy: what is set through any server is what every server returns.
func TestSetPolicy(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "s1", "s2")
	f.node("a", 8)
	ctx := within(t)
	before, err := f.s1().client.GetPolicy(ctx, &schedulerv1.GetPolicyRequest{})
	if err != nil || before.GetPolicyIndex() != 0 || before.GetYaml() != string(policyfile.Format(cluster.DefaultPolicy())) {
		t.Fatalf("%v, %v", before, err)
	}
	set := setPolicy(t, f.servers["s2"].client, twoQueues)
	if !set.GetChanged() || set.GetPolicyIndex() != f.State().Index() || len(set.GetWarnings()) != 0 {
		t.Fatalf("%v at index %d", set, f.State().Index())
	}
	for _, stale := range []bool{false, true} {
		got, err := f.servers["s2"].client.GetPolicy(ctx, &schedulerv1.GetPolicyRequest{Stale: stale})
		if err != nil || got.GetPolicyIndex() != set.GetPolicyIndex() || !strings.Contains(got.GetYaml(), "research: {quota: {h100: 4}}") {
			t.Errorf("%v, %v", got, err)
		}
	}
}

// TestSetPolicyAgain: a retry whose first answer was lost finds its work done,
// even though the policy index has moved on by it.
func TestSetPolicyAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	zero := uint64(0)
	req := &schedulerv1.SetPolicyRequest{Yaml: []byte(twoQueues), WasIndex: &zero}
	first, err := f.s1().client.SetPolicy(within(t), req)
	if err != nil {
		t.Fatal(err)
	}
	writes := f.written()
	again, err := f.s1().client.SetPolicy(within(t), req)
	if err != nil || again.GetChanged() || again.GetPolicyIndex() != first.GetPolicyIndex() || f.written() != writes {
		t.Fatalf("%v, %v; %d entries more", again, err, f.written()-writes)
	}
}

func TestSetPolicyRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := within(t)
	zero := uint64(0)
	for _, c := range []struct {
		file string
		want []string
	}{
		{"", []string{"the policy is empty"}},
		{"order: lifo\nbackfill: {reserve: -1}\n", []string{"line 1, column 8: order", "line 2, column 21: backfill.reserve"}},
		{"order: srtf\n", []string{"needs the exact lengths of jobs, which only the simulator has"}},
		{"a: \xff", []string{"not valid YAML"}},
	} {
		_, err := f.s1().client.SetPolicy(ctx, &schedulerv1.SetPolicyRequest{Yaml: []byte(c.file)})
		wantStatus(t, err, codes.InvalidArgument, c.want...)
	}
	var large strings.Builder
	large.WriteString("queues:\n")
	for q := range 400 {
		fmt.Fprintf(&large, "  q%d:\n    limit:\n", q)
		for k := range 60 {
			fmt.Fprintf(&large, "      type-%s-%d: 1\n", strings.Repeat("x", 45), k)
		}
	}
	_, err := f.s1().client.SetPolicy(ctx, &schedulerv1.SetPolicyRequest{Yaml: []byte(large.String())})
	wantStatus(t, err, codes.InvalidArgument, "that one log entry holds")
	setPolicy(t, f.s1().client, twoQueues)
	_, err = f.s1().client.SetPolicy(ctx, &schedulerv1.SetPolicyRequest{Yaml: []byte("order: fifo"), WasIndex: &zero})
	wantStatus(t, err, codes.Aborted, "the policy was changed meanwhile")
	if got := f.State().Policy().Order; got != cluster.OrderGangline {
		t.Errorf("the order is %s by a policy that was refused", got)
	}
}

// TestPolicyWarnings: a dry run changes nothing, and says what would surprise.
func TestPolicyWarnings(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.node("a", 8)
	id := f.submit(func(s *cluster.JobSpec) { s.Queue = "old" })
	f.start(id, "a:0", "a:1")
	f.submit(func(s *cluster.JobSpec) { s.Queue = "old" })
	out, err := f.s1().client.SetPolicy(within(t), &schedulerv1.SetPolicyRequest{DryRun: true, Yaml: []byte(`
topology: [{level: row, label: row}, {level: rack, domains: {r2: 'm[1-3]'}}]
queues:
  new: {quota: {h100: 9, b200: 1}, queues: {below: {}}}
  lent: {queues: {x: {}}}
  shut: {closed: true}
reservations:
  - {name: fix, start: 2026-12-01T00:00:00Z, end: 2026-12-02T00:00:00Z, nodes: [node-a, nobody], maintenance: true}
  - {name: cool, start: 2026-12-01T00:00:00Z, end: 2026-12-02T00:00:00Z, node_selector: {rack: r9}, maintenance: true}
`)})
	if err != nil || !out.GetChanged() || f.State().PolicyIndex() != 0 {
		t.Fatalf("%v, %v", out, err)
	}
	all := strings.Join(out.GetWarnings(), "\n")
	for _, want := range []string{
		`"b200", which no node has`,
		"add up to 9 GPUs of type h100, the cluster has 8",
		"no quota is named for these queues nor for one above them, but for others: lent/x: they only borrow",
		"queue old is not in the policy, and 1 pending and 1 running jobs are in it",
		"topology: no node has the label row of level row",
		"topology: level rack: 3 of the nodes that its domains name are not there, such as m1 of domain r2",
		"topology: level rack: nodes are in no domain (1, such as node-a): no gang that requires one rack runs there",
		"reservation fix: no node is named nobody",
		"reservation cool: no node has all the labels",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning has %q:\n%s", want, all)
		}
	}
	if strings.Contains(strings.Replace(all, "such as node-a", "", 1), "node-a") {
		t.Errorf("a node that is there is warned of:\n%s", all)
	}
}

// TestPolicyBelowUse: a quota or limit that is lowered below what is held stops
// nothing, and says so.
func TestPolicyBelowUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.node("a", 8)
	setPolicy(t, f.s1().client, "queues: {a: {quota: {h100: 4}}, b: {}}")
	id := f.submit(func(s *cluster.JobSpec) { s.Queue, s.GPUs = "a", 4 })
	f.start(id, "a:0", "a:1", "a:2", "a:3")
	got := setPolicy(t, f.s1().client, "queues: {a: {quota: {h100: 2}, limit: 3}, b: {quota: {h100: 6}}}")
	want := []string{
		"queue a holds 4 GPUs, more than its limit of 3: nothing is stopped for that, but nothing more starts until fewer are held",
		"queue a holds 4 GPUs of type h100, more than its new quota of 2: the rest counts as borrowed, and others may take it back",
	}
	if diff := cmp.Diff(want, got.GetWarnings()); diff != "" {
		t.Error(diff)
	}
	if got := f.State().Job(id).State; !got.Holding() {
		t.Errorf("the job is %s", got)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "s1", "s2")
	f.node("a", 2)
	ctx := within(t)
	c := f.servers["s2"].client
	minute, long := int64(60_000), int64(1<<60)
	for _, r := range []struct {
		req  *schedulerv1.DrainNodeRequest
		code codes.Code
		want string
	}{
		{&schedulerv1.DrainNodeRequest{Node: "node-a"}, codes.InvalidArgument, "reason: is missing"},
		{&schedulerv1.DrainNodeRequest{Node: "nobody", Reason: "x"}, codes.NotFound, `no node has the name or id "nobody"`},
		{&schedulerv1.DrainNodeRequest{Node: "node-a", Reason: "x", DeadlineMs: &long}, codes.InvalidArgument, "deadline_ms"},
	} {
		_, err := c.DrainNode(ctx, r.req)
		wantStatus(t, err, r.code, r.want)
	}
	before := time.Now()
	got, err := c.DrainNode(ctx, &schedulerv1.DrainNodeRequest{Node: "node-a", Reason: "new fan", DeadlineMs: &minute, User: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	d := got.GetNode().GetDrain()
	if d.GetReason() != "new fan" || d.GetBy() != "ann" || d.GetDeadlineUnixNs() < before.Add(time.Minute).UnixNano() || d.GetDeadlineUnixNs() > time.Now().Add(time.Minute).UnixNano() {
		t.Errorf("%v", d)
	}
	// By id, and without a deadline: the second call replaces the first.
	if got, err = c.DrainNode(ctx, &schedulerv1.DrainNodeRequest{Node: "a", Reason: "wait"}); err != nil || got.GetNode().GetDrain().GetDeadlineUnixNs() != 0 {
		t.Errorf("%v, %v", got, err)
	}
	for range 2 { // the second has nothing to do
		back, err := c.UndrainNode(ctx, &schedulerv1.UndrainNodeRequest{Node: "node-a"})
		if err != nil || back.GetNode().GetDrain() != nil {
			t.Errorf("%v, %v", back, err)
		}
	}
}

func TestListQueues(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.node("a", 8)
	setPolicy(t, f.s1().client, "queues: {r: {quota: {h100: 1}, limit: 6, weight: 2.5, user_limit: 7, queues: {v: {}}}, default: {closed: true}}")
	id := f.submit(func(s *cluster.JobSpec) { s.Queue, s.Preemptible = "r/v", true })
	f.start(id, "a:0", "a:1")
	waits := f.submit(func(s *cluster.JobSpec) { s.Queue, s.Preemptible = "r", true })
	f.apply(&cluster.ExplainJob{Job: waits, Reason: "waits for 2 GPUs of one type: all are held"})
	got, err := f.s1().client.ListQueues(within(t), &schedulerv1.ListQueuesRequest{Reasons: 5})
	if err != nil {
		t.Fatal(err)
	}
	held := []*schedulerv1.GPUCount{{Type: "h100", Gpus: 2}}
	want := &schedulerv1.ListQueuesResponse{
		Index: f.State().Index(),
		Queues: []*schedulerv1.Queue{
			{Path: "default", InPolicy: true, Weight: 1, Closed: true},
			{
				Path: "r", InPolicy: true, Weight: 2.5, UserLimit: 7, Held: held, BorrowedGpus: 1, HoldingJobs: 1, PendingJobs: 1, PendingGpus: 2,
				Quota: []*schedulerv1.GPUCount{{Type: "h100", Gpus: 1}}, Limit: []*schedulerv1.GPUCount{{Gpus: 6}},
			},
			{Path: "r/v", InPolicy: true, Weight: 1, Held: held, BorrowedGpus: 2, HoldingJobs: 1},
		},
		Reasons: []*schedulerv1.PendingReason{{Reason: "waits for their GPUs: all are held", Jobs: 1, Gpus: 2, FirstJob: uint64(waits)}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	users, err := f.s1().client.ListQueues(within(t), &schedulerv1.ListQueuesRequest{Queue: "r/v", Users: 1, Stale: true})
	if err != nil || len(users.GetQueues()) != 1 || users.GetQueues()[0].GetUsers()[0].GetUser() != "ann" || users.GetQueues()[0].GetUsers()[0].GetHeldGpus() != 2 {
		t.Errorf("%v, %v", users, err)
	}
	_, err = f.s1().client.ListQueues(within(t), &schedulerv1.ListQueuesRequest{Queue: "nowhere"})
	wantStatus(t, err, codes.NotFound, `queue "nowhere"`)
	_, err = f.s1().client.ListQueues(within(t), &schedulerv1.ListQueuesRequest{Users: -1})
	wantStatus(t, err, codes.InvalidArgument, "users")
}
