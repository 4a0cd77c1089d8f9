package worker

import "time"

const (
	// orphanGrace is the time that processes left behind by an exited worker get between SIGTERM and SIGKILL.
	orphanGrace = 5 * time.Second
	// Waits between two SIGKILL rounds: something may have forked meanwhile, or sit in a system call that cannot end.
	killAgainMin = 20 * time.Millisecond
	killAgainMax = time.Second
)

// stage is one step of the stop handshake.
type stage int

const (
	stageWarn stage = iota // warning signal to the one program that handles it
	stageTerm              // SIGTERM to every process
	stageKill              // SIGKILL to every process; comes again until none is left
)

// stopPlan is the stop handshake as a value: requests come in, due stages come out. It holds no clock.
type stopPlan struct {
	requested time.Time // zero until the first request
	reason    string
	signal    string

	warn   bool // a warning is owed
	warned bool
	termed bool
	termAt time.Time // zero: never
	killAt time.Time
	again  time.Duration // present wait between kill rounds; 0 before the first
}

// request merges a stop: the first one opens the handshake, later ones can only bring the deadlines forward.
func (p *stopPlan) request(now time.Time, s Stop) {
	if p.requested.IsZero() {
		p.requested, p.reason, p.signal = now, s.Reason, s.Signal
		p.warn = s.Warn > 0 && !p.termed
	}
	p.shorten(now.Add(s.Warn), now.Add(s.Warn+s.Grace))
}

// orphans turns the plan to what an exited main process left behind. If a stop has killed it, it was a shell or a
// launcher, and the program beneath it has the stop's whole grace.
func (p *stopPlan) orphans(now time.Time, killed bool) {
	p.warn = false
	grace := orphanGrace
	if killed && !p.requested.IsZero() {
		grace = max(grace, p.killAt.Sub(p.termAt))
	}
	p.shorten(now, now.Add(grace))
}

func (p *stopPlan) shorten(term, kill time.Time) {
	if p.termAt.IsZero() || term.Before(p.termAt) {
		p.termAt = term
	}
	if p.again == 0 && (p.killAt.IsZero() || kill.Before(p.killAt)) {
		p.killAt = kill
	}
}

// due returns the stages to carry out now, in order, and moves the plan past them.
func (p *stopPlan) due(now time.Time) []stage {
	var stages []stage
	kill := !p.killAt.IsZero() && !now.Before(p.killAt)
	if p.warn && !kill {
		p.warn, p.warned = false, true
		stages = append(stages, stageWarn)
	}
	if !kill && !p.termed && !p.termAt.IsZero() && !now.Before(p.termAt) {
		p.termed, p.warn = true, false
		stages = append(stages, stageTerm)
	}
	if kill {
		p.warn, p.termed = false, true
		p.again = min(max(2*p.again, killAgainMin), killAgainMax)
		p.killAt = now.Add(p.again)
		stages = append(stages, stageKill)
	}
	return stages
}

// next is when due has something to say again; false for never.
func (p *stopPlan) next() (time.Time, bool) {
	at := p.killAt
	if !p.termed && !p.termAt.IsZero() && (at.IsZero() || p.termAt.Before(at)) {
		at = p.termAt
	}
	return at, !at.IsZero()
}
