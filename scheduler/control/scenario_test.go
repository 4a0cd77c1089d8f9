package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/policyfile"
)

// TestScenarios plays the stories of testdata: what people do, what Step
// proposes, what becomes of the jobs. Run with -rewrite to renew the outputs,
// then read the difference.
func TestScenarios(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		st := newStory(t)
		datadriven.RunTest(t, path, st.play)
	})
}

type story struct {
	s      *cluster.State
	index  uint64
	now    cluster.Time
	leases Leases
	names  map[string]cluster.JobID
	cfg    Config
	st     *Stepper
	steady time.Duration // by a clock that nobody sets
	clock  Clock
}

func newStory(t *testing.T) *story {
	st := &story{s: &cluster.State{}, now: cluster.Time(time.Hour), leases: Leases{}, names: map[string]cluster.JobID{}, cfg: DefaultConfig()}
	st.st = NewStepper(st.cfg)
	st.apply(t, &cluster.Init{ClusterID: "story", Version: cluster.Version})
	return st
}

func (st *story) apply(t *testing.T, c cluster.Command) cluster.Result {
	st.index++
	r := st.s.Apply(st.index, st.read(), c)
	if err := st.s.Check(); err != nil {
		t.Fatalf("after %T: %v", c, err)
	}
	return r
}

// read is the time by which the leader stamps and decides, whatever its own clock says.
func (st *story) read() (now cluster.Time) {
	now, st.clock = st.clock.Read(st.now, st.steady, st.s.Now())
	return now
}

func (st *story) play(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "node":
		return st.node(t, d)
	case "submit":
		return st.submit(t, d)
	case "step":
		return st.step(t, d)
	case "running", "exit", "stopped", "arrived", "asks", "silent", "speaks":
		return st.report(t, d)
	case "all-run", "all-exit":
		return st.reportAll(t, d)
	case "policy":
		return st.policy(t, d)
	case "checkpoint":
		j := st.s.Job(st.names[d.CmdArgs[0].Key])
		st.now = st.now.Add(span(t, d, "after", 0))
		return st.apply(t, &cluster.RecordCheckpoint{Job: j.ID, Epoch: j.Epoch, Step: int64(st.index), Path: "/checkpoints"}).Message
	case "drain", "undrain":
		c := &cluster.DrainNode{Node: cluster.NodeID(d.CmdArgs[0].Key), Reason: scan(t, d, "reason", "maintenance"), Off: d.Cmd == "undrain"}
		if in := span(t, d, "deadline", 0); in > 0 {
			c.Deadline = st.now.Add(in)
		}
		return st.apply(t, c).Message
	case "queues":
		return st.queues()
	case "lease-out":
		st.leases[cluster.NodeID(d.CmdArgs[0].Key)] = st.now
		return ""
	case "cancel":
		return st.apply(t, &cluster.CancelJob{Job: st.names[d.CmdArgs[0].Key]}).Message
	case "jobs":
		return st.jobs()
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
		return ""
	}
}

func scan[T any](t *testing.T, d *datadriven.TestData, key string, v T) T {
	d.MaybeScanArgs(t, key, &v)
	return v
}

func (st *story) node(t *testing.T, d *datadriven.TestData) string {
	name := d.CmdArgs[0].Key
	n := cluster.Node{
		ID: cluster.NodeID(name), Name: name, Incarnation: 1, Host: name,
		CPUMilli: int64(scan(t, d, "cpus", 64)) * 1000, MemBytes: 1 << 40,
	}
	gpus, islands, numa := scan(t, d, "gpus", 8), scan(t, d, "islands", 1), scan(t, d, "numa", 1)
	for g := range gpus {
		n.GPUs = append(n.GPUs, cluster.GPU{
			UUID: fmt.Sprintf("%s/%d", name, g), Type: scan(t, d, "type", "h100"), Healthy: true,
			Island: int32(g * islands / gpus), NUMA: int32(g * numa / gpus),
		})
	}
	for _, key := range []string{"rack", "zone"} {
		if v := scan(t, d, key, ""); v != "" {
			n.Labels = append(n.Labels, cluster.Label{Key: map[string]string{"rack": "topology.gangline.dev/rack", "zone": "zone"}[key], Value: v})
		}
	}
	if taint := scan(t, d, "taint", ""); taint != "" {
		key, value, _ := strings.Cut(taint, ":")
		n.Taints = []cluster.Taint{{Key: key, Value: value}}
	}
	return st.apply(t, &cluster.RegisterNode{Node: n}).Message
}

