package sim

import (
	"errors"
	"strings"
	"time"
)

// FuzzConfig draws a small world from a seed, with every kind of job, node and fault. Small, because many small worlds find
// more than one large one, and because a failure should be read by people.
func FuzzConfig(seed uint64) Config {
	rng := stream(seed, streamFuzz)
	cfg := DefaultConfig()
	cfg.Seed = seed
	cfg.Nodes, cfg.GPUsPerNode, cfg.Mixed = 1+rng.IntN(9), 1<<rng.IntN(4), rng.IntN(3) > 0
	cfg.Jobs = 5 + rng.IntN(36)
	cfg.Horizon = time.Duration(20+rng.IntN(100)) * time.Minute
	cfg.Load = 0.2 * float64(1+rng.IntN(10))
	cfg.Varied = rng.IntN(8) > 0
	cfg.Servers = [...]int{1, 3, 3, 3, 5}[rng.IntN(5)]
	cfg.StartDelay = time.Duration(1+rng.IntN(40)) * time.Second
	cfg.CheckpointEach = time.Duration(1+rng.IntN(10)) * time.Minute
	cfg.CheckEvery = 1
	if rng.IntN(4) == 0 { // histories that are cut short
		cfg.Control.KeepFinal, cfg.Control.ForgetLostNodes = 1+rng.IntN(5), time.Duration(1+rng.IntN(10))*time.Minute
	}
	r := &cfg.Rates
	for _, rate := range []*float64{
		&r.NodeFailures, &r.AgentRestarts, &r.Partitions, &r.SupervisorsLost, &r.GPUFailures, &r.Drains, &r.LeaderChanges, &r.RackFailures, &r.PolicyChanges,
	} {
		*rate *= [...]float64{0.5, 1, 2, 5, 12}[rng.IntN(5)]
	}
	for _, rate := range []*float64{&r.ReportLost, &r.ReportRepeated, &r.OrderRepeated, &r.SubmitRepeated, &r.Stubborn, &r.Cancelled} {
		*rate = [...]float64{0.02, 0.05, 0.15, 0.3}[rng.IntN(4)]
	}
	r.LeaderClockSkew = [...]time.Duration{0, 2 * time.Second, time.Minute, time.Hour}[rng.IntN(4)]
	return cfg
}

// Failure is a run of a drawn world in which something was wrong.
type Failure struct {
	Scenario *Scenario // with all mishaps written down: to play it is to see the failure again
	Err      *Error
}

// Fuzz plays the world of one seed and says how it went. A nil Failure: nothing was wrong.
func Fuzz(seed uint64) (Report, *Failure) { return fuzz(Draw(FuzzConfig(seed)), newWorld) }

// fuzz plays a scenario in a world that build makes of it; tests build worlds with planted bugs.
func fuzz(sc *Scenario, build func(*Scenario) *world) (Report, *Failure) {
	w := build(sc)
	r, err := play(w)
	if err == nil {
		return r, nil
	}
	written := sc.clone()
	struck := w.luck.struck
	written.Mishaps = &struck
	written.Error = firstLine(err.Cause.Error())
	return r, &Failure{Scenario: written, Err: err}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// symptom is what two failures of one cause have in common: their words, without numbers, names and what came before. A
// scenario that is made smaller must go on showing the same one.
func symptom(err error) string {
	var e *Error
	if errors.As(err, &e) {
		err = e.Cause
	}
	text := firstLine(err.Error())
	if rest, ok := strings.CutPrefix(text, "after "); ok { // "after COMMAND: what"
		if i := strings.LastIndex(rest, ": "); i >= 0 && !strings.HasPrefix(rest, "the faults") {
			text = rest[i+2:]
		}
	}
	if strings.HasPrefix(text, "not live: ") {
		return "not live"
	}
	var words []string
	for _, w := range strings.Fields(text) {
		if !strings.ContainsAny(w, "0123456789/-") && len(words) < 6 {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}
