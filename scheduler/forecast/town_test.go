package forecast

import (
	"fmt"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// failer is what a town needs of a test: *testing.T and *rapid.T are ones.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// town is a small cluster in which tests let things happen, led by the real
// Stepper.
type town struct {
	t     failer
	s     *cluster.State
	st    *control.Stepper
	index uint64
	now   cluster.Time
	// unchecked: invariants are not looked at, which takes long in a large town.
	unchecked bool
}

func newTown(t failer) *town {
	w := &town{t: t, s: &cluster.State{}, st: control.NewStepper(control.DefaultConfig()), now: cluster.Time(1000 * time.Hour)}
	w.apply(&cluster.Init{ClusterID: "town", Version: cluster.Version})
	return w
}

func (w *town) try(c cluster.Command) cluster.Result {
	w.index++
	r := w.s.Apply(w.index, w.now, c)
	if w.unchecked {
		return r
	}
	if err := w.s.Check(); err != nil {
		w.t.Helper()
		w.t.Fatalf("after %T: %v", c, err)
	}
	return r
}

func (w *town) apply(c cluster.Command) cluster.Result {
	w.t.Helper()
	r := w.try(c)
	if r.Code != cluster.OK {
		w.t.Fatalf("%T %+v: %s", c, c, r.Message)
	}
	return r
}

func (w *town) pass(d time.Duration) { w.now = w.now.Add(d) }

func machine(name string, gpus int, gpuType, rack string) cluster.Node {
	n := cluster.Node{ID: cluster.NodeID(name), Name: name, Incarnation: 1, Host: name, CPUMilli: 64_000, MemBytes: 1 << 40}
	if rack != "" {
		n.Labels = []cluster.Label{{Key: "topology.gangline.dev/rack", Value: rack}}
	}
	for g := range gpus {
		n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%s/%d", name, g), Type: gpuType, Healthy: true})
	}
	return n
}

// spec is a preemptible job, to be changed by the caller.
func spec(queue string, gpus int32) *cluster.JobSpec {
	return &cluster.JobSpec{
		Name: "j", Queue: queue, GPUs: gpus, Launch: cluster.LaunchPerNode, Command: []string{"x"}, Priority: 50, Preemptible: true,
	}
}

// settle steps until nothing more is decided, and tells what starts and stops.
func (w *town) settle() string {
	var out []string
	for range 100 {
		cmds, _ := w.st.Step(w.s, nil, w.now)
		if len(cmds) == 0 {
			return strings.Join(out, "\n")
		}
		for _, c := range cmds {
			if w.try(c).Code != cluster.OK {
				continue
			}
			switch c := c.(type) {
			case *cluster.StartJob:
				out = append(out, fmt.Sprintf("job %d starts", c.Job))
				w.report(c.Job, cluster.WorkerRunning, 0)
			case *cluster.EvictJob:
				out = append(out, fmt.Sprintf("job %d stops: %s", c.Job, c.Reason))
				w.report(c.Job, cluster.WorkerExited, 0)
			case *cluster.KeepNodes:
				out = append(out, fmt.Sprintf("kept for job %d: %v", c.Job, c.Nodes))
			}
		}
	}
	w.t.Helper()
	if !w.unchecked {
		w.t.Fatalf("the town does not come to rest: %s", strings.Join(out, "\n"))
	}
	return ""
}

// exit ends all workers of a job.
func (w *town) exit(id cluster.JobID, code int32) {
	w.t.Helper()
	if j := w.s.Job(id); j == nil || !j.State.Holding() {
		w.t.Fatalf("job %d does not run", id)
	}
	w.report(id, cluster.WorkerExited, code)
}

func (w *town) report(id cluster.JobID, st cluster.WorkerState, code int32) {
	w.t.Helper()
	j := w.s.Job(id)
	for _, node := range j.NodeRanks {
		var reports []cluster.WorkerReport
		for i := range j.Workers {
			if k := &j.Workers[i]; k.Node == node {
				reports = append(reports, cluster.WorkerReport{Job: id, Epoch: j.Epoch, Rank: k.Rank, State: st, ExitCode: code})
			}
		}
		w.apply(&cluster.ReportWorkers{Node: node, Workers: reports})
	}
}
