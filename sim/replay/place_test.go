package replay

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// pod makes a request: GPUs, thousandths of each, CPUs in all.
func pod(gpus, share, cpus int) trace.Job {
	return trace.Job{GPUs: int32(gpus), Milli: int32(share), CPU: int64(cpus) * milli, Queue: "default"}
}

// machines are two nodes of 8 GPUs and 16 CPUs.
func machines() []trace.Node {
	out := nodes(2, 8)
	for i := range out {
		out[i].CPU = 16 * milli
	}
	return out
}

// TestFill: six pods in order. The second 8-GPU pod finds no whole node, and the last one no CPU.
func TestFill(t *testing.T) {
	t.Parallel()
	pods := []trace.Job{pod(1, 500, 1), pod(8, 1000, 8), pod(8, 1000, 8), pod(1, 500, 1), pod(0, 0, 6), pod(4, 1000, 16)}
	r, err := Place(DefaultPlaceConfig(), pods, machines())
	if err != nil {
		t.Fatal(err)
	}
	want := &PlaceReport{
		Score: "gangline", Nodes: 2, GPUs: 16, Pods: 6, Lost: 2, Allocated: 100 * 9. / 16,
		Arrived: map[string]int{"0": 1, "share": 2, "1": 0, "2": 0, "4": 1, "8": 2},
		Placed:  map[string]int{"0": 1, "share": 2, "1": 0, "2": 0, "4": 0, "8": 1},
		// 7 GPUs are free: of no use to pods without GPUs and with 8, 16 CPUs or more; two shares could use all.
		Fragmented: 100 * (7 * 4. / 6) / 16,
	}
	if n := len(r.ByArrived); n != 1+100*21/16 || r.ByArrived[n-1] != want.Allocated || r.ByArrived[4] != 100*8.5/16 {
		t.Errorf("%d percents, %v", n, r.ByArrived)
	}
	r.ByArrived = nil
	r.Fragmented, want.Fragmented = math.Round(r.Fragmented*1e6), math.Round(want.Fragmented*1e6)
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
}

// TestYardGivesBack: whatever was placed, once all have left the nodes are as they were.
func TestYardGivesBack(t *testing.T) {
	t.Parallel()
	cfg := DefaultPlaceConfig()
	y, err := newYard(&cfg, machines())
	if err != nil {
		t.Fatal(err)
	}
	chance := rand.New(rand.NewPCG(1, 2))
	var live []*lodger
	placed := 0
	for range 500 {
		if len(live) > 0 && chance.IntN(2) == 0 {
			i := chance.IntN(len(live))
			y.remove(live[i])
			live[i] = live[len(live)-1]
			live = live[:len(live)-1]
			continue
		}
		p := pod([]int{0, 1, 1, 2, 4}[chance.IntN(5)], 1000, chance.IntN(3))
		if p.GPUs == 1 && chance.IntN(2) == 0 {
			p.Milli = 300
		}
		l, err := y.place(&p)
		if err != nil {
			t.Fatal(err)
		}
		if l != nil {
			live = append(live, l)
			placed++
		}
		used := int64(0)
		for _, n := range y.nodes {
			for g := range n.GPUs {
				used += int64(cluster.WholeGPU - n.GPUs[g].FreeMilli())
			}
		}
		if used != y.used {
			t.Fatalf("%d thousandths are used, %d counted", used, y.used)
		}
	}
	for _, l := range live {
		y.remove(l)
	}
	for i, n := range y.nodes {
		if n.CPUUsed != 0 || n.MemUsed != 0 || n.Holds() {
			t.Errorf("node %d is not empty: %+v", i, n)
		}
	}
	if y.used != 0 || placed < 100 {
		t.Errorf("%d thousandths are used in the end, %d pods were placed", y.used, placed)
	}
}

