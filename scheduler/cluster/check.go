package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Check returns every broken invariant of the state, joined, or nil. It runs
// after each command in tests and in the simulator.
//
//  1. A GPU is given out once at most, whole or in shares, and exactly by the workers of jobs that hold GPUs.
//  2. Gangs are whole: a holding job has all its workers, with as many GPUs as it asked for (an elastic one within its range).
//  3. A node's reserved CPUs and memory are the sum of its holders'.
//  4. Every remembered request names an existing id below the next one.
//  5. An account is charged what its jobs hold.
//  6. The derived maps agree with the jobs and nodes; a GPU is of one node.
//  7. Who waits for other jobs is Pending, and what it waits for is there and undecided.
func (s *State) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	held := map[string][]Share{} // by UUID, from the jobs' side
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
	s.requests.scan(func(r *Request) bool {
		if r.Job == 0 || r.Job > s.nextJob {
			bad("request %q names job %d of %d", r.ID, r.Job, s.nextJob)
		}
		if s.byRequest != nil && s.byRequest.get(r.ID) != r {
			bad("request %q is not found by its id", r.ID)
		}
		return true
	})
	errs = append(errs, s.checkDerived(), s.checkAccounts(), s.checkFollows())
	return errors.Join(errs...)
}

func (s *State) checkJob(j *Job, held map[string][]Share) error {
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
	gpus, ended, replaced := 0, 0, 0
	for i := range j.Workers {
		w := &j.Workers[i]
		if int(w.Rank) != i {
			bad("worker %d has rank %d", i, w.Rank)
		}
		if w.State.Ended() {
			ended++
		}
		if len(w.GPUs) == 0 {
			replaced++
		}
		if len(w.GPUs) == 0 && !w.Left || w.Left && j.Spec.OnFailure != FailureShrinks || w.Joined > j.Formation() {
			bad("rank %d has %d GPUs, left: %v, joined formation %d of %d", w.Rank, len(w.GPUs), w.Left, w.Joined, j.Formation())
		}
		for _, uuid := range w.GPUs {
			milli := j.Spec.Share()
			for _, h := range held[uuid] {
				milli += h.Milli
			}
			if milli > WholeGPU {
				bad("GPU %s is given out %d thousandths: %v hold it too", uuid, milli, held[uuid])
			}
			held[uuid] = append(held[uuid], Share{Job: j.ID, Epoch: j.Epoch, Milli: j.Spec.Share()})
			gpus++
		}
	}
	if gpus < int(j.Spec.Least()) || gpus > int(j.Spec.GPUs) || len(j.Workers)-replaced != j.Spec.worldSize(len(j.NodeRanks), gpus) {
		bad("gang of %d workers with %d GPUs is not whole: wants %s", len(j.Workers), gpus, j.Spec.Wants())
	}
	if ended == len(j.Workers) {
		bad("all workers have ended but the epoch has not")
	}
	return errors.Join(errs...)
}

func (s *State) checkNode(n *Node, held map[string][]Share) error {
	var errs []error
	cpu, mem := int64(0), int64(0)
	for i := range n.GPUs {
		g := &n.GPUs[i]
		if err := s.checkHolders(n, g, held[g.UUID]); err != nil {
			errs = append(errs, err)
			continue
		}
		g.EachHolder(func(id JobID, _ Epoch) {
			cpu += s.Job(id).Spec.CPUPerGPU
			mem += s.Job(id).Spec.MemPerGPU
		})
	}
	if cpu != n.CPUUsed || mem != n.MemUsed {
		errs = append(errs, fmt.Errorf("node %s: reserves %d mCPU and %d bytes, holders sum to %d and %d", n.Name, n.CPUUsed, n.MemUsed, cpu, mem))
	}
	return errors.Join(errs...)
}

// checkHolders compares what a GPU says of its holders with what the jobs say.
func (s *State) checkHolders(n *Node, g *GPU, held []Share) error {
	var says []Share
	g.EachHolder(func(id JobID, e Epoch) {
		milli := int32(WholeGPU)
		for _, h := range g.Shares {
			if h.Job == id {
				milli = h.Milli
			}
		}
		says = append(says, Share{Job: id, Epoch: e, Milli: milli})
	})
	slices.SortFunc(held, func(a, b Share) int { return cmp.Compare(a.Job, b.Job) })
	if !slices.Equal(says, held) {
		return fmt.Errorf("node %s: GPU %s says it is held by %v, jobs say %v", n.Name, g.UUID, says, held)
	}
	return nil
}

