package control

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// The cluster of the benchmarks: 100,000 GPUs in 400 racks, 500 queues in 20
// departments, each with a quota, a limit and a user of its own, full to 95 %
// by a limit of the whole company, with a long queue of mixed gangs behind it.
const (
	benchNodes   = 12_500
	benchRacks   = 400
	benchPending = 100_000
	benchQueues  = 500
)

// city is a state of the size of the benchmarks, and who drives it.
type city struct {
	b      testing.TB
	s      *cluster.State
	now    cluster.Time
	index  uint64
	st     *Stepper
	chance *rand.Rand
	serial int
}

// newCity is a cluster full to its limit, with a queue behind it.
func newCity(b testing.TB, nodes, pending int) *city {
	b.Helper()
	c := newNodes(b, nodes)
	for c.held() < nodes*8*94/100 {
		for range 256 {
			c.submit()
		}
		c.step()
	}
	for c.s.Count(cluster.Pending) < pending {
		c.submit()
	}
	return c
}

// newNodes is a cluster without jobs.
func newNodes(b testing.TB, nodes int) *city {
	b.Helper()
	c := &city{
		b: b, s: &cluster.State{}, st: NewStepper(DefaultConfig()), now: cluster.Time(1_000_000 * time.Hour),
		chance: rand.New(rand.NewPCG(1, 2)),
	}
	c.apply(&cluster.Init{ClusterID: "bench", Version: cluster.Version})
	c.apply(&cluster.SetPolicy{Policy: benchPolicy(nodes), Any: true})
	racks := max(benchRacks*nodes/benchNodes, 1)
	for i := range nodes {
		n := cluster.Node{
			ID: cluster.NodeID(fmt.Sprintf("node-%05d", i)), Name: fmt.Sprintf("n%05d", i), CPUMilli: 128_000, MemBytes: 2 << 40,
			Labels: []cluster.Label{{Key: "topology.gangline.dev/rack", Value: fmt.Sprintf("r%03d", i%racks)}},
		}
		for g := range 8 {
			n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("GPU-%05d-%d-9faa-8a00-b155-80f5-8231", i, g), Type: "h100", Healthy: true})
		}
		c.apply(&cluster.RegisterNode{Node: n})
	}
	return c
}

