package api

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// step lets the model's leader decide once.
func (f *fixture) step() {
	f.t.Helper()
	for _, c := range control.Step(f.State(), nil, cluster.Time(time.Now().UnixNano()), control.DefaultConfig()) {
		f.apply(c)
	}
}

// TestWhy: a job that waits is told why, behind whom, when it may start and what
// would help, by every server.
func TestWhy(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "s1", "s2")
	f.node("a", 8)
	long := submitRequest("long")
	long.Spec.Gpus, long.Spec.TimeLimitMs = 6, (2 * time.Hour).Milliseconds()
	big := submitRequest("big")
	big.Spec.Gpus = 4
	ctx := within(t)
	for _, req := range []*schedulerv1.SubmitJobRequest{long, big} {
		if _, err := f.s1().client.SubmitJob(ctx, req); err != nil {
			t.Fatal(err)
		}
	}
	f.step()
	for _, req := range []*schedulerv1.WhyRequest{{Id: 2}, {Id: 2, Stale: true}} {
		got, err := f.servers["s2"].client.Why(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		p := got.GetProspects()
		if got.GetJob().GetId() != 2 || got.GetIndex() != f.State().Index() || p.GetPlace() != 1 || p.GetWaiting() != 1 {
			t.Errorf("%v", got)
		}
		c := p.GetConstraint()
		if c.GetKind() != "free" || c.GetLacksGpus() != 2 || len(c.GetHolders()) != 1 || !c.GetHolders()[0].GetTimeLimit() || c.GetHolders()[0].GetJob() != 1 {
			t.Errorf("%v", c)
		}
		if e := p.GetStart(); e.GetBasis() != schedulerv1.EstimateBasis_ESTIMATE_BASIS_LIMITS || e.GetP50UnixNs() <= p.GetNowUnixNs() || !strings.HasPrefix(e.GetText(), "in about 2 h") {
			t.Errorf("%v", e)
		}
		if a := p.GetAlternatives(); len(a) != 1 || a[0].GetChange() != "with 2 instead of 4 GPUs" || a[0].GetText() != "now" || a[0].GetFit().GetNodes()[0].GetNode() != "node-a" {
			t.Errorf("%v", a)
		}
		if want := "with 2 instead of 4 GPUs: now; wait: 2 h"; p.GetSummary() != want {
			t.Errorf("%q, not %q", p.GetSummary(), want)
		}
	}
	quick, err := f.s1().client.Why(ctx, &schedulerv1.WhyRequest{Id: 2, Quick: true})
	if err != nil || quick.GetProspects().GetConstraint().GetKind() != "free" || quick.GetProspects().GetStart().GetRuns() != 0 {
		t.Errorf("%v, %v", quick, err)
	}
	running, err := f.s1().client.Why(ctx, &schedulerv1.WhyRequest{Id: 1})
	if err != nil || running.GetProspects() != nil || !strings.HasPrefix(running.GetJob().GetReason(), "starts ") {
		t.Errorf("%v, %v", running, err)
	}
	if _, err := f.s1().client.Why(ctx, &schedulerv1.WhyRequest{Id: 99}); status.Code(err) != codes.NotFound {
		t.Errorf("a job that does not exist: %v", err)
	}
}

// TestPlan: a job that is not submitted is told whether it fits, and where; and
// nothing is changed by asking.
func TestPlan(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "s1", "s2")
	f.node("a", 8)
	ctx := within(t)
	before := f.State().Index()
	c := f.servers["s2"].client
	spec := submitRequest("").GetSpec()
	got, err := c.Plan(ctx, &schedulerv1.PlanRequest{Spec: spec, User: "ann"})
	if err != nil || got.GetRefused() != "" || got.GetProspects().GetSummary() != "starts now" {
		t.Fatalf("%v, %v", got, err)
	}
	if fit := got.GetProspects().GetFit(); fit.GetGpuType() != "h100" || len(fit.GetNodes()) != 1 || fit.GetNodes()[0].GetNode() != "node-a" || fit.GetNodes()[0].GetGpus() != 2 {
		t.Errorf("%v", fit)
	}
	spec.Gpus = 9
	if got, err = c.Plan(ctx, &schedulerv1.PlanRequest{Spec: spec}); err != nil || !strings.Contains(got.GetRefused(), "can never start here") || got.GetProspects() != nil {
		t.Errorf("%v, %v", got, err)
	}
	spec.Gpus = 0
	if _, err = c.Plan(ctx, &schedulerv1.PlanRequest{Spec: spec}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
	if _, err = c.Plan(ctx, &schedulerv1.PlanRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
	if f.State().Index() != before {
		t.Errorf("asking has written to the log")
	}
}

// TestWhyTakesTurns: only so many questions are looked into at a time, and who
// waits for the others no longer than it can.
func TestWhyTakesTurns(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.node("a", 8)
	req := submitRequest("one")
	if _, err := f.s1().client.SubmitJob(within(t), req); err != nil {
		t.Fatal(err)
	}
	slots := f.s1().service.foresight.slots
	for range maxForecasts {
		slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(within(t), 50*time.Millisecond)
	defer cancel()
	if _, err := f.s1().client.Why(ctx, &schedulerv1.WhyRequest{Id: 1}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("while others are looked into: %v", err)
	}
	for range maxForecasts {
		<-slots
	}
	var all sync.WaitGroup
	for range 4 * maxForecasts {
		all.Go(func() {
			if _, err := f.s1().client.Why(within(t), &schedulerv1.WhyRequest{Id: 1}); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
	for range 20 { // the state goes on meanwhile
		f.apply(&cluster.ExplainJob{Job: 1, Reason: time.Now().String()})
	}
	all.Wait()
}
