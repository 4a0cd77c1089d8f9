package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// What each node has for each of its GPUs.
const (
	cpuPerGPU = 16_000   // thousandths
	memPerGPU = 64 << 30 // bytes
)

// typeOf is the type of a node's GPUs: every third node of three or more has another one.
func typeOf(node, nodes int) string {
	if nodes >= 3 && node%3 == 2 {
		return "a100"
	}
	return "h100"
}

// job is one job of the workload, with what its client knows and what the simulator saw of it.
type job struct {
	request  string
	spec     *cluster.JobSpec
	user     string
	arrives  time.Duration     // after the beginning
	service  time.Duration     // training time of one undisturbed epoch
	failsAt  time.Duration     // work at which a worker fails, once; 0: never
	cancelAt time.Duration     // after the acknowledgement; 0: never
	fits     bool              // the whole cluster could run it
	follows  cluster.Condition // how a job before it must have ended; 0: it follows none

	id     cluster.JobID // 0: not in the state yet
	first  cluster.JobID // of its array, or its own
	acked  bool
	gone   bool // refused, and rightly so
	failed bool // the failure has happened

	// Seen in the state.
	seen      *cluster.Job // newest version
	state     cluster.JobState
	epoch     cluster.Epoch
	step      int64
	submitted cluster.Time
	started   cluster.Time // first
	since     cluster.Time // this epoch
	finished  cluster.Time
	held      time.Duration // time in which it held its GPUs
	worked    time.Duration // work of the last epoch that physically ended
	workedIn  uint64
}

// final reports whether the job needs nothing any more.
func (j *job) final() bool { return j.gone || j.state.Final() }

// makeWorkload draws the jobs: Poisson arrivals over nine tenths of the horizon, gangs of powers of two, small ones more
// often, log-normal lengths scaled so that together they ask for cfg.Load of the cluster.
func makeWorkload(cfg Config, rng, kinds *rand.Rand) []*job {
	jobs := make([]*job, cfg.Jobs)
	weights := make([]float64, cfg.Jobs)
	arrivals := make([]float64, cfg.Jobs+1)
	at, sum := 0.0, 0.0
	for i := range jobs {
		at += rng.ExpFloat64()
		arrivals[i] = at
		jobs[i] = drawJob(i, cfg, rng)
		weights[i] = math.Exp(1.2 * rng.NormFloat64())
		sum += weights[i] * float64(jobs[i].spec.GPUs)
	}
	at += rng.ExpFloat64()
	unit := cfg.Load * float64(cfg.Nodes*cfg.GPUsPerNode) * float64(cfg.Horizon) / max(sum, 1)
	for i, j := range jobs {
		j.arrives = time.Duration(arrivals[i] / at * 0.9 * float64(cfg.Horizon))
		j.service = min(max(time.Duration(weights[i]*unit), 5*time.Second), cfg.Horizon).Round(time.Millisecond)
		if rng.IntN(20) == 0 {
			j.spec.TimeLimit = j.service/2 + time.Duration(rng.Int64N(int64(2*j.service)))
		}
		if cfg.Varied {
			j.vary(cfg, kinds)
		}
		failure, cancel := rng.Float64(), rng.Float64()
		if cfg.Faults && failure < cfg.Rates.WorkerFailure {
			j.failsAt = time.Duration(rng.Float64() * float64(j.service))
		}
		if cfg.Faults && cancel < cfg.Rates.Cancelled {
			j.cancelAt = time.Duration(rng.Float64()*2*float64(j.service)) + 1
		}
	}
	return jobs
}

