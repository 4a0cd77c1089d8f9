package fleet

import (
	"fmt"
	"math/rand"
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

// hall is a cluster of nodes with 8 GPUs, some 31 to a rack and 20 racks to a
// block, on which jobs hold a part of all GPUs: most whole nodes, the rest in
// pieces of 1 to 4 GPUs with one of four amounts of CPUs and memory.
func hall(score cluster.ScoreName, nodes int, full float64) (*Fleet, []*cluster.Node) {
	rng := rand.New(rand.NewSource(1))
	f := New(score, cluster.DefaultPolicy().Levels)
	all := make([]*cluster.Node, nodes)
	for i := range all {
		rack := i * 400 / nodes
		n := &cluster.Node{
			ID: cluster.NodeID(fmt.Sprintf("n%05d", i)), Name: fmt.Sprintf("n%05d", i), State: cluster.NodeReady, CPUMilli: 128000, MemBytes: 1 << 40,
			Labels: []cluster.Label{
				{Key: "topology.gangline.dev/block", Value: fmt.Sprintf("b%02d", rack/20)},
				{Key: "topology.gangline.dev/rack", Value: fmt.Sprintf("r%03d", rack)},
			},
		}
		for g := range 8 {
			n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("GPU-%05d-%d", i, g), Type: "h100", Healthy: true, Island: int32(g / 4)})
		}
		if rng.Float64() < full-0.1 {
			fill(n, cluster.JobID(i+1), 8, 8000)
		} else {
			for left := 8; left > 0; {
				k := min(1+rng.Intn(4), left)
				if left -= k; rng.Float64() < 1-(1-full)/(1-full+0.1) {
					fill(n, cluster.JobID(i+1), k, int64(4+4*rng.Intn(4))*1000)
				}
			}
		}
		all[i] = n
		f.Put(n)
	}
	f.SetMix([]MixItem{{GPUs: 1, Share: 1000, CPU: 8000, Weight: 50}, {GPUs: 8, Share: 1000, CPU: 8000, Weight: 20}, {GPUs: 4, Share: 1000, CPU: 4000, Weight: 10}}, 500)
	return f, all
}

// fill gives k free GPUs of a node to a job.
func fill(n *cluster.Node, job cluster.JobID, k int, cpu int64) {
	for i := range n.GPUs {
		if k > 0 && n.GPUs[i].Job == 0 {
			n.GPUs[i].Job = job
			n.CPUUsed += cpu
			n.MemUsed += cpu << 20
			k--
		}
	}
}

func scores() []cluster.ScoreName {
	return []cluster.ScoreName{cluster.ScoreBestFit, cluster.ScoreGangline, cluster.ScoreFGD}
}

// BenchmarkPlaceOne places one GPU on a cluster that is 95 % full, names it, and
// takes the changed node's facts as if the job had ended at once.
func BenchmarkPlaceOne(b *testing.B) {
	for _, score := range scores() {
		for _, nodes := range []int{1250, 5000, 12500} {
			b.Run(fmt.Sprintf("%s/nodes=%d", score, nodes), func(b *testing.B) {
				f, all := hall(score, nodes, 0.95)
				var shapes []*Shape
				for i := range 32 {
					shapes = append(shapes, f.Shape(&cluster.JobSpec{GPUs: int32(1 + i%2), CPUPerGPU: int64(i/2%8) * 1000, MemPerGPU: int64(i/16) << 30}))
				}
				q := Query{Job: 1, Queue: "research/vision"}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					sh := shapes[i%len(shapes)]
					parts := f.Place(sh, sh.GPUs, &q)
					if parts == nil {
						b.Fatal("it does not fit")
					}
					f.Workers(nil, parts, cluster.LaunchPerGPU)
					f.Put(all[f.byID[parts[0].Node].pos])
				}
			})
		}
	}
}

