package nodeagent

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// share is an assignment of a part of the node's first GPU, as a leader makes it: without a port.
func (r *running) share(job, epoch uint64, milli int32, text string) *agentv1.Assignment {
	a := r.script(job, epoch, text)
	a.MasterPort, a.Workers[0].GpuMilli = 0, milli
	return a
}

var masterPortLine = regexp.MustCompile(`port=[0-9]+`)

// TestSharesOfOneGPU: workers lie on a GPU side by side, each with its part and a port of its own, and the next waits
// until there is room, also under an agent that was restarted meanwhile.
func TestSharesOfOneGPU(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	r := start(t, cfg)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const say = `echo "share=$GANGLINE_GPU_SHARE threads=$CUDA_MPS_ACTIVE_THREAD_PERCENTAGE port=$MASTER_PORT"; `
	half := r.share(1, 1, 500, say+"while [ -e "+gate+" ]; do sleep 0.01; done")
	third, second := r.share(2, 1, 300, say+"sleep 1000"), r.share(3, 1, 300, say+"sleep 1000")
	s.order(1, 1, half, third, second)
	s.awaitWorker("1-1-0", isRunning)
	s.awaitWorker("2-1-0", isRunning)
	uuid := half.GetWorkers()[0].GetGpuUuids()[0]
	r.stop()
	r = start(t, cfg)
	s.awaitWorker("2-1-0", isRunning) // adopted
	s.order(1, 2, half, third, second)
	if w := s.find("3-1-0"); w != nil {
		t.Fatalf("it was launched while there was no room for it: %v", w)
	}
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	s.awaitWorker("3-1-0", isRunning)
	s.mu.Lock()
	if d := cmp.Diff([]string{"1-1-0 EXITED", "3-1-0 RUNNING"}, s.history[len(s.history)-2:]); d != "" {
		t.Error(d)
	}
	s.mu.Unlock()
	r.awaitOutput("1-1-0", "share=0.5 threads=50")
	r.awaitOutput("2-1-0", "\n")
	r.awaitOutput("3-1-0", "share=0.3 threads=30")
	one, two := masterPortLine.FindString(r.output("1-1-0", nil)), masterPortLine.FindString(r.output("2-1-0", nil))
	if one == two || one == "port=0" || two == "port=0" || one == "" || two == "" {
		t.Errorf("two workers that lived at once have ports %q and %q", one, two)
	}
	// The freed half is taken off what is held, once the loop has looked.
	for deadline := time.Now().Add(patience); r.held()[uuid] != 600; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d thousandths of the GPU are held, want 600", r.held()[uuid])
		}
	}
}

// TestChoosePort: ports of living workers and of launches under way are not given out again, those of the ended are.
func TestChoosePort(t *testing.T) {
	t.Parallel()
	r := &reconciler{ports: map[reconcile.Key]int32{}}
	on := func(port string, state worker.State) worker.Status {
		return worker.Status{State: state, Labels: map[string]string{labelPort: port}}
	}
	statuses := []worker.Status{on("30524", worker.Running), on("30525", worker.Exited), on("30526", worker.Stopping), {State: worker.Running}}
	free := &agentv1.Assignment{}
	for i, want := range []int32{30525, 30527, 30528} {
		port, err := r.choosePort(reconcile.Key{Job: uint64(i)}, free, statuses) //nolint:gosec // 0 to 2
		if err != nil || port != want {
			t.Errorf("choice %d: %d, %v, want %d", i, port, err, want)
		}
	}
	if port, err := r.choosePort(reconcile.Key{Job: 9}, &agentv1.Assignment{MasterPort: 29503}, statuses); port != 29503 || err != nil {
		t.Errorf("the leader's port became %d, %v", port, err)
	}
	for i := range lastSharePort - firstSharePort - 4 {
		if _, err := r.choosePort(reconcile.Key{Job: 10, Rank: i}, free, statuses); err != nil {
			t.Fatalf("port %d of the range: %v", i, err)
		}
	}
	_, err := r.choosePort(reconcile.Key{Job: 11}, free, statuses)
	if err == nil {
		t.Fatal("a port was given out twice")
	}
	contains(t, err.Error(), "11-0-0", "30524", "32767", "larger shares")
}
