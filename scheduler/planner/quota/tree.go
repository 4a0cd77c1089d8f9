package quota

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Tree is the tree of queues of one policy, with what each queue and user
// holds. One goroutine owns a Tree; every method may change it or its caches.
// A new policy needs a new Tree.
type Tree struct {
	policy *cluster.Policy
	root   *Queue // above the top queues; without quota, limit or name
	byPath map[string]*Queue
	queues []*Queue // by ID
	ids    map[string]int
	types  []gpuType // by id
	last   int       // id of the type that was asked for last
	lastQ  *Queue    // likewise
	clock  clock

	changes uint64                         // of what Factor depends on
	asked   struct{ now, at cluster.Time } // the time that Stamp was asked for last, and its moment

	fair     bool // the policy orders jobs by fair share, too
	promises bool // some queue has a quota
	limited  bool // some queue has a limit, of its own or of one user
}

// gpuType is what the tree knows of a type of GPU.
type gpuType struct {
	name     string
	weight   int64 // in fair share, thousandths
	capacity int64 // milli-GPUs alive
}

// Queue is one queue of a tree. Its exported fields never change.
type Queue struct {
	Path string
	ID   int // dense, from 0, in order of making: an index for tables, not an order

	parent   *Queue // nil only at the root
	children []*Queue
	depth    int
	known    bool
	weight   int64 // thousandths
	quota    promise
	names    bool    // the quota is its own, not what its children have
	rest     []int64 // of its own quota, by type or one for all, as EachAffected last saw it

	limit bounds
	user  int64 // limit of one user, milli-GPUs; 0: none

	all     counts            // held here and below
	own     counts            // held here, not below
	users   map[string]*usage // who waits, holds or has used through this very queue
	below   map[string]int64  // milli-GPUs held here and below by user; only with a user limit
	shares  shares
	last    *usage // of lastBy; nil: nobody was asked for yet, or is gone
	lastBy  string
	above   estimate // see aboutAbove
	stamp   Stamp    // for which that was computed
	parts   roughly  // what parted is worth
	partsAt Stamp    // likewise
}

// promise is a quota: of each type, or of any type.
type promise struct {
	ofAny bool
	total int64   // milli-GPUs, if of any type
	of    []int64 // milli-GPUs by type id, if not
}

// bounds are limits in milli-GPUs, -1 where there is none.
type bounds struct {
	total int64
	of    []int64 // by type id; shorter: no limit
}

// New returns the tree of a policy with nothing held.
func New(p *cluster.Policy) *Tree {
	t := &Tree{policy: p, byPath: make(map[string]*Queue, len(p.Queues)), ids: map[string]int{}, clock: newClock(p)}
	t.fair = p.Order == cluster.OrderGangline && p.Setback > 0
	t.root = &Queue{ID: -1, limit: bounds{total: -1}, users: map[string]*usage{}}
	for i := range p.Queues { // sorted by path: a parent comes before its children
		q := &p.Queues[i]
		parent := t.byPath[cluster.ParentQueue(q.Path)]
		if parent == nil {
			parent = t.root
		}
		n := t.add(q.Path, parent, q.Weight)
		n.known, n.user = true, q.UserLimit*cluster.WholeGPU
		if n.user > 0 {
			n.below = map[string]int64{}
		}
		n.limit = t.limits(q.Limit)
		t.limited = t.limited || len(q.Limit) > 0 || n.user > 0
		n.quota, n.names = t.promised(q.Quota), len(q.Quota) > 0
		if n.rest = slices.Clone(n.quota.of); n.quota.ofAny {
			n.rest = []int64{0}
		}
		n.restChanged()
	}
	for i := len(t.queues) - 1; i >= 0; i-- { // children before parents
		if q := t.queues[i]; len(p.Queues[i].Quota) == 0 {
			q.quota = promisedBelow(q)
		}
		quota, _ := t.Quota(t.queues[i], "")
		t.promises = t.promises || quota > 0
	}
	return t
}

func (t *Tree) add(path string, parent *Queue, weight int64) *Queue {
	q := &Queue{
		Path: path, ID: len(t.queues), parent: parent, depth: parent.depth + 1, weight: max(weight, 1),
		limit: bounds{total: -1}, users: map[string]*usage{},
	}
	parent.children = append(parent.children, q)
	t.queues = append(t.queues, q)
	t.byPath[path] = q
	return q
}

