package cluster

import (
	"errors"
	"fmt"
)

// Check returns every broken invariant of the state, joined, or nil. It runs
// after each command in tests and in the simulator.
//
//  1. A GPU is held by at most one job, and exactly by the workers of jobs that hold GPUs.
//  2. Gangs are whole: a holding job has all its workers, with as many GPUs as it asked for.
//  3. A node's reserved CPUs and memory are the sum of its holders'.
//  4. Every remembered request names an existing id below the next one.
//  5. The derived maps agree with the jobs and nodes; a GPU is of one node.
func (s *State) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	held := map[string]JobID{} // by UUID, from the jobs' side
	s.EachJob(func(j *Job) bool {
		if err := s.checkJob(j, held); err != nil {
			errs = append(errs, err)
		}
		return true
	})
	s.EachNode(func(n *Node) bool {
		if err := s.checkNode(n, held); err != nil {
			errs = append(errs, err)
		}
		return true
	})
	s.requests.Scan(func(id string, r *Request) bool {
		if r.Job == 0 || r.Job > s.nextJob {
			bad("request %q names job %d of %d", id, r.Job, s.nextJob)
		}
		if name, ok := s.reqOrder.Get(r.Seq); !ok || name != id {
			bad("request %q is not in order", id)
		}
		return true
	})
	errs = append(errs, s.checkDerived())
	return errors.Join(errs...)
}

func (s *State) checkJob(j *Job, held map[string]JobID) error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("job %d (%s, epoch %d): %s", j.ID, j.State, j.Epoch, fmt.Sprintf(format, args...)))
	}
	if j.ID == 0 || j.ID > s.nextJob {
		bad("id is not in 1..%d", s.nextJob)
	}
	if j.Reason == "" {
		bad("has no reason")
	}
	if !j.State.Holding() {
		return errors.Join(errs...)
	}
	gpus, ended := 0, 0
	for i := range j.Workers {
		w := &j.Workers[i]
		if int(w.Rank) != i {
			bad("worker %d has rank %d", i, w.Rank)
		}
		if w.State.Ended() {
			ended++
		}
		for _, uuid := range w.GPUs {
			if other, taken := held[uuid]; taken {
				bad("GPU %s is held by job %d too", uuid, other)
			}
			held[uuid] = j.ID
			gpus++
		}
	}
	if gpus != int(j.Spec.GPUs) || len(j.Workers) != j.Spec.WorldSize(len(j.NodeRanks)) {
		bad("gang of %d workers with %d GPUs is not whole: wants %d GPUs", len(j.Workers), gpus, j.Spec.GPUs)
	}
	if ended == len(j.Workers) {
		bad("all workers have ended but the epoch has not")
	}
	return errors.Join(errs...)
}

func (s *State) checkNode(n *Node, held map[string]JobID) error {
	var errs []error
	cpu, mem := int64(0), int64(0)
	for i := range n.GPUs {
		g := &n.GPUs[i]
		if held[g.UUID] != g.Job {
			errs = append(errs, fmt.Errorf("node %s: GPU %s says it is held by job %d, jobs say %d", n.Name, g.UUID, g.Job, held[g.UUID]))
		}
		if g.Job == 0 {
			continue
		}
		j := s.Job(g.Job)
		if j == nil || j.Epoch != g.Epoch {
			errs = append(errs, fmt.Errorf("node %s: GPU %s is held by epoch %d of job %d, which is not current", n.Name, g.UUID, g.Epoch, g.Job))
			continue
		}
		cpu += j.Spec.CPUPerGPU
		mem += j.Spec.MemPerGPU
	}
	if cpu != n.CPUUsed || mem != n.MemUsed {
		errs = append(errs, fmt.Errorf("node %s: reserves %d mCPU and %d bytes, holders sum to %d and %d", n.Name, n.CPUUsed, n.MemUsed, cpu, mem))
	}
	return errors.Join(errs...)
}

func (s *State) checkDerived() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var counts [8]int
	pending, holding, finished := 0, 0, 0
	s.EachJob(func(j *Job) bool {
		counts[j.State]++
		switch {
		case j.State == Pending:
			pending++
			if p, ok := s.pending.Get(j.ID); !ok || p != j {
				bad("job %d is not among the pending", j.ID)
			}
		case j.State.Holding():
			holding++
			if h, ok := s.holding.Get(j.ID); !ok || h != j {
				bad("job %d is not among the holding", j.ID)
			}
		default:
			finished++
			if id, ok := s.finished.Get(j.FinishSeq); !ok || id != j.ID {
				bad("job %d is not among the finished", j.ID)
			}
		}
		return true
	})
	if counts != s.counts || pending != s.pending.Len() || holding != s.holding.Len() || finished != s.finished.Len() {
		bad("counts %v, pending %d, holding %d, finished %d do not agree with the jobs", s.counts, s.pending.Len(), s.holding.Len(), s.finished.Len())
	}
	errs = append(errs, s.checkNodeMaps())
	if s.names.Len() != s.nodes.Len() || s.reqOrder.Len() != s.requests.Len() {
		bad("%d names for %d nodes, %d ordered of %d requests", s.names.Len(), s.nodes.Len(), s.reqOrder.Len(), s.requests.Len())
	}
	return errors.Join(errs...)
}

func (s *State) checkNodeMaps() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	gpus := 0
	s.EachNode(func(n *Node) bool {
		if s.NodeByName(n.Name) != n {
			bad("node %s is not known by its name", n.Name)
		}
		for i := range n.GPUs {
			if id, ok := s.gpus.Get(n.GPUs[i].UUID); !ok || id != n.ID {
				bad("GPU %s of node %s is known as node %q's", n.GPUs[i].UUID, n.ID, id)
			}
		}
		gpus += len(n.GPUs)
		return true
	})
	if gpus != s.gpus.Len() {
		bad("%d GPUs are known, nodes have %d", s.gpus.Len(), gpus)
	}
	return errors.Join(errs...)
}
