package replay

import (
	"cmp"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// strict is the anchors' scheduler in a few lines: in order, best fit on one node, or whole nodes and the rest on the
// roomiest node left; what does not fit blocks all behind it. It knows nothing of the planner, so that figures made with
// both check the replay and the planner against each other. Nothing that it starts ever comes back to the queue.
type strict struct {
	key   func(cluster.JobID) time.Duration
	queue []*cluster.Job
	seen  cluster.JobID
}

// shortestFirst makes one for runWith, by the exact lengths.
func shortestFirst(w *world) scheduler { return &strict{key: w.length} }

// firstFirst makes one by the order of submission.
func firstFirst(*world) scheduler {
	return &strict{key: func(cluster.JobID) time.Duration { return 0 }}
}

// Step implements scheduler.
func (s *strict) Step(st *cluster.State, _ cluster.Time) ([]cluster.Command, cluster.Time) {
	for j := st.Job(s.seen + 1); j != nil; j = st.Job(s.seen + 1) {
		s.seen++
		i, _ := slices.BinarySearchFunc(s.queue, j, func(a, b *cluster.Job) int {
			return cmp.Or(cmp.Compare(s.key(a.ID), s.key(b.ID)), cmp.Compare(a.ID, b.ID))
		})
		s.queue = slices.Insert(s.queue, i, j)
	}
	if len(s.queue) == 0 {
		return nil, 0
	}
	var free []room
	st.EachNode(func(n *cluster.Node) bool {
		r := room{node: n}
		for i := range n.GPUs {
			if n.Usable(i) {
				r.free++
			}
		}
		free = append(free, r)
		return true
	})
	var cmds []cluster.Command
	for len(s.queue) > 0 {
		j := s.queue[0]
		start := fit(free, j)
		if start == nil {
			break
		}
		s.queue = s.queue[1:]
		cmds = append(cmds, start)
	}
	return cmds, 0
}

// room is a node and how many of its GPUs are free: they are given out from the node's last one on.
type room struct {
	node *cluster.Node
	free int
	used int
}

// fit places a job as the anchors do, or returns nil.
func fit(rooms []room, j *cluster.Job) *cluster.StartJob {
	var taken []int
	size := int(j.Spec.GPUs)
	for left := size; left > 0; left -= min(left, 8) {
		want, best := min(left, 8), -1
		for i := range rooms {
			r := &rooms[i]
			switch {
			case r.free < want || slices.Contains(taken, i):
			case best < 0, size <= 8 && r.free < rooms[best].free, size > 8 && r.free > rooms[best].free:
				best = i
			}
		}
		if best < 0 {
			return nil
		}
		taken = append(taken, best)
	}
	start := &cluster.StartJob{Job: j.ID, Epoch: j.Epoch + 1}
	for rank, i := range taken {
		r := &rooms[i]
		p := cluster.Placement{Rank: cluster.Rank(rank), Node: r.node.ID}
		skip := r.used
		for g := range r.node.GPUs {
			if !r.node.Usable(g) || len(p.GPUs) == min(size, 8) {
				continue
			}
			if skip--; skip < 0 {
				p.GPUs = append(p.GPUs, r.node.GPUs[g].UUID)
			}
		}
		r.free, r.used, size = r.free-len(p.GPUs), r.used+len(p.GPUs), size-len(p.GPUs)
		start.Workers = append(start.Workers, p)
	}
	return start
}

// stepFunc is a scheduler that is one function.
type stepFunc func(*cluster.State, cluster.Time) ([]cluster.Command, cluster.Time)

// Step implements scheduler.
func (f stepFunc) Step(s *cluster.State, now cluster.Time) ([]cluster.Command, cluster.Time) {
	return f(s, now)
}
