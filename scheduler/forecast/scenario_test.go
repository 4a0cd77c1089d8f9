package forecast

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
	"github.com/gangline/gangline/scheduler/planner"
	"github.com/gangline/gangline/scheduler/policyfile"
)

// TestScenarios tells why jobs wait, when they are expected to start and what
// would help, one story for each kind of cause. Run with -rewrite to renew the
// outputs, then read the difference.
func TestScenarios(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		st := &story{town: newTown(t), names: map[string]cluster.JobID{}, f: New(control.DefaultConfig())}
		datadriven.RunTest(t, path, st.play)
	})
}

type story struct {
	*town

	names map[string]cluster.JobID
	f     *Forecaster
}

func (st *story) play(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "policy":
		p, err := policyfile.Parse([]byte(d.Input))
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		return st.try(&cluster.SetPolicy{Policy: p, Any: true}).Message
	case "node":
		return st.node(d)
	case "drain":
		return st.try(&cluster.DrainNode{Node: cluster.NodeID(d.CmdArgs[0].Key), Reason: arg(d, "reason", "")}).Message
	case "submit":
		name := d.CmdArgs[0].Key
		r := st.try(&cluster.SubmitJob{RequestID: name, User: arg(d, "user", "ann"), Spec: st.specOf(t, d, name)})
		st.names[name] = r.Job
		return r.Message
	case "step":
		st.pass(duration(t, arg(d, "after", "1s")))
		return st.settle()
	case "end", "fail":
		for _, a := range d.CmdArgs {
			st.exit(st.names[a.Key], map[string]int32{"end": 0, "fail": 1}[d.Cmd])
		}
		return ""
	case "learn":
		return st.learn(t, d)
	case "why":
		id := st.names[d.CmdArgs[0].Key] + cluster.JobID(arg(d, "member", 0)) //nolint:gosec // few
		return st.tell(Question{Job: id, Quick: d.HasArg("quick")})
	case "plan":
		return st.tell(Question{Spec: st.specOf(t, d, "planned"), User: arg(d, "user", "ann")})
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
		return ""
	}
}

func arg[T any](d *datadriven.TestData, key string, v T) T {
	var t testing.T
	d.MaybeScanArgs(&t, key, &v)
	return v
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (st *story) node(d *datadriven.TestData) string {
	n := machine(d.CmdArgs[0].Key, arg(d, "gpus", 8), arg(d, "type", "h100"), arg(d, "rack", ""))
	n.CPUMilli = int64(arg(d, "cpus", 64)) * 1000
	if l := arg(d, "label", ""); l != "" {
		key, value, _ := strings.Cut(l, "=")
		n.Labels = append(n.Labels, cluster.Label{Key: key, Value: value})
	}
	return st.try(&cluster.RegisterNode{Node: n}).Message
}

func (st *story) specOf(t *testing.T, d *datadriven.TestData, name string) *cluster.JobSpec {
	t.Helper()
	s := spec(arg(d, "queue", "default"), int32(arg(d, "gpus", 1)))
	s.Name = name
	s.MinGPUs, s.GPUsPerNode = int32(arg(d, "min", 0)), int32(arg(d, "per_node", 0))
	s.Priority, s.Retries = int32(arg(d, "priority", 50)), int32(arg(d, "retries", 0))
	s.CPUPerGPU = int64(arg(d, "cpus", 0)) * 1000
	s.Preemptible = !d.HasArg("fixed")
	s.TimeLimit = duration(t, arg(d, "limit", "0s"))
	s.Array = cluster.ArraySpec{Last: int32(arg(d, "members", 1)) - 1, Parallel: int32(arg(d, "parallel", 0))}
	if s.Array.Last > 0 {
		s.Array.Step = 1
	}
	if types := arg(d, "type", ""); types != "" {
		s.GPUTypes = strings.Split(types, "|")
	}
	if rack := arg(d, "rack", ""); rack != "" {
		s.Topology = cluster.TopologyWish{Level: "rack", Required: rack == "required"}
	}
	if l := arg(d, "label", ""); l != "" {
		key, value, _ := strings.Cut(l, "=")
		s.Selector = []cluster.Label{{Key: key, Value: value}}
	}
	for how, cond := range map[string]cluster.Condition{"ok": cluster.AfterOK, "notok": cluster.AfterNotOK} {
		if first := arg(d, how, ""); first != "" {
			s.After = &cluster.Conditions{All: []cluster.Dependency{{Job: st.names[first], Cond: cond}}}
		}
	}
	return s
}

// learn lets jobs of one GPU run for a while on a node of their own type, so
// that the cluster knows how long jobs take.
func (st *story) learn(t *testing.T, d *datadriven.TestData) string {
	took := duration(t, arg(d, "length", "1h"))
	for i := range arg(d, "jobs", 8) {
		s := spec(arg(d, "queue", "default"), int32(arg(d, "gpus", 1)))
		s.Name = "past"
		id := st.apply(&cluster.SubmitJob{RequestID: fmt.Sprint("past", st.index, i), User: arg(d, "user", "ann"), Spec: s}).Job
		st.settle()
		if !st.s.Job(id).State.Holding() {
			return "there is no room to learn"
		}
		st.pass(took)
		st.exit(id, 0)
	}
	return ""
}

// tell asks a question and writes down all of the answer.
func (st *story) tell(q Question) string {
	c := st.f.Look(st.s.Snapshot(), st.now, q)
	a := c.Answer()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	switch {
	case a.Refused != "":
		return "refused: " + a.Refused
	case a.Job == nil:
		return "no such job"
	case !a.Waits:
		return fmt.Sprintf("%s: %s", a.Job.State, a.Job.Reason)
	}
	line("%s: %s", a.Why.Binding, a.Why.Text)
	for i := range a.Why.Holders {
		line("  held: %s", HolderText(&a.Why.Holders[i], a.Why.GPUType, a.Now))
	}
	if a.Why.Clear != 0 {
		line("  free: enough %s", in(a.Now, a.Why.Clear))
	}
	if a.Why.Until != 0 {
		line("  until: %s", in(a.Now, a.Why.Until))
	}
	line("place %d of %d", a.Place, a.Of)
	if a.Setback != 0 {
		line("put back by %s", a.Setback)
	}
	if a.Fit != nil {
		line("goes to %s: %v", a.Fit.GPUType, a.Fit.Nodes)
	}
	if len(a.Stops) > 0 {
		line("would stop %s, for %v", stopsText(a.Stops), a.StopNodes)
	}
	if !q.Quick {
		line("start: %s; %s; %d runs", a.Start.Text(a.Now), a.Start.Basis.Text(), a.Start.Runs)
		line("summary: %s", a.Summary())
	}
	for _, w := range a.Warnings {
		line("warning: %s", w)
	}
	return b.String()
}

var _ = planner.BindNothing
