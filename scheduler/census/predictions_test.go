package census

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestPredictions: jobs that last as those before them are foretold well, others are not.
func TestPredictions(t *testing.T) {
	t.Parallel()
	s, index, now := &cluster.State{}, uint64(0), cluster.Time(time.Hour)
	apply := func(c cluster.Command) cluster.Result {
		index++
		return s.Apply(index, now, c)
	}
	apply(&cluster.Init{ClusterID: "c", Version: cluster.Version})
	n := cluster.Node{ID: "n", Name: "n", Incarnation: 1}
	for g := range 2 {
		n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprint(g), Type: "h100", Healthy: true})
	}
	apply(&cluster.RegisterNode{Node: n})
	run := func(queue, name string, gpus int32, lasts time.Duration) {
		sp := &cluster.JobSpec{Name: name, Queue: queue, GPUs: gpus, Launch: cluster.LaunchPerNode, Command: []string{"x"}}
		id := apply(&cluster.SubmitJob{RequestID: fmt.Sprint(index), User: "ann", Spec: sp}).Job
		apply(&cluster.StartJob{Job: id, Epoch: 1, Workers: []cluster.Placement{{Node: "n", GPUs: []string{"0", "1"}[:gpus]}}})
		now = now.Add(lasts)
		apply(&cluster.ReportWorkers{Node: "n", Workers: []cluster.WorkerReport{{Job: id, Epoch: 1, State: cluster.WorkerExited}}})
	}
	if got := Predictions(s, "", 9); len(got) != 0 || len(PredictionsBySize(s)) != 0 {
		t.Fatalf("before any job: %+v", got)
	}
	for i := range 250 {
		run("a/steady", fmt.Sprint("eval-", i), 1, time.Hour)
		run("b", fmt.Sprint("train-", i), 2, time.Minute<<(10*(i%2)))
	}
	all := Predictions(s, "", 99)
	if len(all) != 7 || all[0].Jobs != 500 || all[1].Milli == 0 || all[3].Queue == "" || all[6].User != "ann" || all[6].Name != "train-" {
		t.Fatalf("got %+v", all)
	}
	if hour := float64(all[5].Typical); all[5].Name != "eval-" || math.Abs(math.Log2(hour/3600)) > 0.5 || all[5].Error > 1 {
		t.Errorf("jobs of an hour each: %+v", all[5])
	}
	if all[6].Error < 2 {
		t.Errorf("jobs of a minute or 17 hours by turns: %+v", all[6])
	}
	if got := Predictions(s, "a", 99); len(got) != 2 || got[0].Queue != "a/steady" || len(Predictions(s, "", 3)) != 3 {
		t.Errorf("of queue a: %+v", got)
	}
	if by := PredictionsBySize(s); len(by) != 2 || by["1"].Jobs != 250 || by["2-7"].Error != all[6].Error {
		t.Errorf("by size: %+v", by)
	}
	for milli, want := range map[int64]string{250: "share", 1000: "1", 7000: "2-7", 8000: "8-63", 63_000: "8-63", 64_000: "64+"} {
		if got := sizeClass(milli); got != want {
			t.Errorf("%d: %s, want %s", milli, got, want)
		}
	}
}