// checkAccounts: accounts are charged for what the jobs hold.
func (s *State) checkAccounts() error {
	rates := map[string]int64{}
	s.EachHolding(func(j *Job) bool {
		rates[accountKey(j.Spec.Queue, j.User)] += j.Rate
		return true
	})
	var errs []error
	s.EachAccount(func(a *Account) bool {
		key := accountKey(a.Queue, a.User)
		if rates[key] != a.Rate || a.Used < 0 {
			errs = append(errs, fmt.Errorf("account of %s in %s is charged %d milli-GPUs, its jobs hold %d; used %d", a.User, a.Queue, a.Rate, rates[key], a.Used))
		}
		delete(rates, key)
		return true
	})
	for _, rate := range rates { // any order: one error for all
		if rate != 0 {
			return errors.Join(append(errs, errors.New("a job that holds GPUs has no account"))...)
		}
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
			if !s.pending.contains(j.ID) {
				bad("job %d is not among the pending", j.ID)
			}
		case j.State.Holding():
			holding++
			if !s.holding.contains(j.ID) {
				bad("job %d is not among the holding", j.ID)
			}
		default:
			finished++
			if s.finished.get(j.FinishSeq) != j {
				bad("job %d is not among the finished", j.ID)
			}
		}
		return true
	})
	if counts != s.counts || pending != s.pending.count || holding != s.holding.count || finished != s.finished.count {
		bad("counts %v, pending %d, holding %d, finished %d do not agree with the jobs", s.counts, s.pending.count, s.holding.count, s.finished.count)
	}
	errs = append(errs, s.checkNodeMaps())
	if s.byID != nil && len(s.byID) != s.nodes.Len() {
		bad("%d nodes are found by id, there are %d", len(s.byID), s.nodes.Len())
	}
	if s.names.Len() != s.nodes.Len() {
		bad("%d names for %d nodes", s.names.Len(), s.nodes.Len())
	}
	if s.byRequest != nil && s.byRequest.count != s.requests.count {
		bad("%d of %d requests are found by their ids", s.byRequest.count, s.requests.count)
	}
	return errors.Join(errs...)
}

func (s *State) checkNodeMaps() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	gpus, kinds, placed := 0, map[string]int32{}, s.Policy().placed()
	s.EachNode(func(n *Node) bool {
		kinds[kindKey(n)]++
		if !slices.Equal(n.Placed, placed[n.Name]) {
			bad("node %s is placed as %v, the policy says %v", n.Name, n.Placed, placed[n.Name])
		}
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
	s.kinds.Scan(func(key string, k *kind) bool {
		if kinds[key] != k.count {
			bad("%d nodes are counted of a kind that %d are of (such as %s)", k.count, kinds[key], k.node.Name)
		}
		delete(kinds, key)
		return true
	})
	if len(kinds) > 0 {
		bad("%d kinds of nodes are not counted", len(kinds))
	}
	if gpus != s.gpus.Len() {
		bad("%d GPUs are known, nodes have %d", s.gpus.Len(), gpus)
	}
	return errors.Join(errs...)
}

// checkFollows: who waits for others waits for what is undecided, and is known
// to those; the arrays' tallies agree with their members.
func (s *State) checkFollows() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	follows, tallies := 0, map[JobID]tally{}
	s.EachJob(func(j *Job) bool {
		if j.Array != 0 {
			t := tallies[j.Array]
			t.kept++
			switch {
			case !j.State.Final():
				t.left++
			case j.State != Succeeded:
				t.bad++
			}
			tallies[j.Array] = t
		}
		if j.Unmet != 0 && j.State != Pending {
			bad("job %d is %s and waits for other jobs", j.ID, j.State)
		}
		for i, d := range j.Spec.Dependencies() {
			if j.Unmet&(1<<i) == 0 {
				continue
			}
			follows++
			t := s.targetOf(j, d)
			if id, ok := s.follows.Get(followKey(t, j.ID, i)); !ok || id != j.ID || t.job >= j.ID {
				bad("job %d waits for %s, which is not known (of job %d)", j.ID, d, t.job)
			} else if v := s.judgeOne(j, d); v != undecided {
				bad("job %d waits for %s, and that is decided (%d)", j.ID, d, v)
			}
		}
		return true
	})
	s.arrays.Scan(func(id JobID, t tally) bool {
		is := tallies[id]
		delete(tallies, id)
		if t.kept != is.kept || t.left != is.left || t.bad != is.bad+t.gone {
			bad("array %d is counted as %+v, its members are %+v", id, t, is)
		}
		return true
	})
	if follows != s.follows.Len() || len(tallies) > 0 || len(s.due) > 0 {
		bad("%d wait for others, %d are known; %d arrays are not counted; %d ends are not looked at", follows, s.follows.Len(), len(tallies), len(s.due))
	}
	return errors.Join(errs...)
}