func benchPolicy(nodes int) *cluster.Policy {
	p := cluster.DefaultPolicy()
	gpus := int64(nodes) * 8
	count := func(n int64) []cluster.TypeCount { return []cluster.TypeCount{{Type: "h100", GPUs: n}} }
	p.Queues = append(p.Queues, cluster.QueuePolicy{Path: "all", Limit: count(gpus * 95 / 100), Weight: 1000})
	for d := range 20 {
		p.Queues = append(p.Queues, cluster.QueuePolicy{Path: fmt.Sprintf("all/d%02d", d), Weight: int64(1000 + d*100)})
		for q := range benchQueues / 20 {
			p.Queues = append(p.Queues, cluster.QueuePolicy{
				Path: fmt.Sprintf("all/d%02d/q%02d", d, q), Quota: count(gpus * 9 / 10 / benchQueues), Weight: int64(1000 + q*10),
			})
		}
	}
	slices.SortFunc(p.Queues, func(a, b cluster.QueuePolicy) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return p
}

func (c *city) apply(cmd cluster.Command) cluster.Result {
	c.index++
	r := c.s.Apply(c.index, c.now, cmd)
	if r.Code != cluster.OK && r.Code != cluster.Conflict {
		c.b.Fatalf("%T: %s", cmd, r.Message)
	}
	return r
}

// submit adds a gang of 1 to 1,024 GPUs, most of them small.
func (c *city) submit() {
	c.serial++
	sizes := []int32{1, 1, 1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 16, 16, 32, 64}
	gpus := sizes[c.chance.IntN(len(sizes))]
	if c.chance.IntN(200) == 0 {
		gpus = []int32{128, 256, 512, 1024}[c.chance.IntN(4)]
	}
	q := c.chance.IntN(benchQueues)
	spec := &cluster.JobSpec{
		Name: "train", Queue: fmt.Sprintf("all/d%02d/q%02d", q/25, q%25), Priority: 50, GPUs: gpus, CPUPerGPU: 8000, MemPerGPU: 64 << 30,
		Launch: cluster.LaunchPerGPU, Command: []string{"python", "train.py"}, Preemptible: q%2 == 0,
	}
	if int(gpus) > c.s.Nodes()*8*9/10/benchQueues {
		spec.Preemptible = true // its queue's quota is smaller
	}
	if gpus > 8 {
		spec.Topology = cluster.TopologyWish{Level: "rack"}
	}
	if q%3 == 0 { // teams have their habits
		spec.TimeLimit = time.Duration(1+q%4) * 6 * time.Hour
	}
	c.apply(&cluster.SubmitJob{RequestID: fmt.Sprint("request-", c.serial), User: fmt.Sprintf("user%03d", q), Spec: spec})
}

// step steps once and applies what it says; it returns how many gangs started.
func (c *city) step() (starts int) {
	cmds, _ := c.st.Step(c.s, nil, c.now)
	for _, cmd := range cmds {
		if r := c.apply(cmd); r.Code == cluster.OK {
			if _, ok := cmd.(*cluster.StartJob); ok {
				starts++
			}
		}
	}
	return starts
}

func (c *city) held() int {
	gpus := 0
	c.s.EachHolding(func(j *cluster.Job) bool {
		gpus += int(j.Held())
		return true
	})
	return gpus
}

// end ends one running job: all of its workers exit with 0.
func (c *city) end(id cluster.JobID) {
	j := c.s.Job(id)
	reports := map[cluster.NodeID][]cluster.WorkerReport{}
	for i := range j.Workers {
		w := &j.Workers[i]
		reports[w.Node] = append(reports[w.Node], cluster.WorkerReport{Job: id, Epoch: j.Epoch, Rank: w.Rank, State: cluster.WorkerExited})
	}
	for _, n := range j.NodeRanks {
		c.apply(&cluster.ReportWorkers{Node: n, Workers: reports[n]})
	}
}

func (c *city) holding() []cluster.JobID {
	var ids []cluster.JobID
	c.s.EachHolding(func(j *cluster.Job) bool {
		ids = append(ids, j.ID)
		return true
	})
	return ids
}

// settle steps until nothing more starts and every job knows why it waits.
func (c *city) settle() {
	for range 1000 {
		c.now = c.now.Add(2 * time.Second)
		c.s.Snapshot() // as servers do for their readers after each batch: what is written next is copied, and old versions go
		cmds, _ := c.st.Step(c.s, nil, c.now)
		said := 0
		for _, cmd := range cmds {
			c.apply(cmd)
			if _, ok := cmd.(*cluster.EvictJob); !ok {
				said++
			}
		}
		if said == 0 {
			return
		}
	}
}

// BenchmarkSteadyState: one job ends, the next plan is made and applied.
func BenchmarkSteadyState(b *testing.B) {
	for _, size := range []struct{ nodes, pending int }{
		{benchNodes / 16, benchPending},
		{benchNodes / 4, benchPending},
		{benchNodes, benchPending},
		{benchNodes, benchPending / 16},
		{benchNodes, benchPending / 4},
	} {
		b.Run(fmt.Sprintf("nodes=%d/pending=%d", size.nodes, size.pending), func(b *testing.B) {
			c := newCity(b, size.nodes, size.pending)
			c.settle()
			steady(b, c)
		})
	}
}

func steady(b *testing.B, c *city) {
	ids := c.holding()
	c.chance.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	var took []time.Duration
	starts, workers := 0, 0
	b.ResetTimer()
	waiting := c.s.Count(cluster.Pending)
	for i := range b.N {
		if i%256 == 0 || len(ids) == 0 { // the queue stays as long as it was
			b.StopTimer()
			for c.s.Count(cluster.Pending) < waiting {
				c.submit()
			}
			if len(ids) == 0 {
				ids = c.holding()
			}
			b.StartTimer()
		}
		id := ids[len(ids)-1]
		ids = ids[:len(ids)-1]
		if j := c.s.Job(id); j == nil || j.State == cluster.Stopping {
			continue
		}
		c.now = c.now.Add(20 * time.Microsecond)
		c.end(id)
		began := time.Now() //nolint:forbidigo // a benchmark reads the clock
		cmds, _ := c.st.Step(c.s, nil, c.now)
		took = append(took, time.Since(began)) //nolint:forbidigo // a benchmark reads the clock
		for _, cmd := range cmds {
			if r := c.apply(cmd); r.Code == cluster.OK {
				if start, ok := cmd.(*cluster.StartJob); ok {
					starts++
					workers += len(start.Workers)
				}
			}
		}
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(workers)/b.Elapsed().Seconds(), "placements/s") // workers given their GPUs
	b.ReportMetric(float64(starts)/b.Elapsed().Seconds(), "gangs/s")
	if len(took) > 0 {
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkColdStart: a state is restored, everything is to be planned: an
// empty cluster before a long queue, and a full one.
func BenchmarkColdStart(b *testing.B) {
	cfg := DefaultConfig()
	cfg.Planner.MaxStarts = benchPending // the whole plan at once
	b.Run("empty", func(b *testing.B) {
		c := newNodes(b, benchNodes)
		for c.s.Count(cluster.Pending) < benchPending {
			c.submit()
		}
		gangs := 0
		for b.Loop() {
			cmds, _ := NewStepper(cfg).Step(c.s, nil, c.now)
			gangs = 0
			for _, cmd := range cmds {
				if _, ok := cmd.(*cluster.StartJob); ok {
					gangs++
				}
			}
		}
		b.ReportMetric(float64(gangs), "gangs/plan")
	})
	b.Run("full", func(b *testing.B) {
		c := newCity(b, benchNodes, benchPending)
		for b.Loop() {
			NewStepper(cfg).Step(c.s, nil, c.now)
		}
	})
}

// BenchmarkGang1024: one gang of 1,024 GPUs that prefers a rack is planned, in a
// cluster where a fifth of the nodes is free.
func BenchmarkGang1024(b *testing.B) {
	c := newNodes(b, benchNodes)
	for c.held() < benchNodes*8*80/100 {
		for range 256 {
			c.submit()
		}
		c.step()
	}
	for c.step() > 0 {
		c.now = c.now.Add(time.Second)
	}
	spec := &cluster.JobSpec{
		Name: "big", Queue: "all/d00/q00", Priority: 90, GPUs: 1024, Launch: cluster.LaunchPerNode, GPUsPerNode: 8, CPUPerGPU: 8000,
		Command: []string{"torchrun"}, Topology: cluster.TopologyWish{Level: "rack"}, Preemptible: true,
	}
	id := c.apply(&cluster.SubmitJob{RequestID: "big", User: "user000", Spec: spec}).Job
	found := 0
	for b.Loop() {
		cmds, _ := c.st.Step(c.s, nil, c.now) // never applied: the next step plans it again
		for _, cmd := range cmds {
			if start, ok := cmd.(*cluster.StartJob); ok && start.Job == id {
				found++
			}
		}
	}
	if found == 0 {
		b.Fatal("the gang was not placed")
	}
	b.ReportMetric(float64(found)/b.Elapsed().Seconds(), "gangs/s")
}

// BenchmarkSnapshot: a view of the whole state.
func BenchmarkSnapshot(b *testing.B) {
	c := newCity(b, benchNodes, benchPending)
	for b.Loop() {
		c.s.Snapshot()
	}
}

// BenchmarkMemory reports what the state and the index take for each job that
// waits, and for each worker that runs.
func BenchmarkMemory(b *testing.B) {
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for range b.N {
		c := newNodes(b, benchNodes)
		c.submit()
		c.settle()
		empty := heap()
		for c.held() < benchNodes*8*94/100 {
			for range 256 {
				c.submit()
			}
			c.settle()
		}
		workers := 0
		c.s.EachHolding(func(j *cluster.Job) bool {
			workers += len(j.Workers)
			return true
		})
		full, waiting := heap(), c.s.Count(cluster.Pending)
		for range benchPending {
			c.submit()
		}
		c.settle()
		perJob := (heap() - full) / float64(c.s.Count(cluster.Pending)-waiting)
		b.ReportMetric(perJob, "B/pending-job")
		b.ReportMetric((full-empty-perJob*float64(waiting))/float64(workers), "B/worker")
		runtime.KeepAlive(c)
	}
}
