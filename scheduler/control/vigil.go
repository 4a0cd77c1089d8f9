package control

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// vigil knows which jobs and nodes time alone will make the leader act on: jobs
// with a time limit or that have not come up yet, nodes that are lost or are to
// be empty by a time. It follows the state by what has changed, so that a look
// at all of them costs what is due.
type vigil struct {
	cursor    cluster.Cursor
	deadlines cluster.DueHeap  // what was so once; what is not any more is passed over
	nodes     []cluster.NodeID // sorted
	late      []cluster.Due    // scratch
}

// deadlineOf is when a job is to be stopped if nothing changes, or 0.
func deadlineOf(j *cluster.Job, cfg *Config) (at cluster.Time) {
	if (j.State == cluster.Starting || j.State == cluster.Running) && j.Spec.TimeLimit > 0 {
		at = j.StartedAt.Add(j.Spec.TimeLimit)
	}
	if j.State == cluster.Starting {
		at = sooner(at, j.StartedAt.Add(cfg.LaunchTimeout))
	}
	return at
}

// follow brings the vigil up to the state.
func (v *vigil) follow(s *cluster.State, cfg *Config) {
	changes, known := s.ChangesSince(v.cursor)
	v.cursor = s.Cursor()
	holding := s.Count(cluster.Starting) + s.Count(cluster.Running) + s.Count(cluster.Stopping)
	if !known || len(v.deadlines) > 4*holding+1024 {
		v.rebuild(s, cfg)
		return
	}
	last := cluster.JobID(0)
	for i := range changes {
		switch c := &changes[i]; {
		case c.Minor: // nothing that it goes by
		case c.Job != 0:
			if c.Job == last {
				continue // as it is now it has been seen
			}
			last = c.Job
			if j := s.Job(c.Job); j != nil {
				v.watchJob(j, cfg)
			}
		case c.Node != "":
			v.watchNode(s.Node(c.Node), c.Node)
		}
	}
}

func (v *vigil) rebuild(s *cluster.State, cfg *Config) {
	v.deadlines, v.nodes = v.deadlines[:0], v.nodes[:0]
	s.EachHolding(func(j *cluster.Job) bool {
		v.watchJob(j, cfg)
		return true
	})
	s.EachNode(func(n *cluster.Node) bool {
		v.watchNode(n, n.ID)
		return true
	})
}

func (v *vigil) watchJob(j *cluster.Job, cfg *Config) {
	if at := deadlineOf(j, cfg); at != 0 {
		v.deadlines.Push(cluster.Due{At: at, Job: j.ID})
	}
}

func (v *vigil) watchNode(n *cluster.Node, id cluster.NodeID) {
	wanted := n != nil && (n.State == cluster.NodeLost || (n.Drain != nil && n.Drain.Deadline != 0))
	if !wanted && len(v.nodes) == 0 {
		return
	}
	i, had := slices.BinarySearch(v.nodes, id)
	switch {
	case wanted && !had:
		v.nodes = slices.Insert(v.nodes, i, id)
	case had && !wanted:
		v.nodes = slices.Delete(v.nodes, i, i+1)
	}
}

// soonest is when the next job will have outlived its time limit, or not have
// come up in time; 0: none.
func (v *vigil) soonest(s *cluster.State, cfg *Config) cluster.Time {
	for len(v.deadlines) > 0 {
		d := v.deadlines[0]
		if j := s.Job(d.Job); j != nil && deadlineOf(j, cfg) == d.At {
			return d.At
		}
		v.deadlines.Pop()
	}
	return 0
}

// evictOverdue stops jobs that have outlived their time limit, or never came
// up, and says when the next one will have.
func (v *vigil) evictOverdue(s *cluster.State, now cluster.Time, cfg *Config) (cmds []cluster.Command, next cluster.Time) {
	late := v.late[:0]
	for {
		at := v.soonest(s, cfg)
		next = sooner(next, at)
		if at == 0 || at > now {
			break
		}
		late = append(late, v.deadlines[0])
		v.deadlines.Pop()
	}
	v.late = late
	if len(late) == 0 {
		return nil, next
	}
	slices.SortFunc(late, func(a, b cluster.Due) int { return cmp.Compare(a.Job, b.Job) })
	late = slices.Compact(late)
	for _, d := range late {
		v.deadlines.Push(d) // until the state shows that it stops
		cmds = append(cmds, evictLate(s.Job(d.Job), now, cfg))
	}
	return cmds, next
}

// evictLate stops a job whose deadline has passed.
func evictLate(j *cluster.Job, now cluster.Time, cfg *Config) cluster.Command {
	if j.Spec.TimeLimit > 0 && now.Sub(j.StartedAt) >= j.Spec.TimeLimit {
		return &cluster.EvictJob{
			Job: j.ID, Epoch: j.Epoch, Cause: cluster.StopTimeLimit,
			Reason: fmt.Sprintf("reached its time limit of %s", j.Spec.TimeLimit),
		}
	}
	return &cluster.EvictJob{
		Job: j.ID, Epoch: j.Epoch, Cause: cluster.StopLaunchStuck,
		Reason: fmt.Sprintf("not all workers had started after %s", cfg.LaunchTimeout),
	}
}

// tendNodes forgets nodes that were lost long ago, and moves jobs away from
// drained ones whose deadline has come, but for those in overdue, which are
// stopped already: the state would refuse the second stop.
func (v *vigil) tendNodes(s *cluster.State, now cluster.Time, cfg *Config, overdue []cluster.Command) (cmds []cluster.Command, next cluster.Time) {
	if len(v.nodes) == 0 {
		return nil, 0
	}
	moved := stoppedBy(overdue)
	for _, id := range v.nodes {
		n := s.Node(id)
		if n.State == cluster.NodeLost && !n.Holds() {
			at := n.ChangedAt.Add(cfg.ForgetLostNodes)
			if next = sooner(next, at); now >= at {
				cmds = append(cmds, &cluster.ForgetNode{Node: n.ID})
			}
		}
		if n.Drain == nil || n.Drain.Deadline == 0 || !n.Holds() {
			continue
		}
		if next = sooner(next, n.Drain.Deadline); now < n.Drain.Deadline {
			continue
		}
		for i := range n.GPUs {
			n.GPUs[i].EachHolder(func(id cluster.JobID, e cluster.Epoch) {
				if j := s.Job(id); !moved[id] && (j.State == cluster.Starting || j.State == cluster.Running) {
					moved[id] = true
					cmds = append(cmds, &cluster.EvictJob{
						Job: id, Epoch: e, Cause: cluster.StopDrain,
						Reason: fmt.Sprintf("node %s is drained (%s) and its deadline has come", n.Name, n.Drain.Reason),
					})
				}
			})
		}
	}
	return cmds, next
}