func drawJob(i int, cfg Config, rng *rand.Rand) *job {
	spec := &cluster.JobSpec{
		Name: fmt.Sprintf("job-%d", i), Queue: [...]string{"default", "research/vision", "prod"}[rng.IntN(3)],
		Priority: [...]int32{20, 50, 50, 50, 50, 50, 50, 80}[rng.IntN(8)],
		GPUs:     1, Launch: cluster.LaunchPerGPU, Command: []string{"train"}, Retries: int32(rng.IntN(4)),
		Warn: time.Duration(rng.IntN(3)) * 10 * time.Second, Grace: time.Duration(1+rng.IntN(10)) * time.Second,
	}
	most := 0
	switch rng.IntN(6) {
	case 0:
		spec.GPUTypes = []string{"h100"}
		most = gpusOf(cfg, "h100")
	case 1:
		spec.GPUTypes = []string{typeOf(2, cfg.Nodes)}
		most = gpusOf(cfg, spec.GPUTypes[0])
	default:
		most = max(gpusOf(cfg, "h100"), gpusOf(cfg, "a100"))
	}
	for rng.Float64() < 0.55 && int(spec.GPUs)*2 <= most {
		spec.GPUs *= 2
	}
	if rng.IntN(5) == 0 {
		spec.Launch = cluster.LaunchPerNode
	}
	if rng.IntN(6) == 0 {
		spec.GPUsPerNode = min(spec.GPUs, int32(1)<<rng.IntN(4))
	}
	switch rng.IntN(8) {
	case 0:
		spec.CPUPerGPU, spec.MemPerGPU = 2*cpuPerGPU, memPerGPU // takes half of a node's GPUs out of use
	case 1, 2:
		spec.CPUPerGPU, spec.MemPerGPU = cpuPerGPU/2, memPerGPU/2
	}
	if !fits(cfg, spec) {
		spec.GPUsPerNode, spec.CPUPerGPU, spec.MemPerGPU = 0, 0, 0
	}
	if rng.IntN(100) == 0 {
		spec.GPUs, spec.GPUsPerNode = int32(cfg.Nodes*cfg.GPUsPerNode)+1, 0 // can never start
	}
	return &job{request: fmt.Sprintf("request-%d", i), user: "sim", spec: spec, fits: fits(cfg, spec), state: 0}
}

// gpusOf is the number of GPUs of a type in the whole cluster.
func gpusOf(cfg Config, gpuType string) int {
	n := 0
	for i := range cfg.Nodes {
		if typeOf(i, cfg.Nodes) == gpuType {
			n += cfg.GPUsPerNode
		}
	}
	return n
}

// islandOf is how many GPUs of a node lie in one island: half of them.
func islandOf(cfg Config) int { return max(cfg.GPUsPerNode/2, 1) }

// fits reports whether the whole cluster, with nothing else on it, could run a gang. It says the same as
// State.CanEverFit, counted apart from it.
func fits(cfg Config, spec *cluster.JobSpec) bool {
	room := cfg.GPUsPerNode
	if spec.Topology.Required && spec.Topology.Level == cluster.LevelIsland {
		room = islandOf(cfg)
	}
	if spec.CPUPerGPU > 0 {
		room = min(room, cfg.GPUsPerNode*cpuPerGPU/int(spec.CPUPerGPU))
	}
	if spec.MemPerGPU > 0 {
		room = min(room, cfg.GPUsPerNode*(memPerGPU>>20)/int(spec.MemPerGPU>>20))
	}
	if per := int(spec.GPUsPerNode); per > 0 {
		if room < per {
			return false
		}
		room = per
	}
	need := int(spec.Least())
	for _, t := range [...]string{"h100", "a100"} {
		if !cluster.AllowsType(spec, t) {
			continue
		}
		racks := map[int]int{}
		sum, most := 0, 0
		for i := range cfg.Nodes {
			if typeOf(i, cfg.Nodes) != t || (len(spec.Selector) > 0 && spec.Selector[0].Value != zoneOf(i)) {
				continue
			}
			sum += room
			racks[i/2] += room
			most = max(most, racks[i/2])
		}
		switch w := spec.Topology; {
		case !w.Required && sum >= need, w.Required && w.Level == "rack" && most >= need, w.Required && cluster.WithinNode(w.Level) && sum > 0 && room >= need:
			return true
		}
	}
	return false
}
