package cluster

import (
	"fmt"
	"strings"
	"testing"
)

// chain is a cluster in which jobs follow each other.
type chain struct {
	t *testing.T
	s *State
	n int
}

func newChain(t *testing.T) *chain {
	c := &chain{t: t, s: &State{}}
	c.do(&Init{ClusterID: "c", Version: Version})
	c.do(&RegisterNode{Node: gpuNode(0, 8)})
	return c
}

func (c *chain) do(cmd Command) Result {
	c.t.Helper()
	c.n++
	r := c.s.Apply(uint64(c.n), Time(c.n)*1e9, cmd)
	if err := c.s.Check(); err != nil {
		c.t.Fatalf("after %T: %v", cmd, err)
	}
	return r
}

func (c *chain) submit(array int32, after ...Dependency) JobID {
	c.t.Helper()
	sp := &JobSpec{Name: "j", Queue: "q", GPUs: 1, Launch: LaunchPerGPU, Command: []string{"x"}}
	if array > 0 {
		sp.Array = ArraySpec{First: 10, Last: 10 + 2*(array-1), Step: 2}
	}
	if len(after) > 0 {
		sp.After = &Conditions{All: after}
	}
	r := c.do(&SubmitJob{RequestID: fmt.Sprint(c.n), Spec: sp})
	if r.Code != OK {
		c.t.Fatalf("submit after %v: %s", after, r.Message)
	}
	return r.Job
}

// end lets a job run and exit with a code.
func (c *chain) end(id JobID, code int32) Result {
	c.t.Helper()
	e := c.s.Job(id).Epoch + 1
	if r := c.do(&StartJob{Job: id, Epoch: e, Workers: []Placement{{Node: "id-0", GPUs: []string{"GPU-0-0"}}}}); r.Code != OK {
		c.t.Fatalf("start job %d: %s", id, r.Message)
	}
	return c.do(&ReportWorkers{Node: "id-0", Workers: []WorkerReport{{Job: id, Epoch: e, State: WorkerExited, ExitCode: code}}})
}

func (c *chain) want(id JobID, st JobState, reason string) {
	c.t.Helper()
	if j := c.s.Job(id); j.State != st || !strings.Contains(j.Reason, reason) || (j.Unmet != 0) != (st == Pending && reason != reasonNext) {
		c.t.Fatalf("job %d is %s (%s, unmet %b), want %s (%s)", id, j.State, j.Reason, j.Unmet, st, reason)
	}
}

func dep(cond Condition, id JobID) Dependency { return Dependency{Cond: cond, Job: id} }

// TestAfterOneJob: each condition against each end of the job before.
func TestAfterOneJob(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cond Condition
		end  string
		met  bool
		says string
	}{
		{AfterOK, "ok", true, ""},
		{AfterOK, "fails", false, "it was to start after job 1 (j) (ok:1), which has not succeeded (Failed)"},
		{AfterOK, "cancelled", false, "which has not succeeded (Cancelled)"},
		{AfterNotOK, "ok", false, "(notok:1), which has succeeded"},
		{AfterNotOK, "fails", true, ""},
		{AfterNotOK, "cancelled", true, ""},
		{AfterAny, "ok", true, ""},
		{AfterAny, "fails", true, ""},
		{AfterAny, "cancelled", true, ""},
	} {
		t.Run(fmt.Sprint(test.cond, " ", test.end), func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			a := c.submit(0)
			b := c.submit(0, dep(test.cond, a))
			c.want(b, Pending, "waits for job 1 (j) to ")
			if r := c.do(&StartJob{Job: b, Epoch: 1, Workers: []Placement{{Node: "id-0", GPUs: []string{"GPU-0-0"}}}}); r.Code != Conflict {
				t.Fatalf("it started: %+v", r)
			}
			var r Result
			switch test.end {
			case "ok":
				r = c.end(a, 0)
			case "fails":
				r = c.end(a, 1)
			default:
				r = c.do(&CancelJob{Job: a})
			}
			if len(r.Changes) == 0 || r.Changes[len(r.Changes)-1].Job != b {
				t.Errorf("the result does not tell of job %d: %+v", b, r.Changes)
			}
			after := c.submit(0, dep(test.cond, a)) // one that comes late is told the same
			for _, id := range []JobID{b, after} {
				if test.met {
					c.want(id, Pending, reasonNext)
					if j := c.s.Job(id); j.ReadyAt != c.s.Now() && id == after || j.ReadyAt == j.SubmittedAt && id == b {
						t.Errorf("job %d is ready since %d, was submitted at %d", id, j.ReadyAt, j.SubmittedAt)
					}
				} else {
					c.want(id, Cancelled, test.says)
				}
			}
		})
	}
}

