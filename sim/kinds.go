package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// This file makes up what users and admins of a varied world want: jobs of every kind, and policies.

const (
	rackLabel = "topology.gangline.dev/rack"
	zoneLabel = "zone"
)

// queues that the jobs of the workload name, by path.
func queuePaths() []string { return []string{"default", "prod", "research", "research/vision"} }

// vary makes a job that fits one of another kind: a share of a GPU, elastic, an array, or one that is choosy.
func (j *job) vary(ms []Machine, rng *rand.Rand) {
	j.user = fmt.Sprintf("user-%d", rng.IntN(3))
	spec := *j.spec
	spec.Preemptible = rng.IntN(3) > 0
	switch kind := rng.IntN(8); kind {
	case 0:
		spec.GPUs, spec.GPUsPerNode, spec.GPUMilli = 1, 0, int32(1+rng.IntN(9))*100
	case 1, 2:
		if spec.MinGPUs = max(spec.GPUs>>(1+rng.IntN(2)), 1); spec.GPUsPerNode > 0 {
			spec.MinGPUs = max(spec.MinGPUs-spec.MinGPUs%spec.GPUsPerNode, spec.GPUsPerNode)
		}
		if kind == 2 && spec.MinGPUs < spec.GPUs && spec.Launch == cluster.LaunchPerGPU {
			spec.OnFailure = cluster.FailureShrinks
		}
	case 3:
		spec.GPUs, spec.GPUsPerNode = min(spec.GPUs, 2), 0
		spec.Array = cluster.ArraySpec{Last: int32(rng.IntN(4)), Step: 1, Parallel: int32(rng.IntN(3))}
	case 4:
		spec.Topology = cluster.TopologyWish{Level: "rack", Required: rng.IntN(2) == 0}
	case 5:
		spec.Topology = cluster.TopologyWish{Level: [...]string{"node", "island", "numa"}[rng.IntN(3)], Required: true}
	case 6:
		spec.Selector = []cluster.Label{{Key: zoneLabel, Value: zoneOf(rng.IntN(2))}}
	}
	if rng.IntN(6) == 0 {
		j.follows = cluster.Condition(1 + rng.IntN(3)) //nolint:gosec // small
	}
	if !j.fits {
		return
	}
	if fits(ms, &spec) {
		j.spec = &spec
	} else {
		j.spec.Preemptible = spec.Preemptible
	}
}

// drawPolicy makes up a policy that Apply takes, for a cluster of so many GPUs.
func drawPolicy(ms []Machine, now cluster.Time, rng *rand.Rand) *cluster.Policy {
	p := cluster.DefaultPolicy()
	p.Order = [...]cluster.OrderName{cluster.OrderGangline, cluster.OrderGangline, cluster.OrderGangline, cluster.OrderFIFO, cluster.OrderLAS, cluster.OrderQSSF}[rng.IntN(6)]
	p.Preemption.Off = rng.IntN(8) == 0
	p.Preemption.MinRuntime = time.Duration(rng.IntN(3)) * 2 * time.Minute
	p.Backfill.Off = rng.IntN(10) == 0
	p.Backfill.Reserve = int32(rng.IntN(5))
	p.Backfill.HoldAfter = time.Duration(rng.IntN(5)) * time.Minute
	p.Defrag.On = rng.IntN(3) == 0
	if rng.IntN(4) > 0 {
		p.Queues = drawQueues(int64(gpusOf(ms, "")), rng)
	}
	if p.Defrag.On { // the policy says what the labels say
		p.Levels[1].Domains = racksOf(ms)
	}
	if rng.IntN(3) == 0 {
		start := now.Add(time.Duration(rng.Int64N(int64(20 * time.Minute))))
		w := cluster.Window{Name: "w", Start: start, End: start.Add(time.Duration(1 + rng.Int64N(int64(20*time.Minute)))), Nodes: []string{ms[rng.IntN(len(ms))].name()}}
		if w.Maintenance = len(p.Queues) == 0 || rng.IntN(2) == 0; !w.Maintenance {
			w.Queue = "prod"
		}
		p.Windows = []cluster.Window{w}
	}
	return p
}

// drawQueues gives out at most the whole cluster as quota; half of the policies promise nothing.
func drawQueues(gpus int64, rng *rand.Rand) []cluster.QueuePolicy {
	var queues []cluster.QueuePolicy
	promises, left, research := rng.IntN(2) == 0, gpus, int64(0)
	for _, path := range queuePaths() {
		q := cluster.QueuePolicy{Path: path, Weight: int64(1+rng.IntN(4)) * 500}
		free := left
		if path == "research/vision" {
			free = research
		}
		if n := free * int64(rng.IntN(3)) / 4; promises && n > 0 {
			q.Quota = []cluster.TypeCount{{GPUs: n}}
			if left -= n; path == "research" {
				research = n
			}
		}
		if rng.IntN(4) == 0 {
			q.Limit = []cluster.TypeCount{{GPUs: gpus/2 + rng.Int64N(gpus/2+1)}}
		}
		if rng.IntN(6) == 0 {
			q.UserLimit = gpus/2 + rng.Int64N(gpus/2+1)
		}
		queues = append(queues, q)
	}
	return queues
}

// racksOf names the nodes of each rack, as a policy does.
func racksOf(ms []Machine) []cluster.LevelDomain {
	var out []cluster.LevelDomain
	at := map[int]int{}
	for i := range ms {
		m := &ms[i]
		k, known := at[m.Rack]
		if !known {
			k = len(out)
			at[m.Rack] = k
			out = append(out, cluster.LevelDomain{Name: m.rack()})
		}
		out[k].Nodes = append(out[k].Nodes, m.name())
	}
	slices.SortFunc(out, func(a, b cluster.LevelDomain) int { return strings.Compare(a.Name, b.Name) })
	return out
}