// limits converts limits of the policy.
func (t *Tree) limits(list []cluster.TypeCount) bounds {
	b := bounds{total: -1}
	for _, c := range list {
		if c.Type == "" {
			b.total = c.GPUs * cluster.WholeGPU
			continue
		}
		id := t.typeID(c.Type)
		for len(b.of) <= id {
			b.of = append(b.of, -1)
		}
		b.of[id] = c.GPUs * cluster.WholeGPU
	}
	return b
}

// promised converts a quota of the policy.
func (t *Tree) promised(list []cluster.TypeCount) promise {
	var p promise
	for _, c := range list {
		if c.Type == "" {
			p.ofAny, p.total = true, p.total+c.GPUs*cluster.WholeGPU
			continue
		}
		id := t.typeID(c.Type)
		p.of = grown(p.of, id)
		p.of[id] += c.GPUs * cluster.WholeGPU
	}
	return p.settled()
}

// promisedBelow is the quota of a queue that names none: what its children
// have. If one of them has a quota of any type, so has the queue.
func promisedBelow(q *Queue) promise {
	var p promise
	for _, child := range q.children {
		p.ofAny = p.ofAny || child.quota.ofAny
		p.total += child.quota.total
		for id, milli := range child.quota.of {
			p.of = grown(p.of, id)
			p.of[id] += milli
		}
	}
	return p.settled()
}

// settled makes a promise either of types or of any type.
func (p promise) settled() promise {
	if !p.ofAny {
		return p
	}
	for _, milli := range p.of {
		p.total += milli
	}
	p.of = nil
	return p
}

// Queue returns the queue of a path. One that the policy does not have (it has
// none, or the queue was deleted while jobs wait in it) is made on demand,
// below the nearest queue above it that the policy has, without quota or
// limit, of weight 1. The path is not checked.
func (t *Tree) Queue(path string) *Queue {
	if t.lastQ != nil && t.lastQ.Path == path {
		return t.lastQ
	}
	if q := t.byPath[path]; q != nil {
		t.lastQ = q
		return q
	}
	parent := t.root
	for up := cluster.ParentQueue(path); up != ""; up = cluster.ParentQueue(up) {
		if q := t.byPath[up]; q != nil && q.known {
			parent = q
			break
		}
	}
	return t.add(path, parent, 1000)
}

// Queues returns all queues by ID: those of the policy by path, then those
// made on demand. The result is not to be edited.
func (t *Tree) Queues() []*Queue { return t.queues }

// Known reports whether the policy has the queue.
func (q *Queue) Known() bool { return q.known }

// Parent returns the queue above, or nil at the top.
func (q *Queue) Parent() *Queue {
	if q.parent == nil || q.parent.parent == nil {
		return nil
	}
	return q.parent
}

// String returns the queue's path.
func (q *Queue) String() string { return q.Path }

// SetCapacity says how many GPUs of a type the cluster has alive.
func (t *Tree) SetCapacity(gpuType string, gpus int64) {
	t.types[t.typeID(gpuType)].capacity = gpus * cluster.WholeGPU
}

// Idle returns how many milli-GPUs of a type (empty: of all) are alive and not
// held. It is negative while jobs hold GPUs of lost nodes.
func (t *Tree) Idle(gpuType string) int64 {
	if gpuType != "" {
		id := t.typeID(gpuType)
		return t.types[id].capacity - t.root.all.at(id)
	}
	return t.Capacity() - t.root.all.total
}

// Capacity returns how many milli-GPUs of all types are alive.
func (t *Tree) Capacity() int64 {
	sum := int64(0)
	for i := range t.types {
		sum += t.types[i].capacity
	}
	return sum
}

// typeID returns the number of a type, and gives it one if it is new.
func (t *Tree) typeID(name string) int {
	if t.last < len(t.types) && t.types[t.last].name == name {
		return t.last // many questions in turn are about one type
	}
	if id, ok := t.ids[name]; ok {
		t.last = id
		return id
	}
	id := len(t.types)
	t.ids[name] = id
	t.types = append(t.types, gpuType{name: name, weight: t.policy.WeightOf(name)})
	return id
}

// grown returns a list with an element of this index.
func grown(list []int64, id int) []int64 {
	for len(list) <= id {
		list = append(list, 0)
	}
	return list
}
