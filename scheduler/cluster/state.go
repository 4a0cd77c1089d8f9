package cluster

import (
	"github.com/tidwall/btree"
)

// Version is the newest encoding of commands and state that this release
// knows. A server proposes only what the cluster's version allows.
const Version uint32 = 9

// State is everything that the servers agree on. The zero State is empty and
// ready. One goroutine owns a State and calls Apply and Snapshot; the
// snapshots it hands out may be read by any number of goroutines.
type State struct {
	clusterID string
	version   uint32
	index     uint64
	now       Time
	nextJob   JobID
	finishSeq uint64
	reqSeq    uint64

	jobs      table[Job]
	nodes     btree.Map[NodeID, *Node]
	requests  table[Request]              // by Seq
	accounts  btree.Map[string, *Account] // by accountKey
	histories btree.Map[string, *History] // by kin.keys
	moves     []Time                      // when jobs were last asked to move elsewhere, the latest hour
	policy    *Policy                     // nil: DefaultPolicy
	policyAt  uint64                      // index of the command that set it

	experience Experience // of all nodes

	// Derived from the above by putJob, putNode and putRequest; never encoded.
	pending   jobSet
	holding   jobSet
	finished  table[Job] // by FinishSeq
	names     btree.Map[string, NodeID]
	gpus      btree.Map[string, NodeID] // by UUID
	kinds     btree.Map[string, *kind]  // of nodes, by kindKey
	arrays    btree.Map[JobID, tally]   // by their first jobs; of an array with forgotten members, what of them counts is encoded
	follows   btree.Map[string, JobID]  // Pending jobs that wait for others, by followKey
	due       []target                  // ended by the command that is being applied, empty between commands
	places    map[string][]Label        // what the policy says of where nodes are, by name; made anew with each policy
	counts    [8]int                    // jobs by state
	journal   journal
	still     bool // see Still
	crossings crossings

	// What this State alone may use: a snapshot begins without it.
	own    *owner          // of what it has made since its last Snapshot; nil: nothing yet
	kins   map[string]*kin // by the keys of their narrowest degrees
	kinKey []byte          // scratch
	told   []told          // scratch of applyReport
	gang   gang            // scratch of checkPlacement

	changes     changeRoom
	byRequest   *requestIndex // the requests by their ids, found sooner; nil: to be looked for
	requestRoom []Request
	jobRoom     []Job
	lessons     lessons
	outlooks    outlooks
	sound       soundSpecs // until the policy or a node is replaced
	lastKin     lastKin
	byID        map[NodeID]*Node // the nodes again, found sooner; nil: to be looked for in the tree
	last        *Node            // that was found in byID
}

// Snapshot returns an immutable view of the state, in O(1). Only the owner may
// call it. Calling Apply on a snapshot forks it: the original does not change.
func (s *State) Snapshot() *State {
	c := *s
	s.own, c.own = nil, nil
	c.kins, c.kinKey, c.lastKin, c.told, c.gang, c.crossings, c.byID, c.last = nil, nil, lastKin{}, nil, gang{}, crossings{}, nil, nil
	c.changes, c.byRequest, c.requestRoom, c.jobRoom, c.lessons, c.outlooks, c.sound = changeRoom{}, nil, nil, nil, lessons{}, outlooks{}, soundSpecs{}
	c.nodes = *s.nodes.Copy()
	c.accounts = *s.accounts.Copy()
	c.journal = s.journal.fork()
	c.names = *s.names.Copy()
	c.gpus = *s.gpus.Copy()
	c.histories = *s.histories.Copy()
	c.kinds = *s.kinds.Copy()
	c.arrays = *s.arrays.Copy()
	c.follows = *s.follows.Copy()
	return &c
}

// ClusterID is the cluster's identity, or "" before Init.
func (s *State) ClusterID() string { return s.clusterID }

// Version is the cluster's version, or 0 before Init.
func (s *State) Version() uint32 { return s.version }