// policy sets a policy as the file of it would.
func (st *story) policy(t *testing.T, d *datadriven.TestData) string {
	p, err := policyfile.Parse([]byte(d.Input))
	if err != nil {
		return err.Error()
	}
	return st.apply(t, &cluster.SetPolicy{Policy: p, Any: true}).Message
}

// span is an argument that is a length of time.
func span(t *testing.T, d *datadriven.TestData, key string, none time.Duration) time.Duration {
	v, err := time.ParseDuration(scan(t, d, key, none.String()))
	if err != nil {
		d.Fatalf(t, "%s: %v", key, err)
	}
	return v
}

func (st *story) submit(t *testing.T, d *datadriven.TestData) string {
	name := d.CmdArgs[0].Key
	spec := &cluster.JobSpec{
		Name: name, Queue: scan(t, d, "queue", "default"), Launch: cluster.LaunchPerGPU, Command: []string{"train"},
		GPUs: int32(scan(t, d, "gpus", 1)), MinGPUs: int32(scan(t, d, "min", 0)), GPUMilli: int32(scan(t, d, "milli", 0)),
		GPUsPerNode: int32(scan(t, d, "per_node", 0)), Preemptible: scan(t, d, "preemptible", false),
		Priority: int32(scan(t, d, "priority", 50)), Retries: int32(scan(t, d, "retries", 0)),
		CPUPerGPU: int64(scan(t, d, "cpus", 0)) * 1000, TimeLimit: span(t, d, "time_limit", 0),
		Warn: span(t, d, "warn", 0), Grace: span(t, d, "grace", time.Second),
	}
	if scan(t, d, "on_failure", "restart") == "shrink" {
		spec.OnFailure = cluster.FailureShrinks
	}
	if types := scan(t, d, "type", ""); types != "" {
		spec.GPUTypes = strings.Split(types, "|")
	}
	if level := scan(t, d, "within", ""); level != "" {
		spec.Topology = cluster.TopologyWish{Level: level, Required: true}
	}
	if level := scan(t, d, "prefer", ""); level != "" {
		spec.Topology = cluster.TopologyWish{Level: level}
	}
	if zone := scan(t, d, "zone", ""); zone != "" {
		spec.Selector = []cluster.Label{{Key: "zone", Value: zone}}
	}
	if tolerates := scan(t, d, "tolerates", ""); tolerates != "" {
		spec.Tolerations = []string{tolerates}
	}
	if members := scan(t, d, "array", 0); members > 0 {
		spec.Array = cluster.ArraySpec{Last: int32(members) - 1, Step: 1, Parallel: int32(scan(t, d, "at_once", 0))}
	}
	spec.After = after(scan(t, d, "after", ""), st.names)
	r := st.apply(t, &cluster.SubmitJob{RequestID: name, User: scan(t, d, "user", "ann"), Spec: spec})
	st.names[name] = r.Job
	for i := range spec.Array.Count() {
		st.names[fmt.Sprintf("%s.%d", name, i)] = r.Job + cluster.JobID(i)
	}
	if r.Message != "" {
		return r.Message
	}
	return fmt.Sprintf("job %d", r.Job)
}

// after reads dependencies such as "ok:first|any:second" by the names of jobs.
func after(text string, names map[string]cluster.JobID) *cluster.Conditions {
	if text == "" {
		return nil
	}
	out := &cluster.Conditions{}
	for _, word := range strings.Split(text, "|") {
		how, name, _ := strings.Cut(word, ":")
		id, known := names[name]
		if !known {
			id = 999
		}
		d := cluster.Dependency{Job: id, Cond: map[string]cluster.Condition{
			"ok": cluster.AfterOK, "notok": cluster.AfterNotOK, "any": cluster.AfterAny, "each": cluster.AfterOK,
		}[how]}
		if how == "each" {
			d.Scope = cluster.ScopeEach
		}
		out.All = append(out.All, d)
	}
	return out
}

// step advances the clock, then decides as a leader does until there is nothing to propose.
func (st *story) step(t *testing.T, d *datadriven.TestData) string {
	by := span(t, d, "after", time.Second)
	st.now = st.now.Add(by)
	st.steady += max(by, 0)
	var out []string
	for round := 0; ; round++ {
		now := st.read()
		cmds, _ := st.st.Step(st.s, st.leases.Shift(st.s, now.Sub(st.now)), now)
		if len(cmds) == 0 {
			return strings.Join(out, "\n")
		}
		if round > 10 {
			d.Fatalf(t, "Step never comes to rest: %v", describe(cmds[0]))
		}
		for _, c := range cmds {
			line := describe(c)
			if r := st.apply(t, c); r.Code != cluster.OK {
				line += " REFUSED: " + r.Message
			}
			out = append(out, line)
		}
	}
}

