package census

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// Options say what to count. The zero Options count all queues, and list
// neither users nor reasons.
type Options struct {
	Queue   string // only this queue and those below it; empty: all
	Users   int    // at most so many users of each queue are listed, those who used most first
	Reasons int    // at most so many reasons are listed, those of most jobs first
}

// Census is what Take counts.
type Census struct {
	Queues  []Queue  // parents before children, siblings by name
	Reasons []Reason // why jobs wait, those of most jobs first
	Others  Reason   // what more reasons there are, together; Jobs 0: none
}

// Queue is one queue with all that is below it.
type Queue struct {
	Path          string
	Policy        *cluster.QueuePolicy // nil: the policy does not name it
	Held          []Amount             // by type
	HeldMilli     int64                // milli-GPUs of all types
	BorrowedMilli int64                // of them beyond its quota; 0 if no queue of the policy has a quota
	Holding       int                  // jobs that hold GPUs
	Pending       int                  // jobs that wait
	PendingMilli  int64                // milli-GPUs that these would like to have
	Users         []User               // those who used most first
}

// Amount is how much of a GPU type is held.
type Amount struct {
	Type  string
	Milli int64 // milli-GPUs
}

// User is one user of a queue and of those below it.
type User struct {
	Name      string
	UsedMilli int64 // weighted milli-GPU-milliseconds, decayed: what counts in fair share
	HeldMilli int64 // milli-GPUs held now
}

// Take counts. Now is the time up to which use is counted; one that lies before
// the state's own counts as that.
func Take(st *cluster.State, now cluster.Time, opt Options) *Census {
	c := &counter{
		state: st, policy: st.Policy(), now: max(now, st.Now()), opt: opt,
		queues: map[string]*Queue{}, users: map[string]map[string]*User{},
	}
	c.tree = quota.New(c.policy)
	for i := range c.policy.Queues {
		c.queue(c.policy.Queues[i].Path)
	}
	st.EachHolding(func(j *cluster.Job) bool {
		c.holds(j)
		return true
	})
	r := reasons{opt: opt, byText: map[string]*Reason{}}
	st.EachPending(func(j *cluster.Job) bool {
		if c.inside(j.Spec.Queue) {
			c.waits(j)
			r.add(j)
		}
		return true
	})
	st.EachAccount(func(a *cluster.Account) bool {
		if used := a.UsedAt(c.now, c.policy); used > 0 {
			c.above(a.Queue, func(q *Queue) { c.user(q, a.User).UsedMilli += used })
		}
		return true
	})
	out := &Census{Queues: c.list()}
	out.Reasons, out.Others = r.list(st)
	return out
}

// counter is a census being taken.
type counter struct {
	state  *cluster.State
	policy *cluster.Policy
	tree   *quota.Tree
	now    cluster.Time
	opt    Options
	queues map[string]*Queue
	users  map[string]map[string]*User // by queue and name
}

// inside reports whether a queue is to be counted.
func (c *counter) inside(path string) bool {
	return c.opt.Queue == "" || path == c.opt.Queue || strings.HasPrefix(path, c.opt.Queue+"/")
}

// queue returns a queue, which exists from then on.
func (c *counter) queue(path string) *Queue {
	q := c.queues[path]
	if q == nil {
		q = &Queue{Path: path, Policy: c.policy.Queue(path)}
		c.queues[path] = q
	}
	return q
}

// above calls f for a queue and all above it.
func (c *counter) above(path string, f func(*Queue)) {
	for ; path != ""; path = cluster.ParentQueue(path) {
		f(c.queue(path))
	}
}

func (c *counter) user(q *Queue, name string) *User {
	users := c.users[q.Path]
	if users == nil {
		users = map[string]*User{}
		c.users[q.Path] = users
	}
	u := users[name]
	if u == nil {
		u = &User{Name: name}
		users[name] = u
	}
	return u
}

// holds counts a job that holds GPUs. What others hold matters too: quota is
// borrowed from them.
func (c *counter) holds(j *cluster.Job) {
	milli := int64(j.Held()) * int64(j.Spec.Share())
	gpuType := c.typeOf(j)
	c.tree.Take(c.tree.Queue(j.Spec.Queue), j.User, gpuType, milli)
	c.above(j.Spec.Queue, func(q *Queue) {
		q.Holding++
		q.HeldMilli += milli
		c.user(q, j.User).HeldMilli += milli
		i, ok := slices.BinarySearchFunc(q.Held, gpuType, func(a Amount, t string) int { return cmp.Compare(a.Type, t) })
		if !ok {
			q.Held = slices.Insert(q.Held, i, Amount{Type: gpuType})
		}
		q.Held[i].Milli += milli
	})
}

// typeOf is the type of a holding job's GPUs: a gang is of one type.
func (c *counter) typeOf(j *cluster.Job) string {
	if t := c.state.HeldType(j); t != "" {
		return t
	}
	return "unknown" // its node came back without this GPU
}

func (c *counter) waits(j *cluster.Job) {
	milli := wanted(j)
	c.above(j.Spec.Queue, func(q *Queue) {
		q.Pending++
		q.PendingMilli += milli
	})
}

// wanted is how many milli-GPUs a job would like to have.
func wanted(j *cluster.Job) int64 { return int64(j.Spec.GPUs) * int64(j.Spec.Share()) }

// list returns the queues that were asked for, in order.
func (c *counter) list() []Queue {
	lends := slices.ContainsFunc(c.policy.Queues, func(q cluster.QueuePolicy) bool { return len(q.Quota) > 0 })
	var out []Queue
	for path, q := range c.queues {
		if !c.inside(path) {
			continue
		}
		if lends {
			q.BorrowedMilli = c.borrowed(q)
		}
		for _, u := range c.users[path] {
			q.Users = append(q.Users, *u)
		}
		slices.SortFunc(q.Users, func(a, b User) int {
			return cmp.Or(cmp.Compare(b.UsedMilli, a.UsedMilli), cmp.Compare(b.HeldMilli, a.HeldMilli), cmp.Compare(a.Name, b.Name))
		})
		q.Users = q.Users[:min(len(q.Users), max(c.opt.Users, 0))]
		out = append(out, *q)
	}
	slices.SortFunc(out, func(a, b Queue) int { return slices.Compare(strings.Split(a.Path, "/"), strings.Split(b.Path, "/")) })
	return out
}

// borrowed is what a queue holds beyond its quota, of all types together.
func (c *counter) borrowed(q *Queue) int64 {
	node := c.tree.Queue(q.Path)
	if quota, ofAny := c.tree.Quota(node, ""); ofAny {
		return max(c.tree.Used(node, "")-quota, 0)
	}
	sum := int64(0)
	for _, held := range q.Held {
		sum += c.tree.Borrowed(node, held.Type)
	}
	return sum
}
