package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/gangline/gangline/scheduler/cluster"
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
}

func newStory(t *testing.T) *story {
	st := &story{s: &cluster.State{}, now: cluster.Time(time.Hour), leases: Leases{}, names: map[string]cluster.JobID{}, cfg: DefaultConfig()}
	st.apply(t, &cluster.Init{ClusterID: "story", Version: 1})
	return st
}

func (st *story) apply(t *testing.T, c cluster.Command) cluster.Result {
	st.index++
	r := st.s.Apply(st.index, st.now, c)
	if err := st.s.Check(); err != nil {
		t.Fatalf("after %T: %v", c, err)
	}
	return r
}

func (st *story) play(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "node":
		return st.node(t, d)
	case "submit":
		return st.submit(t, d)
	case "step":
		return st.step(t, d)
	case "running", "exit":
		return st.report(t, d)
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
	for g := range scan(t, d, "gpus", 8) {
		n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%s/%d", name, g), Type: scan(t, d, "type", "h100"), Healthy: true})
	}
	return st.apply(t, &cluster.RegisterNode{Node: n}).Message
}

func (st *story) submit(t *testing.T, d *datadriven.TestData) string {
	name := d.CmdArgs[0].Key
	spec := &cluster.JobSpec{
		Name: name, Queue: "default", Launch: cluster.LaunchPerGPU, Command: []string{"train"}, Grace: time.Second,
		GPUs: int32(scan(t, d, "gpus", 1)), GPUsPerNode: int32(scan(t, d, "per_node", 0)),
		Priority: int32(scan(t, d, "priority", 50)), Retries: int32(scan(t, d, "retries", 0)),
		CPUPerGPU: int64(scan(t, d, "cpus", 0)) * 1000,
	}
	if types := scan(t, d, "type", ""); types != "" {
		spec.GPUTypes = strings.Split(types, "|")
	}
	if limit, err := time.ParseDuration(scan(t, d, "time_limit", "0s")); err == nil {
		spec.TimeLimit = limit
	}
	r := st.apply(t, &cluster.SubmitJob{RequestID: name, Spec: spec})
	st.names[name] = r.Job
	if r.Message != "" {
		return r.Message
	}
	return fmt.Sprintf("job %d", r.Job)
}

// step advances the clock, then calls Step until it has nothing to propose.
func (st *story) step(t *testing.T, d *datadriven.TestData) string {
	if by, err := time.ParseDuration(scan(t, d, "after", "1s")); err == nil {
		st.now = st.now.Add(by)
	}
	var out []string
	for round := 0; ; round++ {
		cmds := Step(st.s, st.leases, st.now, st.cfg)
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

// report lets all workers of a job, or one rank, run or exit.
func (st *story) report(t *testing.T, d *datadriven.TestData) string {
	j := st.s.Job(st.names[d.CmdArgs[0].Key])
	only := scan(t, d, "rank", -1)
	for _, w := range slices.Clone(j.Workers) {
		if only >= 0 && int(w.Rank) != only {
			continue
		}
		r := cluster.WorkerReport{Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, State: cluster.WorkerRunning}
		if d.Cmd == "exit" {
			r.State, r.ExitCode = cluster.WorkerExited, int32(scan(t, d, "code", 0))
		}
		st.apply(t, &cluster.ReportWorkers{Node: w.Node, Workers: []cluster.WorkerReport{r}})
	}
	j = st.s.Job(j.ID)
	return fmt.Sprintf("%s: %s", j.State, j.Reason)
}

func (st *story) jobs() string {
	var out strings.Builder
	st.s.EachJob(func(j *cluster.Job) bool {
		fmt.Fprintf(&out, "%d %s %s epoch=%d: %s\n", j.ID, j.Spec.Name, j.State, j.Epoch, j.Reason)
		return true
	})
	return out.String()
}