// Index is the log index of the last applied command.
func (s *State) Index() uint64 { return s.index }

// Now is the state's clock: the latest stamp seen. It never goes back.
func (s *State) Now() Time { return s.now }

// Job returns a job, or nil.
func (s *State) Job(id JobID) *Job {
	return s.jobs.get(uint64(id))
}

// Node returns a node, or nil.
func (s *State) Node(id NodeID) *Node {
	if s.byID != nil { // else it is a snapshot: many may read it
		if s.last == nil || s.last.ID != id { // often several things are asked of one node in turn
			s.last = s.byID[id]
		}
		return s.last
	}
	n, _ := s.nodes.Get(id)
	return n
}

// NodeByName returns a node, or nil.
func (s *State) NodeByName(name string) *Node {
	id, ok := s.names.Get(name)
	if !ok {
		return nil
	}
	return s.Node(id)
}

// Policy is the policy in force. It is never nil, and not to be edited.
func (s *State) Policy() *Policy {
	if s.policy == nil {
		return defaultPolicy
	}
	return s.policy
}

// defaultPolicy is shared: a Policy is never edited.
var defaultPolicy = DefaultPolicy() //nolint:gochecknoglobals // a constant, but for its type

// PolicyIndex is the log index at which the policy was set, or 0 if it never was.
func (s *State) PolicyIndex() uint64 { return s.policyAt }

// Count returns how many jobs are in a state.
func (s *State) Count(st JobState) int { return s.counts[st] }

// Jobs returns how many jobs the state holds.
func (s *State) Jobs() int { return s.jobs.count }

// Nodes returns how many nodes the state holds.
func (s *State) Nodes() int { return s.nodes.Len() }

// EachJob calls f for all jobs by id until f returns false.
func (s *State) EachJob(f func(*Job) bool) {
	s.jobs.scan(f)
}

// EachJobBefore calls f for jobs with ids below before, newest first, until f
// returns false. With before 0 it begins at the newest job.
func (s *State) EachJobBefore(before JobID, f func(*Job) bool) {
	s.jobs.scanDown(uint64(before)-1, f) // 0 is before all that there can be
}

// EachPending calls f for all Pending jobs by id until f returns false.
func (s *State) EachPending(f func(*Job) bool) {
	s.pending.scan(&s.jobs, f)
}

// EachHolding calls f for all jobs that hold GPUs by id until f returns false.
func (s *State) EachHolding(f func(*Job) bool) {
	s.holding.scan(&s.jobs, f)
}

// EachFinished calls f for all final jobs, the longest finished first, until f
// returns false.
func (s *State) EachFinished(f func(*Job) bool) {
	s.finished.scan(f)
}

// EachNode calls f for all nodes by id until f returns false.
func (s *State) EachNode(f func(*Node) bool) {
	s.nodes.Scan(func(_ NodeID, n *Node) bool { return f(n) })
}

// putJob stores a new version of a job and keeps the derived maps in step.
func (s *State) putJob(j *Job) {
	l, k := s.jobs.ownLeaf(s.mine(), uint64(j.ID)), j.ID%tableFan
	old, mine := l.items[k], l.mine>>k&1 != 0
	mine = mine || old == nil || len(j.Workers) == 0 || len(old.Workers) == 0 || &j.Workers[0] != &old.Workers[0]
	s.jobs.setIn(l, uint64(j.ID), j, mine)
	s.store(s.was(old), j)
}

// amend returns an unfinished job to be edited, in what the derived maps do not
// go by: the job itself, if nobody else sees it, else a copy in its place.
func (s *State) amend(old *Job) *Job {
	s.touch(Change{Job: old.ID, Minor: true})
	if _, mine := s.jobs.edit(s.mine(), uint64(old.ID)); mine {
		return old
	}
	return s.replace(old)
}

// replace puts a copy of an unfinished job in its place, which amend may edit.
func (s *State) replace(old *Job) *Job {
	j := *old
	s.jobs.set(s.mine(), uint64(old.ID), &j, len(j.Workers) == 0) // else its workers are still seen by others
	return &j
}

