package planner

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// offer is what one node can give to a claimer, and what that costs.
type offer struct {
	node    cluster.NodeID
	gpus    int32
	right   right // the most disruptive of its victims'
	worth   int64 // the least of its victims', see candidate.worth
	cost    int64
	victims []*candidate
}

// worth is how far back in the order stopping a job puts what the claimer
// passes, in milliseconds: its virtual deadline, less a quarter of the GPU time
// that is thrown away: all of it is not on the claimer's way.
func (c *candidate) worth() int64 { return c.at.key - c.lost/cluster.WholeGPU/4 }

// before orders offers of equally many GPUs: the least disruptive first; where
// jobs are stopped by the order alone, those that are worth most to stop;
// else, and among equals, the one that loses least work.
func (o *offer) before(p *offer) bool {
	switch {
	case o.right != p.right:
		return o.right < p.right
	case o.worth != p.worth:
		return o.worth > p.worth
	case o.cost != p.cost:
		return o.cost < p.cost
	default:
		return o.node < p.node
	}
}

// cheapest returns the cheapest set of victims that makes room for a job on
// GPUs of one type, or nil: on one node if one can hold it, else on as many as
// it takes, the fullest offers first.
func (m *market) cheapest(e *entry, gpuType string) []*candidate {
	sh := e.lane.shape
	need := sh.Least
	best := offer{}
	var offers []offer
	if !m.anyStops(e, gpuType) {
		return nil
	}
	m.x.fleet.EachNode(gpuType, func(n *cluster.Node, free, alive int32) bool {
		id := n.ID
		want := min(alive, need)
		if sh.PerNode > 0 {
			want = sh.PerNode
		}
		held := m.holders(id)
		if alive < want || (len(held) == 0 && free == 0) || m.x.keptFromAny(id, e.job) {
			return true
		}
		o := m.offerOf(e, id, gpuType, free, want)
		switch {
		case o.gpus == 0 || (len(o.victims) == 0 && o.gpus >= need):
		case o.gpus >= need:
			if best.gpus == 0 || o.before(&best) {
				m.best = append(m.best[:0], o.victims...)
				best, best.victims = o, m.best
			}
		case best.gpus == 0:
			o.victims = slices.Clone(o.victims)
			offers = append(offers, o)
		}
		return true
	})
	if best.gpus > 0 {
		return slices.Clone(best.victims)
	}
	return gather(offers, need)
}

// anyStops reports whether anybody may be stopped at all for a claimer.
func (m *market) anyStops(e *entry, gpuType string) bool {
	if m.noneLater(e) {
		return false
	}
	m.list()
	m.asks++
	for i := range m.all {
		if c := &m.all[i]; c.r.gpuType == gpuType && m.rightOf(e, c) != rightNone {
			return true
		}
	}
	return false
}

// noneLater reports whether a claimer could stop others by the order alone, and
// none of them is so much later in it. Most searches end here.
func (m *market) noneLater(e *entry) bool {
	x := m.x
	if m.moving || x.hasQuota || x.tree.HasLimits() || m.lowest < e.job.Spec.Priority ||
		x.policy.Order != cluster.OrderGangline || m.opened != x.tree.Stamp(x.now) {
		return false
	}
	if !m.round || x.now.Sub(e.job.PendingAt) < waitBefore {
		return true
	}
	if !m.sorted {
		m.sorted = true
		for i := len(m.latest) - 2; i >= 0; i-- {
			m.latest[i] = max(m.latest[i], m.latest[i+1])
		}
	}
	at := m.standingOf(e)
	from := (levelParts*at.level + m.gap()) / levelParts
	return from >= cluster.Levels || m.latest[from] <= at.key+e.lane.offset
}

// rightOf is mayStop, remembered for one search: nothing that it depends on
// changes meanwhile.
func (m *market) rightOf(e *entry, c *candidate) right {
	if c.asked != m.asks {
		c.asked, c.by = m.asks, m.mayStop(e, c)
	}
	return c.by
}

// gather joins offers of several nodes until they suffice.
func gather(offers []offer, need int32) []*candidate {
	slices.SortFunc(offers, func(a, b offer) int {
		if a.gpus != b.gpus {
			return cmp.Compare(b.gpus, a.gpus)
		}
		return -compareBool(a.before(&b), b.before(&a))
	})
	seen := map[cluster.JobID]bool{}
	var set []*candidate
	for i := range offers {
		if need <= 0 {
			break
		}
		need -= offers[i].gpus
		for _, c := range offers[i].victims {
			if !seen[c.job.ID] {
				seen[c.job.ID] = true
				set = append(set, c)
			}
		}
	}
	if need > 0 {
		return nil
	}
	return set
}

// offerOf takes victims of one node, the least disruptive first, until it has
// as many GPUs as the gang could use there, and spares those that turn out not
// to be needed. Its victims are valid until the next call.
func (m *market) offerOf(e *entry, id cluster.NodeID, gpuType string, free, want int32) offer {
	m.victims = m.victims[:0]
	for _, c := range m.holders(id) {
		if free >= want {
			break // nobody need be stopped here
		}
		if c.r.gpuType == gpuType && m.rightOf(e, c) != rightNone {
			m.victims = append(m.victims, c)
		}
	}
	if len(m.victims) > 1 {
		slices.SortFunc(m.victims, func(a, b *candidate) int {
			if a.by != b.by {
				return cmp.Compare(a.by, b.by)
			}
			return cmp.Or(cmp.Compare(a.job.Spec.Priority, b.job.Spec.Priority),
				cmp.Compare(b.worth(), a.worth()), cmp.Compare(a.job.ID, b.job.ID))
		})
	}
	sum, used := free, 0
	for _, c := range m.victims {
		if sum >= want {
			break
		}
		sum += gpusOn(c.job, id)
		used++
	}
	m.victims = m.victims[:used]
	if e.lane.shape.PerNode > 0 && sum < want {
		return offer{}
	}
	for i := used - 1; i >= 0; i-- { // the last ones are the most disruptive
		if here := gpusOn(m.victims[i].job, id); sum-here >= want {
			sum -= here
			m.victims = slices.Delete(m.victims, i, i+1)
		}
	}
	o := offer{node: id, gpus: min(sum, want), victims: m.victims}
	for i, c := range m.victims {
		o.right, o.cost = max(o.right, m.rightOf(e, c)), o.cost+c.lost
		if w := c.worth(); i == 0 || w < o.worth {
			o.worth = w
		}
	}
	if o.right < rightOrder {
		o.worth = 0
	}
	return o
}

// gpusOn is how many GPUs a job holds on a node.
func gpusOn(j *cluster.Job, id cluster.NodeID) int32 {
	n := 0
	for i := range j.Workers {
		if j.Workers[i].Node == id {
			n += len(j.Workers[i].GPUs)
		}
	}
	return int32(n) //nolint:gosec // at most MaxNodeGPUs
}

func nodesOf(workers []cluster.Placement) []cluster.NodeID {
	var nodes []cluster.NodeID
	for i := range workers {
		if n := len(nodes); n == 0 || nodes[n-1] != workers[i].Node {
			nodes = append(nodes, workers[i].Node)
		}
	}
	return nodes
}
