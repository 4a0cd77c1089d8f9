package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// The tests of this file guard against the return of bugs that the simulator found in the core, in as few commands as
// can be.

// TestFoundByFuzz plays the scenarios that `gangline sim fuzz` wrote when it found a bug, named by the seed that showed it.
func TestFoundByFuzz(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/found/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		sc, err := ReadScenario(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if _, err := Play(sc); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestLeaderClockWrong: servers whose clocks are an hour apart must not lose live nodes.
func TestLeaderClockWrong(t *testing.T) {
	t.Parallel()
	s := &cluster.State{}
	ahead := genesis.Add(time.Hour)
	s.Apply(1, ahead, &cluster.Init{ClusterID: "c", Version: 1})
	s.Apply(2, ahead, &cluster.RegisterNode{Node: cluster.Node{ID: "a", Name: "a", Incarnation: 1}})
	leases := map[cluster.NodeID]cluster.Time{"a": genesis.Add(6 * time.Second)}
	if cmds := stepOnce(s, leases, genesis); len(cmds) > 0 {
		t.Fatalf("control.Step compares leases of the leader's clock with the state's clock, which is an hour ahead: it proposes %s", describe(cmds[0]))
	}
	for seed := uint64(1); seed <= 5; seed++ {
		cfg := small(seed)
		cfg.Rates.LeaderClockSkew = time.Hour
		if _, err := Run(cfg); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTimeGoesOn: behind a state whose clock is hours ahead, as an earlier leader's was, back-offs and limits still end. (Not half a day either way:
// requests are remembered for so long.)
func TestTimeGoesOn(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 5; seed++ {
		cfg := small(seed)
		cfg.Rates.LeaderClockSkew = 11 * time.Hour
		if _, err := Run(cfg); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHolderThatCannotFit: a job whose shape no live node has must not keep GPUs free that others could use.
func TestHolderThatCannotFit(t *testing.T) {
	t.Parallel()
	s, now, index := &cluster.State{}, genesis, uint64(0)
	apply := func(c cluster.Command) cluster.Result {
		index++
		r := s.Apply(index, now, c)
		if r.Code != cluster.OK {
			t.Fatalf("%s: %s", describe(c), r.Message)
		}
		return r
	}
	apply(&cluster.Init{ClusterID: "c", Version: 1})
	for name, gpus := range map[string]int{"big": 8, "small-1": 4, "small-2": 4, "small-3": 4} {
		n := cluster.Node{ID: cluster.NodeID(name), Name: name, Incarnation: 1}
		for g := range gpus {
			n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%s/%d", name, g), Type: "h100", Healthy: true})
		}
		apply(&cluster.RegisterNode{Node: n})
	}
	submit := func(name string, gpus, perNode int32) cluster.JobID {
		return apply(&cluster.SubmitJob{RequestID: name, Spec: &cluster.JobSpec{
			Name: name, Queue: "default", GPUs: gpus, GPUsPerNode: perNode, Launch: cluster.LaunchPerGPU, Command: []string{"x"},
		}}).Job
	}
	apply(&cluster.LoseNode{Node: "big", Incarnation: 1, Reason: "broken"})
	submit("whole-node", 8, 8) // the lost node counts: it may come back
	now = now.Add(10 * time.Minute)
	one := submit("one", 1, 0)
	for _, c := range stepOnce(s, nil, now) {
		if start, ok := c.(*cluster.StartJob); ok && start.Job == one {
			return
		}
	}
	t.Fatal("planner.couldEver counts GPUs and not shapes, so 12 idle GPUs are kept free for a job that needs 8 on one node while the only such node is lost")
}
