package cluster

// outlined stands for the command of every job of an outline, and for its reason.
const outlined = "(left out)"

// Outline returns a state of its own that decides as this one does about jobs
// that have not ended, without what only their users need: commands,
// environments, directories, request ids, messages and paths, and jobs that have
// ended. It is for who asks "what if" elsewhere. Any goroutine may ask a
// snapshot for it; it costs time in proportion to the unfinished jobs.
func (s *State) Outline() *State {
	f := s.Fork(nil)
	var ended []JobID
	f.EachFinished(func(j *Job) bool {
		ended = append(ended, j.ID)
		return true
	})
	f.applyForgetJobs(&ForgetJobs{Jobs: ended})
	specs := map[*JobSpec]*JobSpec{} // members of an array share one
	var jobs []*Job
	f.EachJob(func(j *Job) bool {
		jobs = append(jobs, j)
		return true
	})
	for _, j := range jobs {
		if specs[j.Spec] == nil {
			spec := *j.Spec
			spec.Command, spec.Env, spec.Dir = []string{outlined}, nil, nil
			specs[j.Spec] = &spec
		}
		f.putJob(j.outline(specs[j.Spec]))
	}
	var nodes []*Node
	f.EachNode(func(n *Node) bool {
		nodes = append(nodes, n)
		return true
	})
	for _, n := range nodes {
		bare := *n
		bare.Address, bare.Host, bare.BootID = "", "", ""
		f.putNode(&bare)
	}
	f.journal = journal{origin: new(byte)}
	return f
}

// outline is the job with another spec, without what only its user needs.
func (j *Job) outline(spec *JobSpec) *Job {
	o := *j
	o.Spec, o.RequestID, o.Progress, o.History = spec, "", nil, nil
	o.Reason, o.StopReason = outlined, ""
	if c := j.Checkpoint; c != nil {
		bare := *c
		bare.Path, bare.Remote = "", ""
		o.Checkpoint = &bare
	}
	o.Workers = append([]Worker(nil), j.Workers...)
	for i := range o.Workers {
		o.Workers[i].Message = ""
	}
	return &o
}
