package cluster

import "fmt"

// Apply changes the state by one command and says what it did. It is a pure
// function of the state, index, time and command: equal states stay equal.
//
// Index is the log index of the entry that holds the command; several commands
// of one entry share it. At is the proposer's stamp; the state's clock takes
// the later of its own time and the stamp. A refused command leaves the state
// as it was, but for index and clock. Only the owner of the state may call Apply.
func (s *State) Apply(index uint64, at Time, cmd Command) Result {
	s.index = index
	s.now = max(s.now, at)
	if init, ok := cmd.(*Init); ok {
		return s.applyInit(init)
	}
	if s.version == 0 {
		return refuse(Conflict, "the cluster has no identity yet: wait for its first leader")
	}
	switch c := cmd.(type) {
	case *SubmitJob:
		return s.applySubmit(c)
	case *CancelJob:
		return s.applyCancel(c)
	case *StartJob:
		return s.applyStart(c)
	case *ExplainJob:
		return s.applyExplain(c)
	case *RegisterNode:
		return s.applyRegister(c)
	case *LoseNode:
		return s.applyLose(c)
	case *ReportWorkers:
		return s.applyReport(c)
	case *EvictJob:
		return s.applyEvict(c)
	case *RecordCheckpoint:
		return s.applyCheckpoint(c)
	case *ForgetJobs:
		return s.applyForgetJobs(c)
	case *ForgetNode:
		return s.applyForgetNode(c)
	default:
		// The codec refuses kinds it does not know before they get here.
		panic(fmt.Sprintf("cluster: Apply was given a %T: a kind of command that this release does not have", cmd))
	}
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
	if err := c.Spec.Validate(); err != nil {
		return refuse(Invalid, "%s", err)
	}
	if live := s.pending.Len() + s.holding.Len(); live >= MaxLiveJobs {
		return refuse(TooMany, "the cluster holds %d unfinished jobs, its most: wait until some have ended", live)
	}
	if err := s.CanEverFit(c.Spec); err != nil {
		return refuse(NeverFits, "%s", err)
	}
	s.nextJob++
	s.reqSeq++
	j := &Job{
		ID: s.nextJob, Spec: c.Spec, User: c.User, RequestID: c.RequestID,
		State: Pending, Reason: "waits for the scheduler's next pass",
		SubmittedAt: s.now, PendingAt: s.now,
	}
	s.putRequest(&Request{ID: c.RequestID, Job: j.ID, At: s.now, Seq: s.reqSeq})
	return s.put(j)
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
	j := *old
	j.Reason = cut(c.Reason)
	return s.put(&j)
}

func (s *State) applyEvict(c *EvictJob) Result {
	old := s.Job(c.Job)
	switch {
	case old == nil:
		return refuse(NotFound, "job %d does not exist", c.Job)
	case old.Epoch != c.Epoch || (old.State != Starting && old.State != Running):
		return refuse(Conflict, "job %d is %s in epoch %d: not to be evicted from epoch %d", c.Job, old.State, old.Epoch, c.Epoch)
	case c.Cause != StopTimeLimit && c.Cause != StopLaunchStuck && c.Cause != StopPreempt:
		return refuse(Invalid, "cause %d is not a cause of eviction", c.Cause)
	}
	j := *old
	s.beginStop(&j, c.Cause, c.Reason)
	return s.put(&j, s.settle(&j)...)
}

func (s *State) applyCheckpoint(c *RecordCheckpoint) Result {
	old := s.Job(c.Job)
	switch {
	case old == nil:
		return refuse(NotFound, "job %d does not exist", c.Job)
	case c.Epoch != old.Epoch || old.State == Pending || old.State.Final():
		return refuse(StaleCheckpoint, "job %d is %s in epoch %d: a checkpoint of epoch %d is not taken", c.Job, old.State, old.Epoch, c.Epoch)
	case old.Checkpoint != nil && old.Checkpoint.Epoch == c.Epoch && old.Checkpoint.Step >= c.Step:
		return Result{Job: old.ID}
	}
	j := *old
	j.Checkpoint = &Checkpoint{Step: c.Step, Epoch: c.Epoch, Path: c.Path, Bytes: c.Bytes, RecordedAt: s.now}
	return s.put(&j)
}

func (s *State) applyForgetJobs(c *ForgetJobs) Result {
	var res Result
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
	return Result{Job: j.ID, Changes: append([]Change{{Job: j.ID}}, nodes...)}
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
