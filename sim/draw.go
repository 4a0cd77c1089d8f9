package sim

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

// Streams of random numbers: a change to one part of the simulator leaves the numbers of the others alone.
const (
	streamWorkload = iota + 1
	streamNet
	streamChance
	streamKinds
	streamAdmins
	streamMachines
	streamFuzz
	streamMishaps // and those behind it, one for each kind
)

func stream(seed, n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }

// Draw makes a scenario from a valid config: the nodes, the jobs, and the faults with their times.
func Draw(cfg Config) *Scenario {
	ms := makeMachines(cfg, stream(cfg.Seed, streamMachines))
	sc := &Scenario{
		Format: scenarioFormat, Seed: cfg.Seed, Machines: ms,
		Setting: Setting{
			Horizon: Span(cfg.Horizon), Varied: cfg.Varied, Calm: !cfg.Faults, Servers: cfg.Servers, Lease: Span(cfg.Lease),
			StartDelay: Span(cfg.StartDelay), CheckpointEach: Span(cfg.CheckpointEach), CheckEvery: cfg.CheckEvery,
			KeepFinal: cfg.Control.KeepFinal, ForgetLostNodes: Span(cfg.Control.ForgetLostNodes), LaunchTimeout: Span(cfg.Control.LaunchTimeout),
			RepeatDelay: Span(max(cfg.Rates.RepeatDelay, time.Millisecond)), Rates: cfg.Rates,
		},
	}
	for _, j := range makeWorkload(cfg, ms, stream(cfg.Seed, streamWorkload), stream(cfg.Seed, streamKinds)) {
		sc.Jobs = append(sc.Jobs, Submission{
			Request: j.request, User: j.user, Arrives: Span(j.arrives), Service: Span(j.service), FailsAt: Span(j.failsAt),
			CancelAt: Span(j.cancelAt), Follows: j.follows, Spec: j.spec,
		})
	}
	admins := stream(cfg.Seed, streamAdmins)
	if cfg.Varied {
		sc.Policy = drawPolicy(ms, genesis, admins)
	}
	if cfg.Faults {
		d := &drawer{cfg: &cfg, machines: ms, rng: stream(cfg.Seed, streamChance), admins: admins}
		sc.Setting.Skew = d.skew()
		sc.Faults = d.faults()
	}
	return sc
}

// drawer draws faults.
type drawer struct {
	cfg      *Config
	machines []Machine
	rng      *rand.Rand
	admins   *rand.Rand
	out      []Happening
}

// faults draws each kind of fault again and again until the horizon.
func (d *drawer) faults() []Happening {
	r := &d.cfg.Rates
	nodes := float64(len(d.machines))
	d.each(r.NodeFailures*nodes, func(at Span) Happening { return d.crash(at, d.anyNode()) })
	d.each(r.AgentRestarts*nodes, func(at Span) Happening {
		return Happening{Kind: agentRestarts, Node: d.anyNode(), For: d.span(30 * time.Second)}
	})
	d.each(r.Partitions*nodes, func(Span) Happening {
		return Happening{Kind: nodeCutOff, Node: d.anyNode(), For: d.span(r.PartitionTime)}
	})
	d.each(r.SupervisorsLost*nodes, func(Span) Happening { return Happening{Kind: supervisorLost, Node: d.anyNode()} })
	d.each(r.GPUFailures*nodes, func(Span) Happening {
		i := d.rng.IntN(len(d.machines))
		return Happening{Kind: gpuFails, Node: d.machines[i].Number, GPU: d.rng.IntN(d.machines[i].GPUs), For: d.span(r.RepairTime)}
	})
	d.each(r.LeaderChanges, func(Span) Happening {
		return Happening{Kind: leaderFalls, Keep: d.rng.Float64(), Server: d.rng.IntN(d.cfg.Servers), For: d.within(electionDelay), Skew: d.skew()}
	})
	d.each(r.RackFailures, func(at Span) Happening {
		rack := d.machines[d.rng.IntN(len(d.machines))].Rack
		var last Happening
		for i := range d.machines {
			if d.machines[i].Rack == rack {
				if last.Kind != "" {
					d.out = append(d.out, last)
				}
				last = d.crash(at, d.machines[i].Number)
				last.At = at
			}
		}
		return last
	})
	if d.cfg.Varied {
		d.each(r.Drains*nodes, func(at Span) Happening { return d.drain() })
		if d.cfg.Seed%2 == 0 { // the others keep theirs to the end, so that all jobs end under it
			d.each(r.PolicyChanges, func(at Span) Happening {
				return Happening{Kind: policyChanges, Policy: drawPolicy(d.machines, genesis.Add(time.Duration(at)), d.admins)}
			})
		}
	}
	slices.SortStableFunc(d.out, func(a, b Happening) int { return cmp.Compare(a.At, b.At) })
	return d.out
}

// each draws happenings at random times, perHour an hour on average.
func (d *drawer) each(perHour float64, draw func(at Span) Happening) {
	if perHour <= 0 {
		return
	}
	for at := time.Duration(0); ; {
		at += max(time.Duration(d.rng.ExpFloat64()/perHour*float64(time.Hour)), time.Millisecond)
		if at >= d.cfg.Horizon {
			return
		}
		h := draw(Span(at))
		h.At = Span(at)
		d.out = append(d.out, h)
	}
}

func (d *drawer) anyNode() int { return d.machines[d.rng.IntN(len(d.machines))].Number }

func (d *drawer) crash(_ Span, node int) Happening {
	r := &d.cfg.Rates
	return Happening{Kind: nodeFails, Node: node, For: d.span(r.RepairTime), Reimaged: d.rng.Float64() < r.Reimaged}
}

func (d *drawer) drain() Happening {
	h := Happening{Kind: nodeDrained, Node: d.anyNode(), For: d.within(30 * time.Minute)}
	if d.admins.IntN(3) > 0 {
		h.Deadline = Span(d.admins.Int64N(int64(10*time.Minute))) + 1
	}
	return h
}

func (d *drawer) skew() Span {
	limit := int64(d.cfg.Rates.LeaderClockSkew)
	if limit <= 0 {
		return 0
	}
	return Span(d.rng.Int64N(2*limit+1) - limit)
}

// span is a random time of which short ones are as likely as long ones: 100 ms to most, evenly by its logarithm.
func (d *drawer) span(most time.Duration) Span {
	for most > 200*time.Millisecond && d.rng.IntN(8) > 0 {
		most /= 2
	}
	return Span(most)
}

// within is a random time from a tenth of most to most.
func (d *drawer) within(most time.Duration) Span {
	return Span(most/10 + time.Duration(d.rng.Int64N(int64(most-most/10)+1)))
}

// jobsOf makes the jobs of a scenario, as their clients know them.
func jobsOf(sc *Scenario) []*job {
	jobs := make([]*job, 0, len(sc.Jobs))
	for i := range sc.Jobs {
		s := &sc.Jobs[i]
		j := &job{
			request: s.Request, user: s.User, spec: s.Spec, arrives: time.Duration(s.Arrives), service: time.Duration(s.Service),
			failsAt: time.Duration(s.FailsAt), cancelAt: time.Duration(s.CancelAt), follows: s.Follows, fits: fits(sc.Machines, s.Spec),
		}
		jobs = append(jobs, j)
	}
	return jobs
}