func describe(c cluster.Command) string {
	switch c := c.(type) {
	case *cluster.StartJob:
		var where []string
		for _, w := range c.Workers {
			where = append(where, w.GPUs...)
		}
		return fmt.Sprintf("start job %d epoch %d: %s", c.Job, c.Epoch, strings.Join(where, " "))
	case *cluster.ExplainJob:
		return fmt.Sprintf("explain job %d: %s", c.Job, c.Reason)
	case *cluster.ExplainJobs:
		var lines []string
		for _, id := range c.Jobs {
			lines = append(lines, fmt.Sprintf("explain job %d: %s", id, c.Reason))
		}
		return strings.Join(lines, "\n")
	case *cluster.KeepNodes:
		if len(c.Nodes) == 0 {
			return fmt.Sprintf("keep nothing for job %d", c.Job)
		}
		return fmt.Sprintf("keep for job %d from %s: %v", c.Job, c.At.Sub(0), c.Nodes)
	case *cluster.LoseNode:
		return fmt.Sprintf("lose node %s", c.Node)
	case *cluster.EvictJob:
		return fmt.Sprintf("evict job %d: %s", c.Job, c.Reason)
	default:
		return fmt.Sprintf("%T", c)
	}
}

// reportAll lets all jobs that hold GPUs run, or exit.
func (st *story) reportAll(t *testing.T, d *datadriven.TestData) string {
	var all []*cluster.Job
	st.s.EachHolding(func(j *cluster.Job) bool {
		all = append(all, j)
		return true
	})
	for _, j := range all {
		for _, w := range j.Workers {
			r := cluster.WorkerReport{Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, State: cluster.WorkerRunning}
			if d.Cmd == "all-exit" {
				r.State = cluster.WorkerExited
			}
			st.apply(t, &cluster.ReportWorkers{Node: w.Node, Workers: []cluster.WorkerReport{r}})
		}
	}
	return fmt.Sprintf("%d jobs", len(all))
}

// report lets all workers of a job, or one rank, run or exit.
func (st *story) report(t *testing.T, d *datadriven.TestData) string {
	j := st.s.Job(st.names[d.CmdArgs[0].Key])
	only := scan(t, d, "rank", -1)
	for _, w := range slices.Clone(j.Workers) {
		if only >= 0 && int(w.Rank) != only {
			continue
		}
		r := cluster.WorkerReport{Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, State: cluster.WorkerRunning}
		if r.Arrived = d.Cmd == "arrived"; d.Cmd == "asks" {
			r.Asks, r.Names = j.Formation()+1, int32(scan(t, d, "lost", -1)+1)
		} else if d.Cmd == "silent" {
			r.Silence = cluster.FellSilent
		} else if d.Cmd == "speaks" {
			r.Silence = cluster.SpokeAgain
		} else if d.Cmd != "running" && !w.State.Ended() && !r.Arrived {
			r.Signal, r.PeerLost = int32(scan(t, d, "signal", 0)), scan(t, d, "peer_lost", false)
			r.State, r.ExitCode, r.Stopped = cluster.WorkerExited, int32(scan(t, d, "code", 0)), d.Cmd == "stopped"
		}
		st.apply(t, &cluster.ReportWorkers{Node: w.Node, Workers: []cluster.WorkerReport{r}})
	}
	j = st.s.Job(j.ID)
	if d.HasArg("members") {
		return fmt.Sprintf("%s: %s\nformation %d: %v", j.State, j.Reason, j.Formation(), j.Members())
	}
	return fmt.Sprintf("%s: %s", j.State, j.Reason)
}

// queues lists what the queues of the jobs hold.
func (st *story) queues() string {
	held := map[string]int64{}
	st.s.EachHolding(func(j *cluster.Job) bool {
		held[j.Spec.Queue] += int64(j.Held()) * int64(j.Spec.Share())
		return true
	})
	var out strings.Builder
	for _, q := range slices.Sorted(maps.Keys(held)) {
		fmt.Fprintf(&out, "%s holds %g GPUs\n", q, float64(held[q])/cluster.WholeGPU)
	}
	return out.String()
}

func (st *story) jobs() string {
	var out strings.Builder
	st.s.EachJob(func(j *cluster.Job) bool {
		fmt.Fprintf(&out, "%d %s %s epoch=%d: %s\n", j.ID, j.Spec.Name, j.State, j.Epoch, j.Reason)
		return true
	})
	return out.String()
}
