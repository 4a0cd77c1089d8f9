package cluster

import (
	"fmt"
	"slices"
	"time"
)

// Apply changes the state by one command and says what it did. It is a pure
// function of the state, index, time and command: equal states stay equal.
//
// Index is the log index of the entry that holds the command; several commands
// of one entry share it. At is the proposer's stamp; the state's clock takes
// the later of its own time and the stamp. A refused command leaves the state
// as it was, but for index and clock. Only the owner of the state may call Apply.
//
// The state keeps no command and no list of jobs or workers in one, so that the
// caller may use their memory again. It keeps what they point at, which is never
// edited: specs, policies, nodes, progress, and the GPUs of a started worker.
func (s *State) Apply(index uint64, at Time, cmd Command) (res Result) {
	s.index = index
	s.now = max(s.now, at)
	if init, ok := cmd.(*Init); ok {
		return s.applyInit(init)
	}
	if s.version == 0 {
		return refuse(Conflict, "the cluster has no identity yet: wait for its first leader")
	}
	s.changes.used = 0
	s.cross()
	switch c := cmd.(type) {
	case *SubmitJob:
		res = s.applySubmit(c)
	case *CancelJob:
		res = s.applyCancel(c)
	case *StartJob:
		res = s.applyStart(c)
	case *ExplainJob:
		res = s.applyExplain(c)
	case *RegisterNode:
		res = s.applyRegister(c)
	case *LoseNode:
		res = s.applyLose(c)
	case *ReportWorkers:
		res = s.applyReport(c)
	case *EvictJob:
		res = s.applyEvict(c)
	case *RecordCheckpoint:
		res = s.applyCheckpoint(c)
	case *ForgetJobs:
		res = s.applyForgetJobs(c)
	case *ForgetNode:
		res = s.applyForgetNode(c)
	case *SetPolicy:
		res = s.applyPolicy(c)
	case *DrainNode:
		res = s.applyDrain(c)
	case *KeepNodes:
		res = s.applyKeep(c)
	case *ExplainJobs:
		res = s.applyExplainJobs(c)
	default:
		// The codec refuses kinds it does not know before they get here.
		panic(fmt.Sprintf("cluster: Apply was given a %T: a kind of command that this release does not have", cmd))
	}
	if len(s.due) > 0 {
		res.Changes = s.followUp(res.Changes)
	}
	return res
}

