package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

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
	seen      int // the command that changed it last, by the checker's count
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
func makeWorkload(cfg Config, ms []Machine, rng, kinds *rand.Rand) []*job {
	jobs := make([]*job, cfg.Jobs)
	weights := make([]float64, cfg.Jobs)
	arrivals := make([]float64, cfg.Jobs+1)
	at, sum := 0.0, 0.0
	for i := range jobs {
		at += rng.ExpFloat64()
		arrivals[i] = at
		jobs[i] = drawJob(i, ms, rng)
		weights[i] = math.Exp(1.2 * rng.NormFloat64())
		sum += weights[i] * float64(jobs[i].spec.GPUs)
	}
	at += rng.ExpFloat64()
	unit := cfg.Load * float64(gpusOf(ms, "")) * float64(cfg.Horizon) / max(sum, 1)
	for i, j := range jobs {
		j.arrives = time.Duration(arrivals[i] / at * 0.9 * float64(cfg.Horizon))
		j.service = min(max(time.Duration(weights[i]*unit), 5*time.Second), cfg.Horizon).Round(time.Millisecond)
		if rng.IntN(20) == 0 {
			j.spec.TimeLimit = j.service/2 + time.Duration(rng.Int64N(int64(2*j.service)))
		}
		if cfg.Varied {
			j.vary(ms, kinds)
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

func drawJob(i int, ms []Machine, rng *rand.Rand) *job {
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
		most = gpusOf(ms, "h100")
	case 1:
		spec.GPUTypes = []string{typeOf(2, len(ms))}
		most = gpusOf(ms, spec.GPUTypes[0])
	default:
		most = max(gpusOf(ms, "h100"), gpusOf(ms, "a100"))
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
	if !fits(ms, spec) {
		spec.GPUsPerNode, spec.CPUPerGPU, spec.MemPerGPU = 0, 0, 0
	}
	if rng.IntN(100) == 0 {
		spec.GPUs, spec.GPUsPerNode = int32(gpusOf(ms, ""))+1, 0 // can never start
	}
	return &job{request: fmt.Sprintf("request-%d", i), user: "sim", spec: spec, fits: fits(ms, spec), state: 0}
}
