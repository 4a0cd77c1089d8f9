package planner

import (
	"cmp"
	"math"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// offer is what one node can give to a claimer, and what that costs.
type offer struct {
	node    cluster.NodeID
	gpus    int32
	right   right // the most disruptive of its victims'
	worth   int64 // the least of its victims', see run.worth
	cost    int64
	victims []*run
}

// worth is how far back in the order stopping a job puts what the claimer
// passes, in milliseconds: its virtual deadline, less a quarter of the GPU time
// that is thrown away: all of it is not on the claimer's way.
func (c *run) worth() int64 { return c.key - c.lost/cluster.WholeGPU/4 }

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
func (m *market) cheapest(e *entry, gpuType string) []*run {
	if !m.anyStops(e, gpuType) {
		return nil
	}
	if sh := e.lane.shape; m.byOrder(e) && sh.PerNode == sh.Least { // nodes on which nobody may be stopped are no use
		best := offer{}
		m.latestFirst()
		for _, on := range m.nodes {
			if best.right == rightOrder && !on.shrinks && on.latest < best.worth {
				continue // what it offers is worth less
			}
			free, alive := m.x.fleet.RoomOn(on.id, gpuType)
			if free+on.gpus < sh.Least {
				continue
			}
			m.better(&best, m.offerAt(e, on.id, on.jobs, gpuType, free, alive), sh.Least)
		}
		return slices.Clone(best.victims)
	}
	return m.together(e, gpuType)
}

// latestFirst puts the node first of which most is to be expected, so that few
// others need be looked at.
func (m *market) latestFirst() {
	first := 0
	for i, on := range m.nodes {
		if on.latest > m.nodes[first].latest {
			first = i
		}
	}
	m.nodes[0], m.nodes[first] = m.nodes[first], m.nodes[0]
}

// better takes an offer that has room for a whole job if it is the best so far.
// It reports whether an offer has room for a whole job.
func (m *market) better(best *offer, o offer, need int32) bool {
	if o.gpus < need || len(o.victims) == 0 {
		return o.gpus >= need
	}
	if best.gpus == 0 || o.before(best) {
		m.best = append(m.best[:0], o.victims...)
		*best, best.victims = o, m.best
	}
	return true
}

// together is cheapest for a job that may be on several nodes.
func (m *market) together(e *entry, gpuType string) []*run {
	need := e.lane.shape.Least
	if m.byOrder(e) && m.mostFrom(gpuType, e.lane.shape.PerNode) < need {
		return nil
	}
	best := offer{}
	var offers []offer
	m.x.fleet.EachNode(gpuType, func(n *cluster.Node, free, alive int32) bool {
		o := m.offerAt(e, n.ID, m.holders(n.ID), gpuType, free, alive)
		if m.better(&best, o, need) || best.gpus > 0 || o.gpus == 0 {
			return true
		}
		o.victims = slices.Clone(o.victims)
		offers = append(offers, o)
		return true
	})
	if best.gpus > 0 {
		return slices.Clone(best.victims)
	}
	return gather(offers, need)
}

// mostFrom is how many GPUs a gang could have at most, with so many on each of its nodes (0: as it comes), if all
// were stopped whom the last search has found.
func (m *market) mostFrom(gpuType string, perNode int32) int32 {
	f := m.x.fleet
	if perNode == 0 {
		most := int32(f.Type(gpuType).Free) //nolint:gosec // at most MaxGPUs
		for _, on := range m.nodes {
			most += on.gpus
		}
		return most
	}
	nodes := f.NodesWith(gpuType, perNode)
	for _, on := range m.nodes {
		if free, _ := f.RoomOn(on.id, gpuType); free < perNode && free+on.gpus >= perNode {
			nodes++
		}
	}
	return nodes * perNode
}

// anyStops reports whether anybody may be stopped at all for a claimer. If it is
// by the order alone, they are few, and listed with their nodes.
func (m *market) anyStops(e *entry, gpuType string) bool {
	if m.noneLater(e) {
		return false
	}
	if m.byOrder(e) {
		m.listStops(e, gpuType)
		return len(m.nodes) > 0
	}
	m.list()
	m.x.searches++
	for _, g := range m.x.running {
		for _, c := range g.roster.all {
			if c.gpuType == gpuType && m.rightOf(e, c) != rightNone {
				return true
			}
		}
	}
	return false
}

// list finds out who holds GPUs where, and what stopping each loses.
func (m *market) list() {
	if m.listed {
		return
	}
	m.listed, m.nodes = true, m.nodes[:0]
	m.x.lists++
	for _, g := range m.x.running {
		for _, c := range g.roster.all {
			m.setPrice(c)
			m.noteNodes(c)
		}
	}
}

// listStops finds whom a claimer may stop by the order alone, and where they are.
// What stopping each loses matters only where all of them would make room.
func (m *market) listStops(e *entry, gpuType string) {
	x, bar := m.x, m.barOf(e)
	m.nodes, m.listed = m.nodes[:0], false
	x.searches++
	x.lists++
	for _, g := range x.running {
		of := &g.roster
		if !of.some || of.worst.key+g.offset <= bar.key || of.worst.level*levelParts < bar.parts {
			continue
		}
		for _, c := range of.all {
			if int64(c.parts) < bar.parts || c.key+g.offset <= bar.key || c.gone || c.priority != e.lane.priority || c.gpuType != gpuType {
				continue
			}
			if c.search, c.by = x.searches, rightOrder; c.shrink {
				c.by = rightShrink
			}
			m.noteNodes(c)
		}
	}
}

// noteNodes puts a candidate under its nodes.
func (m *market) noteNodes(c *run) {
	var on *onNode
	for i := range c.job.Workers {
		w := &c.job.Workers[i]
		if on == nil || on.id != w.Node {
			if on = c.on; i > 0 || on == nil || on.id != w.Node {
				on = m.nodeOf(w.Node)
			}
			if i == 0 {
				c.on = on
			}
			if m.note(on); len(on.jobs) == 0 || on.jobs[len(on.jobs)-1] != c {
				on.jobs = append(on.jobs, c)
				on.latest, on.shrinks = max(on.latest, c.key), on.shrinks || c.shrink
			}
		}
		on.gpus += int32(len(w.GPUs)) //nolint:gosec // at most MaxNodeGPUs
	}
}

// nodeOf is what markets note of a node.
func (m *market) nodeOf(id cluster.NodeID) *onNode {
	x := m.x
	on := x.marketNodes[id]
	if on == nil {
		if x.marketNodes == nil {
			x.marketNodes = map[cluster.NodeID]*onNode{}
		}
		on = &onNode{id: id}
		x.marketNodes[id] = on
	}
	return on
}

// note takes a node into the list, if it is not there yet.
func (m *market) note(on *onNode) {
	if on.list != m.x.lists {
		*on = onNode{id: on.id, list: m.x.lists, jobs: on.jobs[:0], latest: math.MinInt64}
		m.nodes = append(m.nodes, on)
	}
}

// holders are the candidates that hold GPUs of a node, as far as they were listed last.
func (m *market) holders(id cluster.NodeID) []*run {
	if on := m.x.marketNodes[id]; on != nil && on.list == m.x.lists {
		return on.jobs
	}
	return nil
}

// rightOf is mayStop, remembered for one search: nothing that it depends on
// changes meanwhile.
func (m *market) rightOf(e *entry, c *run) right {
	if c.search != m.x.searches {
		c.search, c.by = m.x.searches, m.mayStop(e, c)
	}
	return c.by
}

// byOrder reports whether a claimer could stop others by the order alone.
func (m *market) byOrder(e *entry) bool {
	x := m.x
	return !m.moving && !x.hasQuota && !x.tree.HasLimits() && m.lowest >= e.lane.priority && x.policy.Order == cluster.OrderGangline
}

// gather joins offers of several nodes until they suffice.
func gather(offers []offer, need int32) []*run {
	slices.SortFunc(offers, func(a, b offer) int {
		if a.gpus != b.gpus {
			return cmp.Compare(b.gpus, a.gpus)
		}
		return -compareBool(a.before(&b), b.before(&a))
	})
	seen := map[cluster.JobID]bool{}
	var set []*run
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

// offerAt is what a node can give to a claimer on which so many GPUs are free and
// so many healthy, and these jobs hold some.
func (m *market) offerAt(e *entry, id cluster.NodeID, held []*run, gpuType string, free, alive int32) offer {
	sh := e.lane.shape
	want := min(alive, sh.Least)
	if sh.PerNode > 0 {
		want = sh.PerNode
	}
	if alive < want || len(held) == 0 && free == 0 || m.x.keptFromAny(id, e.job) {
		return offer{}
	}
	m.victims = m.victims[:0]
	sum := free
	for _, c := range held {
		if free >= want {
			break // nobody need be stopped here
		}
		if c.gpuType == gpuType && m.rightOf(e, c) != rightNone {
			m.victims = append(m.victims, c)
			sum += gpusOn(c.job, id)
		}
	}
	if sh.PerNode > 0 && sum < want {
		return offer{}
	}
	if !m.listed { // see listStops
		for _, c := range m.victims {
			m.setPrice(c)
		}
	}
	return m.offerOf(e, id, free, want)
}

// offerOf takes the victims of one node, the least disruptive first, until it has
// as many GPUs as the gang could use there, and spares those that turn out not
// to be needed. Its victims are valid until the next call.
func (m *market) offerOf(e *entry, id cluster.NodeID, free, want int32) offer {
	if len(m.victims) > 1 {
		slices.SortFunc(m.victims, func(a, b *run) int {
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
	for i := used - 1; i >= 0; i-- { // the last ones are the most disruptive
		if here := gpusOn(m.victims[i].job, id); sum-here >= want {
			sum -= here
			m.victims = slices.Delete(m.victims, i, i+1)
		}
	}
	o := offer{node: id, gpus: min(sum, want), victims: m.victims}
	for i, c := range m.victims {
		o.right, o.cost = max(o.right, c.by), o.cost+c.lost
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