// TestAfterArray: of an array all members count, one of them, or the one with the same index.
func TestAfterArray(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	a := c.submit(3) // jobs 1 to 3, indices 10, 12, 14
	ok, bad, anyEnd := c.submit(0, dep(AfterOK, a)), c.submit(0, dep(AfterNotOK, a)), c.submit(0, dep(AfterAny, a))
	first := c.submit(0, Dependency{Cond: AfterOK, Job: a, Scope: ScopeMember, Index: 10})
	each := c.submit(3, Dependency{Cond: AfterOK, Job: a, Scope: ScopeEach})
	chained := c.submit(0, dep(AfterAny, ok))
	c.want(ok, Pending, "waits for all members of array 1 to succeed")
	c.want(each+1, Pending, "waits for job 2 (j) to succeed")

	c.end(a, 0)
	c.want(first, Pending, reasonNext)
	c.want(each, Pending, reasonNext)
	c.want(ok, Pending, "all members of array 1")

	c.end(a+1, 1)
	c.want(ok, Cancelled, "all members of array 1 (ok:1), of which one has not succeeded")
	c.want(chained, Pending, reasonNext) // who waits for its end, however it comes, goes on
	c.want(each+1, Cancelled, "job 2 (j) (each:1), which has not succeeded")
	c.want(each+2, Pending, "waits for job 3")
	c.want(bad, Pending, "all members of array 1 to fail or be cancelled")

	// What ended is forgotten while the rest goes on: it counts nevertheless, after a restart too.
	c.do(&ForgetJobs{Jobs: []JobID{a, a + 1}})
	var b []byte
	_ = c.s.Encode(func(p []byte) error { b = append(b, p...); return nil })
	again, err := Decode(b, Version)
	if err != nil || again.Hash() != c.s.Hash() || again.Check() != nil {
		t.Fatalf("decoded: %v, %v", err, again.Check())
	}
	c.s = again
	late := c.submit(0, dep(AfterOK, a))
	c.want(late, Cancelled, "of which one has not succeeded")
	c.end(a+2, 0)
	c.want(bad, Pending, reasonNext)
	c.want(anyEnd, Pending, reasonNext)
	c.want(each+2, Pending, reasonNext)
}

// TestAfterSeveral: all of them must be met; one that never can is enough to
// end the wait. A whole chain goes with its first.
func TestAfterSeveral(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	var ids []JobID
	for range 6 {
		ids = append(ids, c.submit(0))
	}
	var deps []Dependency
	for _, id := range ids {
		deps = append(deps, dep(AfterOK, id))
	}
	last := c.submit(0, deps...)
	c.want(last, Pending, "waits for job 1 (j) to succeed, and for job 2 (j) to succeed, and for job 3 (j) to succeed, and for 3 dependencies more")
	for _, id := range ids {
		c.end(id, 0)
	}
	c.want(last, Pending, reasonNext)

	chain := []JobID{c.submit(0)}
	for range 50 {
		chain = append(chain, c.submit(0, dep(AfterOK, chain[len(chain)-1])))
	}
	if r := c.do(&CancelJob{Job: chain[0]}); len(r.Changes) != len(chain) {
		t.Errorf("%d jobs changed, want %d", len(r.Changes), len(chain))
	}
	c.want(chain[50], Cancelled, "has not succeeded (Cancelled)")
}

// TestAfterNonsense: what names nothing is refused, with what to do.
func TestAfterNonsense(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	single, array := c.submit(0), c.submit(2)
	for _, test := range []struct {
		dep   Dependency
		array int32
		want  string
	}{
		{dep(AfterOK, 99), 0, "job 99 does not exist, or ended so long ago that it was forgotten: leave ok:99 out"},
		{dep(AfterOK, 4), 0, "job 4 does not exist"}, // not even itself: there are no cycles
		{dep(0, single), 0, "is not a dependency such as ok:12"},
		{dep(4, single), 0, "is not a dependency"},
		{Dependency{Cond: AfterOK, Job: single, Scope: ScopeMember}, 0, "job 1 is not the first of an array: ok:1_0 means nothing"},
		{Dependency{Cond: AfterOK, Job: array, Scope: ScopeMember, Index: 11}, 0, "array 2 has no index 11: its indices are 10-12:2"},
		{Dependency{Cond: AfterOK, Job: array, Scope: ScopeEach}, 0, "is for the members of an array"},
		{Dependency{Cond: AfterAny, Job: array, Scope: ScopeEach}, 2, "is for the members of an array"},
		{Dependency{Cond: AfterOK, Job: array, Scope: ScopeEach}, 3, "array 2 has no index 14"},
	} {
		sp := &JobSpec{Name: "j", Queue: "q", GPUs: 1, Launch: LaunchPerGPU, Command: []string{"x"}, After: &Conditions{All: []Dependency{test.dep}}}
		if test.array > 0 {
			sp.Array = ArraySpec{First: 10, Last: 10 + 2*(test.array-1), Step: 2}
		}
		if r := c.do(&SubmitJob{RequestID: "x", Spec: sp}); r.Code == OK || !strings.Contains(r.Message, test.want) {
			t.Errorf("%v: %d %q, want %q", test.dep, r.Code, r.Message, test.want)
		}
	}
	sp := &JobSpec{After: &Conditions{All: []Dependency{dep(AfterOK, 1), dep(AfterOK, 1)}}}
	if err := sp.validateAfter(); err == nil || !strings.Contains(err.Error(), "ok:1 is given twice") {
		t.Errorf("twice the same: %v", err)
	}
	sp.After.All = make([]Dependency, MaxAfter+1)
	if err := sp.validateAfter(); err == nil || !strings.Contains(err.Error(), "at most 32") {
		t.Errorf("too many: %v", err)
	}
}