// TestChurn: a queueing formula knows the loss. One-GPU pods on 16 GPUs at a load of 1 are Erlang's case.
func TestChurn(t *testing.T) {
	t.Parallel()
	erlang := 1.0 // the part that is lost with n servers, by the usual recursion
	for n := 1.; n <= 16; n++ {
		erlang = 16 * erlang / (n + 16*erlang)
	}
	cfg := DefaultPlaceConfig()
	cfg.Departures, cfg.Span = 1, 2000
	r, err := Place(cfg, []trace.Job{pod(1, 1000, 0)}, nodes(2, 8))
	if err != nil {
		t.Fatal(err)
	}
	if want := 100 * (1 - erlang); math.Abs(r.Allocated-want) > 1 {
		t.Errorf("%.2f %% allocated, Erlang's formula says %.2f", r.Allocated, want)
	}
	if lost := float64(r.Lost) / float64(r.Pods); math.Abs(lost-erlang) > 0.01 {
		t.Errorf("%.3f lost, Erlang's formula says %.3f", lost, erlang)
	}
	cfg.Span = 20
	var first bytes.Buffer
	for seed := range uint64(3) {
		cfg.Seed = seed % 2
		r, err := Place(cfg, []trace.Job{pod(1, 1000, 0), pod(1, 300, 0), pod(4, 1000, 0)}, nodes(2, 8))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := r.WriteJSON(&out, nil); err != nil {
			t.Fatal(err)
		}
		switch {
		case seed == 0:
			first = out
		case (seed%2 == 0) != bytes.Equal(first.Bytes(), out.Bytes()):
			t.Errorf("seed %d gives %s, seed 0 %s", cfg.Seed, out.String(), first.String())
		}
	}
}

// TestOwnLifetimes: what is lost of Erlang's case does not depend on how lifetimes are distributed, and a run begins with
// pods there.
func TestOwnLifetimes(t *testing.T) {
	t.Parallel()
	erlang := 1.0
	for n := 1.; n <= 16; n++ {
		erlang = 16 * erlang / (n + 16*erlang)
	}
	var pods []trace.Job
	for _, length := range []int{10, 10, 10, 2000, 0} {
		p := pod(1, 1000, 0)
		p.Length = secs(length)
		pods = append(pods, p)
	}
	cfg := DefaultPlaceConfig()
	cfg.Departures, cfg.Own, cfg.Span = 1, true, 2000
	r, err := Place(cfg, pods, nodes(2, 8))
	if err != nil {
		t.Fatal(err)
	}
	if want := 100 * (1 - erlang); math.Abs(r.Allocated-want) > 1 || r.MeanLife != 507.5 {
		t.Errorf("%.2f %% allocated, Erlang's formula says %.2f; a mean of %g s, want 507.5", r.Allocated, want, r.MeanLife)
	}
	cfg.Warmup, cfg.Span = 0, 0.05
	sum := 0.0
	for seed := range uint64(400) {
		cfg.Seed = seed
		r, err := Place(cfg, pods, nodes(2, 8))
		if err != nil {
			t.Fatal(err)
		}
		sum += r.Allocated / 400
	}
	// As many pods as a Poisson number with mean 16 come at first, and at most 16 find room.
	want, chance := 16.0, math.Exp(-16)
	for n := 0.; n < 16; n++ {
		want -= chance * (16 - n)
		chance *= 16 / (n + 1)
	}
	if want *= 100. / 16; math.Abs(sum-want) > 2 {
		t.Errorf("runs begin with %.2f %% allocated on average, want %.2f", sum, want)
	}
}

// TestPlaceConfigValidate: nonsense is refused before anything is placed.
func TestPlaceConfigValidate(t *testing.T) {
	t.Parallel()
	for _, set := range []func(*PlaceConfig){
		func(c *PlaceConfig) { c.Score = "darts" },
		func(c *PlaceConfig) { c.Departures = math.NaN() },
		func(c *PlaceConfig) { c.Span = 0 },
		func(c *PlaceConfig) { c.Own = true },
	} {
		cfg := DefaultPlaceConfig()
		set(&cfg)
		if _, err := Place(cfg, []trace.Job{pod(1, 1000, 0)}, nodes(1, 8)); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
	cfg := DefaultPlaceConfig()
	cfg.Departures = 1
	if _, err := Place(cfg, []trace.Job{pod(0, 0, 1)}, nodes(1, 8)); err == nil {
		t.Error("a run with departures and no pod that would arrive is taken")
	}
	if _, err := Place(cfg, nil, nil); err == nil {
		t.Error("a cluster without nodes is taken")
	}
}
