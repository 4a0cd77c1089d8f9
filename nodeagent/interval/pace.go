package interval

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

const (
	// firstAuto is when the first save of a job is due that saves by auto and whose cost nobody knows yet: soon enough to learn it.
	firstAuto = 10 * time.Minute
	// longestAuto bounds what auto comes to. For a small gang, whose nodes fail once in a year by the prior, the formula asks for a save each half day; a
	// program's own failures, which nobody has seen yet, would then repeat all of it. At this interval a save that takes a minute costs less than 1 %.
	longestAuto = 2 * time.Hour
	// shortestAuto keeps saves that cost next to nothing from following each other without a pause.
	shortestAuto = 10 * time.Second
	// kept is how many costs the median is of: one save beside a busy storage must not change the interval.
	kept = 5
)

// Policy is what the job asks for, of which at most one is set, and what auto is worked out from.
type Policy struct {
	Time  time.Duration // between the starts of two saves
	Steps int64         // between two saves
	Auto  bool
	// Between is how long the gang runs on average until a failure stops it; 0: as published, for one GPU.
	Between time.Duration
	// Cost is what is known of the job's saves before this worker's first one; 0: nothing.
	Cost time.Duration
}

// Set tells whether the job asks for anything. If not, the program decides.
func (p Policy) Set() bool { return p.Time > 0 || p.Steps > 0 || p.Auto }

// Answer is what a worker is told. The zero Answer leaves it to the program.
type Answer struct {
	Due      bool
	Wait     time.Duration // no save is due by time before so much has passed; 0: by steps alone, or due
	WaitStep int64         // no save is due by steps before this one; 0: by time alone
	Interval time.Duration // in force; 0: by steps
	Steps    int64         // in force; 0: by time
	Reason   string        // why it is this interval, for people
	Auto     string        // the interval and why, where it is worked out; "": the job says it
}

// Pace is one worker's. The zero Pace is not usable: New.
type Pace struct {
	policy Policy
	begun  time.Time // of the interval that runs: the last save that was due, or the start
	step   int64     // the last one asked for, -1: none yet
	asked  time.Time // when a save was last due whose end is not told yet; zero: none
	costs  []time.Duration
	took   time.Duration // how long the last save took until it was durable
}

// New gives the pace of a worker that starts now.
func New(now time.Time) *Pace { return &Pace{begun: now, step: -1} }

// Resume goes on from what a former agent knew: when and for which step a save was last due. A time in the future, by a clock that was set back, counts as now.
func (p *Pace) Resume(due time.Time, step int64, now time.Time) {
	if due.After(now) {
		due = now
	}
	p.begun, p.step = due, step
}

// SetPolicy takes what the job asks for, or what is known by now. The interval that runs is not begun anew.
func (p *Pace) SetPolicy(policy Policy) { p.policy = policy }

// Due answers a worker that has done so many steps. A save that is due is told once.
func (p *Pace) Due(step int64, now time.Time) Answer {
	a := Answer{Steps: p.policy.Steps}
	switch {
	case p.policy.Steps > 0:
		last := p.step
		if last < 0 || step < last { // the first question, or another beginning: a program asks after each step
			last = step - 1
		}
		// Crossed, not hit: a program may ask at each tenth step alone.
		a.Due = step/p.policy.Steps > last/p.policy.Steps
		a.WaitStep = (step/p.policy.Steps + 1) * p.policy.Steps
		a.Reason = fmt.Sprintf("each %d steps, as the job says", p.policy.Steps)
	case p.policy.Set():
		a.Interval, a.Reason = p.interval()
		if p.policy.Auto {
			a.Auto = fmt.Sprintf("each %s, %s", round(a.Interval), a.Reason)
		}
		passed := now.Sub(p.begun)
		if a.Due = passed >= a.Interval; a.Due {
			a.Wait = a.Interval
		} else {
			a.Wait = a.Interval - max(passed, 0)
		}
	}
	p.step = step
	if a.Due {
		p.begun, p.asked = now, now
	}
	return a
}

// Saved takes in a checkpoint that was committed: what the save cost the training and how long it took, zero where the program does not tell. Then the
// time since the save was due stands for both, which is right for a program that saves before it goes on.
func (p *Pace) Saved(cost, took time.Duration, now time.Time) (time.Duration, time.Duration) {
	if p.asked.IsZero() && cost <= 0 {
		return 0, took // it saved on its own account: nobody knows when it began
	}
	if cost <= 0 {
		cost = max(now.Sub(p.asked), time.Millisecond)
	}
	p.took = max(took, cost)
	p.asked = time.Time{}
	p.costs = append(p.costs[max(len(p.costs)-kept+1, 0):], cost)
	return cost, p.took
}

// cost is the median of the last saves, or what was known before; 0: not known.
func (p *Pace) cost() time.Duration {
	if len(p.costs) == 0 {
		return p.policy.Cost
	}
	sorted := slices.Sorted(slices.Values(p.costs))
	return sorted[len(sorted)/2]
}

// interval is the time between two saves, and why.
func (p *Pace) interval() (time.Duration, string) {
	if !p.policy.Auto {
		return p.policy.Time, fmt.Sprintf("each %s, as the job says", p.policy.Time)
	}
	between := p.policy.Between
	if between <= 0 {
		between = checkpoint.TimeBetweenFailures(1, 0)
	}
	cost := p.cost()
	if cost <= 0 {
		every := min(firstAuto, max(between/2, shortestAuto))
		return every, fmt.Sprintf("auto: the first after %s, to learn what a save costs", round(every))
	}
	every := checkpoint.Interval(cost, between, max(p.took, shortestAuto))
	why := fmt.Sprintf("auto: a save costs %s and a failure comes each %s", round(cost), round(between))
	if every > longestAuto {
		return longestAuto, why + fmt.Sprintf(": %s by that, at most %s", round(every), round(longestAuto))
	}
	return every, why
}

// round writes of a duration what people want to read: "46ms", "10m", "1h8m", "2085 days".
func round(d time.Duration) string {
	if d >= 10*24*time.Hour {
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
	for _, unit := range []time.Duration{time.Hour, time.Minute, time.Second, time.Millisecond} {
		if d >= 10*unit {
			d = d.Round(unit)
			break
		}
	}
	text := d.String()
	if whole, is := strings.CutSuffix(text, "m0s"); is {
		text = whole + "m"
	}
	if whole, is := strings.CutSuffix(text, "h0m"); is {
		text = whole + "h"
	}
	return text
}
