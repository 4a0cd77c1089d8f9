package control

import (
	"fmt"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner"
)

// maxForgets bounds what one step forgets, so that its log entries stay few; the
// next step does the rest.
const maxForgets = 256

// forgetPart of what is kept may be over the bound, at most maxForgets, before
// any is forgotten: at the bound, each job that ends would else take a command
// and two steps of its own to forget another one.
const forgetPart = 16

// maxDraft is how many commands' memory one step leaves to the next: a step that
// starts all of a long queue is not soon followed by another.
const maxDraft = 4096

// draft is what a step is going to propose. A step writes over what the one
// before it has proposed: most steps of a busy cluster start, explain and forget
// one job each, and would leave a list and a command for each of them behind.
type draft struct {
	cmds     []cluster.Command
	starts   []cluster.StartJob
	explains []cluster.ExplainJobs
	forgets  cluster.ForgetJobs
}

// begin makes room for a step's commands, and lets go of what the last ones held.
func (d *draft) begin() {
	if len(d.cmds) > maxDraft {
		*d = draft{}
		return
	}
	clear(d.cmds)
	clear(d.starts)
	clear(d.explains)
	d.cmds, d.starts, d.explains = d.cmds[:0], d.starts[:0], d.explains[:0]
}

// plan turns a plan into what is to be proposed. Stops come first: the GPUs that
// they free are needed; starts need none of them.
func (d *draft) plan(s *cluster.State, p *planner.Plan) {
	for i := range p.Evicts {
		e := &p.Evicts[i]
		d.cmds = append(d.cmds, &cluster.EvictJob{Job: e.Job, Epoch: e.Epoch, Cause: e.Cause, Reason: e.Reason})
	}
	for i := range p.Starts {
		d.start(s, &p.Starts[i])
	}
	for _, k := range p.Keeps {
		d.cmds = append(d.cmds, &cluster.KeepNodes{Job: k.Job, Nodes: k.Nodes, At: k.At})
	}
	for _, r := range p.Reasons {
		d.explains = append(d.explains, cluster.ExplainJobs{Jobs: r.Jobs, Reason: r.Text})
		d.cmds = append(d.cmds, &d.explains[len(d.explains)-1]) // stays what it is if the list grows
	}
}

// start adds the start of a gang, or why it cannot be proposed.
func (d *draft) start(s *cluster.State, st *planner.Start) {
	d.starts = append(d.starts, cluster.StartJob{Job: st.Job, Epoch: st.Epoch, Workers: st.Workers})
	start := &d.starts[len(d.starts)-1]
	why := oversized(start)
	switch {
	case why == "":
		d.cmds = append(d.cmds, start)
	case s.Job(st.Job).Reason != why:
		d.cmds = append(d.cmds, &cluster.ExplainJob{Job: st.Job, Reason: why})
	}
}

// maxPlacementBytes is what one worker or one GPU takes at most in a StartJob.
const maxPlacementBytes = cluster.MaxNameLen + 16

// oversized says why no log entry can hold a gang's start (very long GPU ids,
// say), or nothing. Proposed, it would be refused together with all other
// commands, in this step and in every later one.
func oversized(start *cluster.StartJob) string {
	parts := 2
	for i := range start.Workers {
		parts += 1 + len(start.Workers[i].GPUs)
	}
	if parts*maxPlacementBytes <= cluster.MaxCommandBytes {
		return "" // the usual case, without encoding it
	}
	n := len(cluster.AppendCommand(nil, start))
	if n <= cluster.MaxCommandBytes {
		return ""
	}
	return fmt.Sprintf("cannot start: where its %d workers go takes %d bytes, a log entry holds %d: ask for fewer GPUs, or use launch: per-node",
		len(start.Workers), n, cluster.MaxCommandBytes)
}

// forgetJobs drops the oldest final jobs beyond a bound, some at a time.
func (d *draft) forgetJobs(s *cluster.State, keep int) {
	final := s.Count(cluster.Succeeded) + s.Count(cluster.Failed) + s.Count(cluster.Cancelled)
	if final-keep <= min(keep/forgetPart, maxForgets) {
		return
	}
	over := min(final-keep, maxForgets)
	jobs := d.forgets.Jobs[:0]
	s.EachFinished(func(j *cluster.Job) bool {
		jobs = append(jobs, j.ID)
		return len(jobs) < over
	})
	d.forgets.Jobs = jobs
	d.cmds = append(d.cmds, &d.forgets)
}