// BenchmarkChurn places one job after another of 32 shapes on a cluster that is
// 95 % full, while as many that were placed before end.
func BenchmarkChurn(b *testing.B) {
	for _, score := range scores() {
		b.Run(string(score), func(b *testing.B) {
			f, _ := hall(score, 12500, 0.9)
			rng := rand.New(rand.NewSource(2))
			type run struct {
				sh *Shape
				x  *node
				g  []int32
			}
			var running []run
			var shapes []*Shape
			for i := range 32 {
				shapes = append(shapes, f.Shape(&cluster.JobSpec{GPUs: int32(1 + i%4), CPUPerGPU: int64(1+rng.Intn(12)) * 1000, MemPerGPU: int64(1+rng.Intn(120)) << 30}))
			}
			b.ReportAllocs()
			for b.Loop() {
				sh := shapes[rng.Intn(len(shapes))]
				if parts := f.Place(sh, sh.GPUs, &Query{}); parts != nil {
					for _, p := range parts {
						running = append(running, run{sh, f.byID[p.Node], p.Taken})
					}
					f.Workers(nil, parts, cluster.LaunchPerGPU)
				}
				for len(running) > 1500 {
					i := rng.Intn(len(running))
					r := running[i]
					running[i] = running[len(running)-1]
					running = running[:len(running)-1]
					for _, g := range r.g {
						r.x.gpus[g].free = cluster.WholeGPU
					}
					r.x.cpu += r.sh.CPU * int64(len(r.g))
					r.x.mem += r.sh.Mem * int64(len(r.g))
					f.refresh(r.x)
				}
			}
			if r := f.pools[0].ranks; r != nil {
				b.ReportMetric(float64(len(r.kinds)), "kinds")
			}
		})
	}
}

// BenchmarkPlaceGang1024 places a gang that prefers one rack, names its GPUs,
// and takes it back.
func BenchmarkPlaceGang1024(b *testing.B) {
	for _, score := range scores() {
		for _, perNode := range []int32{0, 8, 2} {
			b.Run(fmt.Sprintf("%s/per_node=%d", score, perNode), func(b *testing.B) {
				f, _ := hall(score, 12500, 0.9)
				sh := f.Shape(&cluster.JobSpec{GPUs: 1024, GPUsPerNode: perNode, Topology: cluster.TopologyWish{Level: "rack"}, CPUPerGPU: 4000})
				q := Query{Job: 1}
				b.ReportAllocs()
				nodes := 0
				for b.Loop() {
					m := f.Mark()
					parts := f.Place(sh, sh.GPUs, &q)
					nodes = len(parts)
					f.Workers(nil, parts, cluster.LaunchPerGPU)
					f.Undo(m)
				}
				b.ReportMetric(float64(nodes), "nodes")
			})
		}
	}
}

// BenchmarkRefuse asks for what does not fit: by May alone, and by Place and Why
// where only CPUs, the domain or a hold stand in the way.
func BenchmarkRefuse(b *testing.B) {
	f, all := hall(cluster.ScoreBestFit, 12500, 0.95)
	q := Query{Job: 1}
	for i := range 2000 {
		f.SetHolds(all[i*6].ID, []Hold{{Job: cluster.JobID(10 + i%40), At: 5}})
	}
	for name, spec := range map[string]*cluster.JobSpec{
		"free": {GPUs: 16384}, "cpu": {GPUs: 64, CPUPerGPU: 100_000}, "rack": {GPUs: 200, Topology: cluster.TopologyWish{Level: "rack", Required: true}},
		"nodes": {GPUs: 4096, GPUsPerNode: 8},
	} {
		b.Run(name, func(b *testing.B) {
			sh := f.Shape(spec)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f.Put(all[i%len(all)]) // something changed meanwhile
				if f.May(sh, sh.GPUs) && f.Place(sh, sh.GPUs, &q) == nil {
					f.Why(sh, sh.GPUs, &Query{Any: true})
				}
			}
		})
	}
}

// BenchmarkPut takes a node of which one GPU was taken or given back.
func BenchmarkPut(b *testing.B) {
	f, all := hall(cluster.ScoreBestFit, 12500, 0.95)
	other := make([]*cluster.Node, len(all))
	for i, n := range all {
		c := *n
		c.GPUs = append([]cluster.GPU(nil), n.GPUs...)
		c.GPUs[i%8].Job ^= 99999
		other[i] = &c
	}
	f.May(f.Shape(&cluster.JobSpec{GPUs: 1}), 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := i * 7919 % len(all)
		f.Put(all[k])
		f.Put(other[k])
	}
}

// BenchmarkBuild makes an index of a large cluster at once.
func BenchmarkBuild(b *testing.B) {
	_, all := hall(cluster.ScoreBestFit, 12500, 0.95)
	b.ReportAllocs()
	for b.Loop() {
		f := New(cluster.ScoreBestFit, cluster.DefaultPolicy().Levels)
		for _, n := range all {
			f.Put(n)
		}
		f.Place(f.Shape(&cluster.JobSpec{GPUs: 1}), 1, &Query{})
	}
}