// was is what of a job's last version the derived maps go by, so that it may be
// edited.
type was struct {
	job      *Job // itself: an edited one is still where it was; nil: there was none
	state    JobState
	unmet    uint32
	crossing Time // see Job.crossing, if crossings are known
}

// was takes note of a job's version before the next one; nil: there is none.
func (s *State) was(j *Job) was {
	if j == nil {
		return was{}
	}
	w := was{job: j, state: j.State, unmet: j.Unmet}
	if s.crossings.known {
		w.crossing = j.crossing()
	}
	return w
}

// store keeps the derived maps in step with a job's new version.
func (s *State) store(old was, j *Job) {
	s.touch(Change{Job: j.ID})
	if s.crossings.known {
		s.trackCrossing(old.crossing, j)
	}
	if j.Array != 0 {
		s.count(old, j)
	}
	if old.unmet != j.Unmet {
		s.trackFollows(old.unmet, j)
	}
	own := s.mine()
	if old.job != nil {
		if j.State.Final() && !old.state.Final() {
			s.ended(j)
		}
		s.counts[old.state]--
		if old.state.Holding() && !j.State.Holding() {
			s.holding.drop(own, j.ID)
		}
		if old.state == Pending && j.State != Pending {
			s.pending.drop(own, j.ID)
		}
	}
	s.counts[j.State]++
	switch {
	case j.State == Pending:
		s.pending.add(own, j.ID)
	case j.State.Holding():
		if !old.state.Holding() {
			s.holding.add(own, j.ID)
		}
	default:
		s.finished.set(own, j.FinishSeq, j, false)
	}
}

func (s *State) dropJob(j *Job) {
	own := s.mine()
	s.jobs.drop(own, uint64(j.ID))
	s.touch(Change{Job: j.ID})
	s.finished.drop(own, j.FinishSeq)
	s.uncount(j)
	s.counts[j.State]--
}

// putHeld stores what ownNode gave: all but who holds its GPUs is as it was.
func (s *State) putHeld(n *Node) {
	s.touch(Change{Node: n.ID, Minor: true})
	if s.last != n && (s.byID == nil || s.Node(n.ID) != n) {
		s.setNode(n)
	}
}

// setNode stores a version of a node and returns the one before it.
func (s *State) setNode(n *Node) (old *Node, had bool) {
	old, had = s.nodes.Set(n.ID, n)
	if s.byID == nil && !had && s.nodes.Len() == 1 {
		s.byID = map[NodeID]*Node{} // a fork does without: to make it takes longer than most of them live
	}
	if s.byID != nil {
		s.byID[n.ID], s.last = n, nil
	}
	return old, had
}

// putNode stores a new version of a node and keeps the derived maps in step.
func (s *State) putNode(n *Node) {
	s.touch(Change{Node: n.ID})
	s.sound = soundSpecs{}
	old, had := s.setNode(n)
	if had && old == n {
		return
	}
	if !had || old.Name != n.Name {
		if had {
			s.names.Delete(old.Name)
		}
		s.names.Set(n.Name, n.ID)
	}
	if had && sameKind(old, n) {
		return
	}
	if had {
		s.dropGPUs(old)
		s.countKind(old, -1)
	}
	s.countKind(n, 1)
	for i := range n.GPUs {
		s.gpus.Set(n.GPUs[i].UUID, n.ID)
	}
}

func (s *State) dropNode(n *Node) {
	s.sound = soundSpecs{}
	s.nodes.Delete(n.ID)
	delete(s.byID, n.ID)
	s.last = nil
	s.touch(Change{Node: n.ID})
	s.names.Delete(n.Name)
	s.dropGPUs(n)
	s.countKind(n, -1)
}

func (s *State) dropGPUs(n *Node) {
	for i := range n.GPUs {
		s.gpus.Delete(n.GPUs[i].UUID)
	}
}
