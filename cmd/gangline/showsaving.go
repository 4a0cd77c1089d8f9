package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// savingRows tell when a job saves, what of it stays, and its newest checkpoint.
func savingRows(j *schedulerv1.Job) [][]string {
	var rows [][]string
	if text := savingText(j.GetSpec()); text != "" {
		if pace := j.GetCheckpointPace(); pace != "" {
			text = strings.Replace(text, autoText, pace, 1)
		}
		rows = append(rows, []string{"Saves", text})
	}
	if l := j.GetLocalCheckpoint(); l != nil {
		where := "on the nodes' own disks, on the way to the shared storage"
		if l.GetCopied() {
			where += "; each part is on two nodes"
		}
		rows = append(rows, []string{"Local", fmt.Sprintf("step %d, %s", l.GetStep(), where)})
	}
	if step := j.GetLostStep(); step > 0 {
		rows = append(rows, []string{"Lost", fmt.Sprintf("step %d could not be used at this start, which began from an older one: it is damaged, or was on nodes' own disks alone and a part of it is lost; the agent's log says which", step)})
	}
	if o := j.GetOlderStart(); o != nil {
		from := fmt.Sprintf("step %d", o.GetResumedStep())
		if o.GetFromNothing() {
			from = "nothing"
		}
		rows = append(rows, []string{"Older", fmt.Sprintf("resumes from %s although step %d was committed: that is not on the storage any more", from, o.GetCommittedStep())})
	}
	if p := j.GetCheckpointProblem(); p != "" {
		rows = append(rows, []string{"Not saved", p})
	}
	c := j.GetCheckpoint()
	if c == nil {
		return rows
	}
	text := fmt.Sprintf("step %d, %s ago, %s", c.GetStep(), age(c.GetRecordedUnixNs()), c.GetPath())
	if c.GetBytes() > 0 {
		text += ", " + checkpoint.BytesText(c.GetBytes())
	}
	if c.GetCostMs() > 0 {
		text += fmt.Sprintf("; the save held up the training for %s", fine(time.Duration(c.GetCostMs())*time.Millisecond))
	}
	rows = append(rows, []string{"Checkpoint", text})
	if lost := j.GetAttainedGpuSeconds() - c.GetCoveredGpuSeconds(); lost > 0 && j.GetState() == schedulerv1.JobState_JOB_STATE_RUNNING {
		rows = append(rows, []string{"At stake", gpuTime(lost) + " since then: what a stop without another save repeats, and a preemption is priced by"})
	}
	if c.GetRemote() != "" {
		rows = append(rows, []string{"Copy", fmt.Sprintf("step %d, %s", c.GetRemoteStep(), c.GetRemote())})
	}
	return rows
}

// gpuTime writes GPU-seconds.
func gpuTime(seconds float64) string {
	if seconds < 360 {
		return plural(int(math.Round(seconds)), "GPU-second")
	}
	return fmt.Sprintf("%.2f GPU-hours", seconds/3600)
}

// autoText stands for an interval that is worked out, as long as the program has not asked for it.
const autoText = "as often as loses the least (interval auto)"

// savingText is the checkpoint policy in words; empty: the program decides all of it.
func savingText(s *schedulerv1.JobSpec) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	p := s.GetCheckpoints()
	switch {
	case p.GetIntervalAuto():
		add(autoText)
	case p.GetIntervalSteps() > 0:
		add("each %d steps", p.GetIntervalSteps())
	case p.GetIntervalMs() > 0:
		add("each %s", short(time.Duration(p.GetIntervalMs())*time.Millisecond))
	}
	if keep := s.GetCheckpointKeep(); keep > 0 {
		add("keeps the newest %d", keep)
	}
	if p.GetKeepEvery() > 0 {
		add("keeps each %dth step", p.GetKeepEvery())
	}
	for _, b := range p.GetKeepBest() {
		add("keeps the best by %s", checkpoint.Best{Metric: b.GetMetric(), Lowest: b.GetLowest(), Count: int(b.GetCount())})
	}
	switch n := p.GetPushNth(); {
	case n == 1:
		add("each goes to the object store")
	case n > 1:
		add("one in %d goes to the object store", n)
	}
	return strings.Join(parts, ", ")
}