func refuse(code Code, format string, args ...any) Result {
	return Result{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (s *State) applyInit(c *Init) Result {
	switch {
	case s.version != 0:
		return refuse(Conflict, "the cluster already has the identity %s", s.clusterID)
	case c.ClusterID == "":
		return refuse(Invalid, "a cluster's identity must not be empty")
	case c.Version == 0 || c.Version > Version:
		return refuse(UnknownVersion, "cluster version %d is not one of 1..%d", c.Version, Version)
	}
	s.clusterID, s.version = c.ClusterID, c.Version
	return Result{}
}

func (s *State) applySubmit(c *SubmitJob) Result {
	s.expireRequests()
	if c.RequestID == "" || len(c.RequestID) > MaxRequestID {
		return refuse(Invalid, "request id: must be 1 to %d bytes, is %d", MaxRequestID, len(c.RequestID))
	}
	if r := s.Request(c.RequestID); r != nil {
		return Result{Job: r.Job, Duplicate: true}
	}
	sound := s.sound.has(c.Spec)
	if !sound {
		if err := c.Spec.Validate(); err != nil {
			return refuse(Invalid, "%s", err)
		}
	}
	members := c.Spec.Array.Count()
	if live := s.pending.count + s.holding.count; live+int(members) > MaxLiveJobs {
		return refuse(TooMany, "the cluster holds %d unfinished jobs of at most %d: wait until some have ended", live, MaxLiveJobs)
	}
	if err := s.checkAfter(c.Spec); err != nil {
		return refuse(NotFound, "%s", err)
	}
	if !sound {
		if err := s.admits(c.Spec); err != nil {
			return refuse(NeverFits, "%s", err)
		}
		s.sound.add(c.Spec)
	}
	s.reqSeq++
	first := s.nextJob + 1
	s.putRequest(Request{ID: c.RequestID, Job: first, At: s.now, Seq: s.reqSeq})
	res := Result{Job: first, Changes: s.changes.room(int(members))}
	for i := range members {
		s.nextJob++
		j := s.newJob()
		j.ID, j.Spec, j.User, j.RequestID = s.nextJob, c.Spec, c.User, c.RequestID
		j.State, j.Reason = Pending, reasonNext
		j.SubmittedAt, j.ReadyAt, j.PendingAt = s.now, s.now, s.now
		j.Unmet = uint32(1<<len(c.Spec.Dependencies()) - 1) //nolint:gosec // at most MaxAfter
		if c.Spec.Array.Step > 0 {
			j.Array, j.ArrayIndex = first, c.Spec.Array.First+i*c.Spec.Array.Step
		}
		s.begin(j)
		s.putJob(j)
		if j.Unmet != 0 {
			s.judge(j.ID)
		}
		res.Changes = append(res.Changes, Change{Job: j.ID})
	}
	return res
}

// newJob makes a job. Four are made at once: the collector's part of it is more than
// all else that a submission does. More would keep too much of those that have begun
// for the sake of one that still waits.
func (s *State) newJob() *Job {
	if len(s.jobRoom) == 0 {
		s.jobRoom = make([]Job, 4)
	}
	j := &s.jobRoom[0]
	s.jobRoom = s.jobRoom[1:]
	return j
}

// soundSpecs are some specs that were taken lately, and would be now: many jobs of
// a replay share one. What is never edited need not be looked at twice.
type soundSpecs struct {
	specs [8]*JobSpec
	next  int // which one to forget
}

func (k *soundSpecs) has(spec *JobSpec) bool { return slices.Contains(k.specs[:], spec) }

func (k *soundSpecs) add(spec *JobSpec) {
	k.specs[k.next] = spec
	k.next = (k.next + 1) % len(k.specs)
}

// MovesSince counts the jobs that were asked since a time, at most an hour ago,
// to move elsewhere.
func (s *State) MovesSince(since Time) int { return len(s.moves) - s.movesBefore(since) }

func (s *State) movesBefore(t Time) int {
	i, _ := slices.BinarySearch(s.moves, t)
	return i
}

// admits returns an error for people if the policy or the cluster can never
// start such a job.
func (s *State) admits(spec *JobSpec) error {
	p := s.Policy()
	if len(p.Queues) > 0 {
		q := p.Queue(spec.Queue)
		switch {
		case q == nil:
			return fmt.Errorf("queue %s is not in the cluster's policy: submit to one of those that `gangline queues` lists", spec.Queue)
		case q.Closed:
			return fmt.Errorf("queue %s is closed: it takes no new jobs", spec.Queue)
		}
		if err := p.withinLimits(spec, s.typesFor(spec)); err != nil {
			return err
		}
	}
	if l := spec.Topology.Level; l != "" && !WithinNode(l) && !slices.ContainsFunc(p.Levels, func(x Level) bool { return x.Name == l }) {
		return fmt.Errorf("topology level %q is not one of the cluster's (%s)", l, p.levelNames())
	}
	return s.CanEverFit(spec)
}

func (s *State) applyCancel(c *CancelJob) Result {
	old := s.Job(c.Job)
	if old == nil {
		return refuse(NotFound, "job %d does not exist, or ended so long ago that it was forgotten", c.Job)
	}
	if old.State.Final() {
		return Result{Job: old.ID}
	}
	reason := "cancelled"
	if c.By != "" {
		reason += " by " + c.By
	}
	if c.Reason != "" {
		reason += ": " + c.Reason
	}
	j := *old
	if j.State == Pending {
		s.finish(&j, Cancelled, cut(reason))
		return s.put(&j)
	}
	if j.Stop == StopCancel {
		return Result{Job: j.ID}
	}
	s.beginStop(&j, StopCancel, reason)
	return s.put(&j, s.settle(&j)...)
}

func (s *State) applyExplain(c *ExplainJob) Result {
	old := s.Job(c.Job)
	if old == nil || old.State != Pending {
		return refuse(Conflict, "job %d is not pending", c.Job)
	}
	if old.Reason == c.Reason {
		return Result{Job: old.ID}
	}
	s.amend(old).Reason = cut(c.Reason)
	return Result{Job: old.ID, Changes: append(s.changes.room(1), Change{Job: old.ID})}
}

func (s *State) applyEvict(c *EvictJob) Result {
	old := s.Job(c.Job)
	switch {
	case old == nil:
		return refuse(NotFound, "job %d does not exist", c.Job)
	case old.Epoch != c.Epoch || (old.State != Starting && old.State != Running):
		return refuse(Conflict, "job %d is %s in epoch %d: not to be evicted from epoch %d", c.Job, old.State, old.Epoch, c.Epoch)
	case c.Cause != StopTimeLimit && c.Cause != StopLaunchStuck && !c.Cause.yields():
		return refuse(Invalid, "cause %d is not a cause of eviction", c.Cause)
	}
	j := *old
	s.beginStop(&j, c.Cause, c.Reason)
	if c.Cause == StopMove {
		s.moves = append(slices.Clone(s.moves[s.movesBefore(s.now.Add(-time.Hour)):]), s.now)
	}
	return s.put(&j, s.settle(&j)...)
}

func (s *State) applyExplainJobs(c *ExplainJobs) Result {
	if len(c.Jobs) > maxExplained {
		return refuse(Invalid, "%d jobs are explained at once, at most %d", len(c.Jobs), maxExplained)
	}
	reason := cut(c.Reason)
	var res Result
	for _, id := range c.Jobs {
		old := s.Job(id)
		if old == nil || old.State != Pending || old.Reason == reason {
			continue
		}
		if res.Changes == nil {
			res.Changes = s.changes.room(len(c.Jobs))
		}
		s.amend(old).Reason = reason
		res.Changes = append(res.Changes, Change{Job: id})
	}
	return res
}

func (s *State) applyPolicy(c *SetPolicy) Result {
	if !c.Any && c.Was != s.policyAt {
		return refuse(Conflict, "the policy was changed meanwhile (at index %d, not %d): look at it again", s.policyAt, c.Was)
	}
	if c.Policy == nil {
		return refuse(Invalid, "no policy is given")
	}
	if err := c.Policy.Validate(); err != nil {
		return refuse(Invalid, "%s", err)
	}
	s.rescale(s.Policy(), c.Policy)
	foresaw := s.foresees()
	s.policy, s.policyAt, s.sound = c.Policy, s.index, soundSpecs{}
	if s.crossings.known = s.crossings.known && s.foresees(); !foresaw && s.foresees() {
		s.foreseeAll()
	}
	s.touch(Change{Policy: true})
	return Result{Changes: append([]Change{{Policy: true}}, s.placeAll()...)}
}

func (s *State) applyDrain(c *DrainNode) Result {
	old := s.Node(c.Node)
	if old == nil {
		return refuse(NotFound, "node %s is not registered", c.Node)
	}
	if c.Deadline < 0 {
		return refuse(Invalid, "a drain's deadline is a time, or 0 for none")
	}
	n := *old
	if n.Drain = nil; !c.Off {
		n.Drain = &Drain{Reason: cut(c.Reason), By: cut(c.By), Since: s.now, Deadline: c.Deadline}
		if old.Drain != nil {
			n.Drain.Since = old.Drain.Since
		}
	} else if old.Drain == nil {
		return Result{}
	}
	n.ChangedAt = s.now
	s.putNode(&n)
	return Result{Changes: []Change{{Node: n.ID}}}
}

func (s *State) applyKeep(c *KeepNodes) Result {
	old := s.Job(c.Job)
	switch {
	case old == nil || old.State != Pending:
		return refuse(Conflict, "job %d is not pending: nothing can be kept for it", c.Job)
	case len(c.Nodes) > MaxGPUs:
		return refuse(Invalid, "%d nodes are kept for a job, at most %d", len(c.Nodes), MaxGPUs)
	}
	j := *old
	if j.Kept = nil; len(c.Nodes) > 0 {
		j.Kept = &Kept{Nodes: c.Nodes, At: c.At, Made: s.now}
	}
	return s.put(&j)
}

func (s *State) applyCheckpoint(c *RecordCheckpoint) Result {
	old := s.Job(c.Job)
	switch {
	case old == nil:
		return refuse(NotFound, "job %d does not exist", c.Job)
	case c.Epoch != old.Epoch || old.State == Pending || old.State.Final():
		return refuse(StaleCheckpoint, "job %d is %s in epoch %d: a checkpoint of epoch %d is not taken", c.Job, old.State, old.Epoch, c.Epoch)
	}
	at := s.now
	if began := old.StartedAt; c.Age > 0 && began < at {
		at = max(at.Add(-c.Age), began)
	}
	next := Checkpoint{Step: c.Step, Epoch: c.Epoch, Path: c.Path, Bytes: c.Bytes, RecordedAt: at, Cost: c.Cost, Took: c.Took, Covers: old.AttainedAt(at)}
	if k := old.Checkpoint; k != nil {
		if k.Epoch == c.Epoch && k.Step >= c.Step {
			next = *k
		} else if c.Cost == 0 {
			next.Cost, next.Took = k.Cost, k.Took
		}
		next.Remote, next.RemoteStep = k.Remote, k.RemoteStep
	}
	if c.Remote != "" {
		next.Remote, next.RemoteStep = c.Remote, c.RemoteStep
	}
	if old.Checkpoint != nil && next == *old.Checkpoint {
		return Result{Job: old.ID}
	}
	j := *old
	j.Checkpoint = &next
	return s.put(&j)
}

func (s *State) applyForgetJobs(c *ForgetJobs) Result {
	res := Result{Changes: s.changes.room(len(c.Jobs))}
	for _, id := range c.Jobs {
		if j := s.Job(id); j != nil && j.State.Final() {
			s.dropJob(j)
			res.Changes = append(res.Changes, Change{Job: id})
		}
	}
	return res
}

// put stores the job and reports it as changed, with the nodes that changed along.
func (s *State) put(j *Job, nodes ...Change) Result {
	s.putJob(j)
	return Result{Job: j.ID, Changes: append(append(s.changes.room(1+len(nodes)), Change{Job: j.ID}), nodes...)}
}

// cut bounds a reason, at a character's boundary.
func cut(reason string) string {
	if len(reason) <= MaxReason {
		return reason
	}
	n := MaxReason
	for n > 0 && reason[n]&0xC0 == 0x80 {
		n--
	}
	return reason[:n]
}
