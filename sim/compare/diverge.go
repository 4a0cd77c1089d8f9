package compare

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/gangline/gangline/sim/replay"
)

// Difference is a decision that two runs took otherwise.
type Difference struct {
	Nth   int     `json:"decisions_before"` // that were alike
	At    float64 `json:"at_s"`             // virtual seconds
	First Side    `json:"first"`            // what the first run did
	This  Side    `json:"this"`
}

// Side is what one run did, and what it made of the other's job then.
type Side struct {
	Job   string  `json:"job,omitempty"` // empty: it decided nothing more
	Did   string  `json:"did"`
	At    float64 `json:"at_s"`
	Other string  `json:"other_job,omitempty"` // where the other run's job was then, and why
}

// maxDecisions bounds the decisions that are compared: 16 bytes each.
const maxDecisions = 1 << 24

// page is what was decided in one moment. What happens at once has no order that matters, so it is sorted by jobs.
type page struct{ all []*replay.Decision }

// add takes in a decision, and returns the page before it if that is full.
func (p *page) add(x *replay.Decision) (full []*replay.Decision) {
	if len(p.all) > 0 && (p.all[0].At != x.At || p.all[0].Part != x.Part) {
		full = p.turn()
	}
	c := *x
	p.all = append(p.all, &c)
	return full
}

// turn returns what was decided and begins a page.
func (p *page) turn() []*replay.Decision {
	full := p.all
	p.all = nil
	slices.SortStableFunc(full, func(a, b *replay.Decision) int { return cmp.Compare(a.Row, b.Row) })
	return full
}

// diary remembers decisions, or compares them with another diary.
type diary struct {
	who, where []uint64 // by decision: a hash of job, time and kind; of the nodes

	against      *diary
	now          page
	n            int
	order, place *moment
}

// moment is the place of a difference: the decision's number and what this run did; nil: nothing.
type moment struct {
	nth int
	did *replay.Decision
}

func (d *diary) watch() *replay.Watch {
	return &replay.Watch{Decision: func(x *replay.Decision) { d.note(d.now.add(x)) }}
}

// close takes in the last page.
func (d *diary) close() {
	d.note(d.now.turn())
	if d.against != nil && d.order == nil && d.n < min(len(d.against.who), maxDecisions) {
		d.order = &moment{nth: d.n} // it decided nothing more
	}
}

func (d *diary) note(all []*replay.Decision) {
	for _, x := range all {
		n := d.n
		d.n++
		if d.order != nil || n >= maxDecisions {
			return
		}
		who, where := hashes(x)
		switch a := d.against; {
		case a == nil:
			d.who, d.where = append(d.who, who), append(d.where, where)
		case n >= len(a.who) || who != a.who[n]:
			d.order = &moment{n, x}
		case d.place == nil && where != a.where[n]:
			d.place = &moment{n, x}
		}
	}
}

func hashes(x *replay.Decision) (who, where uint64) {
	who = xxh3.HashString(fmt.Sprintf("%s %d %d %t", x.Part, x.At, x.Row, x.Stop))
	for _, p := range x.Places {
		where = where*31 + xxh3.HashString(p.Node)*uint64(1+len(p.GPUs))
	}
	return who, where
}

// explain replays both runs up to where they differ. It returns nil if they do not.
func explain(a, b *Run, at *moment) (*Difference, error) {
	if at == nil {
		return nil, nil
	}
	here := &scene{nth: at.nth, other: at.did}
	if err := here.play(a); err != nil {
		return nil, err
	}
	there := &scene{nth: at.nth, other: here.did}
	if err := there.play(b); err != nil {
		return nil, err
	}
	d := &Difference{Nth: at.nth, First: here.side(), This: there.side()}
	switch {
	case here.did == nil:
		d.At = d.This.At
	case there.did == nil:
		d.At = d.First.At
	default:
		d.At = min(d.First.At, d.This.At)
	}
	return d, nil
}

// scene looks at one run where it takes another decision than the other run.
type scene struct {
	nth   int
	other *replay.Decision // what the other run did

	now    page
	n      int
	did    *replay.Decision
	status string // of the other's job
}

func (s *scene) note(all []*replay.Decision) {
	for _, x := range all {
		if s.n == s.nth {
			s.did = x
		}
		s.n++
	}
}

func (s *scene) play(r *Run) error {
	tr, err := r.Open()
	if err != nil {
		return err
	}
	cfg := r.Config
	asked := false
	cfg.Watch = &replay.Watch{
		Decision: func(x *replay.Decision) { s.note(s.now.add(x)) },
		Progress: func(p *replay.Progress) bool {
			s.note(s.now.turn()) // a page is a moment at most
			reached := s.other != nil && p.Part == s.other.Part && p.Now >= s.other.At
			if !asked && s.other != nil && (reached || s.did != nil) {
				asked = true
				s.status = statusOf(p, s.other)
			}
			return s.did == nil
		},
	}
	_, err = replay.Run(cfg, tr)
	return err
}

// statusOf says where a job is that the other run has just decided about.
func statusOf(p *replay.Progress, d *replay.Decision) string {
	state, reason, ok := p.Job(d.Row)
	if !ok {
		return "has ended, or has not come yet"
	}
	state = strings.ToLower(state)
	if reason == "" {
		return "is " + state
	}
	return "is " + state + ": " + reason
}

func (s *scene) side() Side {
	if s.did == nil {
		return Side{Did: "decided nothing more", Other: s.status}
	}
	out := Side{Job: s.did.Job.ID, At: s.did.At.Seconds(), Did: didText(s.did), Other: s.status}
	if s.other != nil && s.other.Row == s.did.Row && s.did.At <= s.other.At {
		out.Other = "" // it is the same job
	}
	return out
}

// didText says what a decision was.
func didText(d *replay.Decision) string {
	size := fmt.Sprintf("job %s (queue %s, %d GPU%s)", d.Job.ID, d.Job.Queue, d.Job.GPUs, plural(int(d.Job.GPUs)))
	if d.Stop {
		return "stopped " + size + ": " + d.Reason
	}
	var at []string
	for i, p := range d.Places {
		if i == mostNodes {
			at = append(at, fmt.Sprintf("and %d more", len(d.Places)-i))
			break
		}
		at = append(at, fmt.Sprintf("%s (%d)", p.Node, len(p.GPUs)))
	}
	waited := "as it came"
	if w := d.At - d.Job.Submit; w > 0 {
		waited = replay.TimeText(w.Seconds()) + " after it came"
	}
	return fmt.Sprintf("started %s on %s, %s", size, strings.Join(at, ", "), waited)
}

// mostNodes bounds the nodes that a text lists.
const mostNodes = 8

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// Text says what the side did, and when, if that was later than the difference.
func (s *Side) Text(d *Difference) string {
	if s.Job == "" || s.At == d.At {
		return s.Did
	}
	return fmt.Sprintf("only %s later %s", replay.TimeText(s.At-d.At), s.Did)
}
