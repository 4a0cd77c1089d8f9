package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// Scenario is all that a run meets: the nodes, what is submitted, what goes wrong, and when. What is drawn from a Config is
// written down before the run begins, so that a run can be repeated without some of it: that is how a failure becomes
// small. Only the delays of messages are drawn on the way, from Seed. Equal scenarios give equal reports. Its JSON form
// is the file of `gangline sim run --scenario`.
type Scenario struct {
	Format int    `json:"gangline_scenario"` // scenarioFormat
	Commit string `json:"commit,omitempty"`  // of the program that found it
	Error  string `json:"error,omitempty"`   // what it shows
	Seed   uint64 `json:"seed"`              // it was drawn from; of the delays too

	Setting  Setting         `json:"setting"`
	Machines []Machine       `json:"nodes"`
	Policy   *cluster.Policy `json:"policy,omitempty"` // nil: the default, and admins that are not there
	Jobs     []Submission    `json:"jobs"`             // by Arrives
	Faults   []Happening     `json:"faults"`           // by At; what admins do is among them

	// Mishaps says of each kind of mishap which of the occasions it strikes, counted from 0, ascending. Nil: each occasion
	// has the chance that Rates give it.
	Mishaps *[mishaps][]int `json:"mishaps,omitempty"`
}

const scenarioFormat = 1

// Setting is the part of a Config that a run needs itself; see there.
type Setting struct {
	Horizon         Span  `json:"horizon"`
	Varied          bool  `json:"varied,omitempty"`
	Calm            bool  `json:"calm,omitempty"` // nothing goes wrong but Faults
	Servers         int   `json:"servers"`
	Lease           Span  `json:"lease"`
	StartDelay      Span  `json:"start_delay"`
	CheckpointEach  Span  `json:"checkpoint_each"`
	CheckEvery      int   `json:"check_every,omitempty"`
	KeepFinal       int   `json:"keep_final"`
	ForgetLostNodes Span  `json:"forget_lost_nodes"`
	LaunchTimeout   Span  `json:"launch_timeout"`
	Skew            Span  `json:"first_leader_skew,omitempty"`
	RepeatDelay     Span  `json:"repeat_delay"`
	Rates           Rates `json:"-"` // of mishaps, where a scenario does not name them
}

// Submission is a job of a scenario.
type Submission struct {
	Request  string            `json:"request"`
	User     string            `json:"user"`
	Arrives  Span              `json:"arrives"`             // after the beginning
	Service  Span              `json:"service"`             // training time of one undisturbed epoch
	FailsAt  Span              `json:"fails_at,omitempty"`  // work at which a worker fails, once; 0: never
	CancelAt Span              `json:"cancel_at,omitempty"` // after the acknowledgement; 0: never
	Follows  cluster.Condition `json:"follows,omitempty"`   // how a job before it must have ended; 0: it follows none
	Spec     *cluster.JobSpec  `json:"spec"`
}

// Span is a duration that is written as "1h30m".
type Span time.Duration

// MarshalText implements encoding.TextMarshaler.
func (s Span) MarshalText() ([]byte, error) { return []byte(time.Duration(s).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Span) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	*s = Span(d)
	return err
}

// control is how the leader steps.
func (s *Setting) control() control.Config {
	c := control.DefaultConfig()
	c.KeepFinal, c.ForgetLostNodes, c.LaunchTimeout = s.KeepFinal, time.Duration(s.ForgetLostNodes), time.Duration(s.LaunchTimeout)
	return c
}

// Validate returns every problem of the scenario at once, joined, or nil.
func (sc *Scenario) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if sc.Format != scenarioFormat {
		bad("gangline_scenario: %d is not a format that this release reads (%d): is it a scenario, and of this release?", sc.Format, scenarioFormat)
	}
	s := &sc.Setting
	cfg := Config{
		Nodes: len(sc.Machines), GPUsPerNode: 1, Jobs: len(sc.Jobs), Horizon: time.Duration(s.Horizon), Load: 1, Servers: s.Servers,
		Lease: time.Duration(s.Lease), StartDelay: time.Duration(s.StartDelay), CheckpointEach: time.Duration(s.CheckpointEach), CheckEvery: s.CheckEvery,
	}
	errs = append(errs, cfg.Validate())
	if s.KeepFinal < 1 || s.ForgetLostNodes <= 0 || s.LaunchTimeout <= 0 || s.RepeatDelay <= 0 {
		bad("setting: keep_final, forget_lost_nodes, launch_timeout and repeat_delay must be above 0")
	}
	numbers, requests := map[int]bool{}, map[string]bool{}
	for i := range sc.Machines {
		m := &sc.Machines[i]
		if m.GPUs < 1 || m.GPUs > 16 || m.Number < 0 || m.Rack < 0 || m.Type == "" || numbers[m.Number] {
			bad("nodes: node %d: needs a number of its own, 1 to 16 GPUs, a type and a rack", m.Number)
		}
		numbers[m.Number] = true
	}
	if sc.Policy != nil {
		errs = append(errs, sc.Policy.Validate())
	}
	for i := range sc.Jobs {
		j := &sc.Jobs[i]
		if j.Spec == nil || j.Request == "" || requests[j.Request] || j.Arrives < 0 || j.Service <= 0 || j.FailsAt < 0 || j.CancelAt < 0 {
			bad("jobs: number %d: needs a request of its own, a spec, and times that are not negative", i)
			continue
		}
		requests[j.Request] = true
		if err := j.Spec.Validate(); err != nil {
			bad("jobs: %s: %w", j.Request, err)
		}
	}
	for i := range sc.Faults {
		if err := sc.Faults[i].validate(); err != nil {
			bad("faults: number %d: %w", i, err)
		}
	}
	return errors.Join(errs...)
}

// Encode writes the scenario as JSON, a line for each node, job and fault. What has no value is left out.
func (sc *Scenario) Encode() ([]byte, error) {
	flat, err := json.Marshal(sc)
	if err != nil {
		return nil, err
	}
	var tree map[string]json.RawMessage
	if err := json.Unmarshal(flat, &tree); err != nil {
		return nil, err
	}
	return layOut(tree)
}
