package sim

import (
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Shrink makes a failing scenario smaller for as long as it shows the same failure, playing at most so many candidates. It
// takes away what came after the failure, then faults, jobs, mishaps and nodes, many at once and then one by one (the
// method of Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002), then makes what is left
// plainer: jobs of one GPU, no policy, one server. It returns the smallest failure found, and how many were played.
func Shrink(f *Failure, plays int) (*Failure, int) { return shrinkWith(f, plays, newWorld) }

// shrinkWith is Shrink in worlds that build makes.
func shrinkWith(f *Failure, plays int, build func(*Scenario) *world) (*Failure, int) {
	s := &shrinker{best: f, want: symptom(f.Err), left: plays, build: build}
	for before := -1; before != s.size() && s.left > 0; {
		before = s.size()
		s.cutTail()
		s.thinFaults()
		s.thinJobs()
		s.thinMishaps()
		s.thinMachines()
		s.plainer()
	}
	return s.best, plays - s.left
}

type shrinker struct {
	best  *Failure
	want  string
	left  int
	build func(*Scenario) *world
}

// size is how much a person has to read.
func (s *shrinker) size() int { return s.best.Scenario.Size() }

// Size is how many nodes, jobs, faults and mishaps a scenario has, and parts of its policy.
func (sc *Scenario) Size() int {
	n := len(sc.Machines) + len(sc.Jobs) + len(sc.Faults)
	if sc.Mishaps != nil {
		for _, at := range sc.Mishaps {
			n += len(at)
		}
	}
	if sc.Policy != nil {
		n += 1 + len(sc.Policy.Queues) + len(sc.Policy.Windows)
	}
	return n
}

// try plays a candidate and keeps it if it fails in the same way.
func (s *shrinker) try(change func(*Scenario)) bool {
	if s.left <= 0 {
		return false
	}
	c := s.best.Scenario.clone()
	change(c)
	if c.same(s.best.Scenario) || c.Validate() != nil {
		return false
	}
	s.left--
	_, f := fuzz(c, s.build)
	if f == nil || symptom(f.Err) != s.want {
		return false
	}
	s.best = f
	return true
}

// cutTail drops what would have come after the failure, and the time in which nothing happens.
func (s *shrinker) cutTail() {
	w := s.build(s.best.Scenario)
	r, _ := play(w)
	end := Span(r.VirtualSeconds * float64(time.Second))
	s.try(func(c *Scenario) {
		c.Jobs = slices.DeleteFunc(c.Jobs, func(j Submission) bool { return j.Arrives > end })
		c.Faults = slices.DeleteFunc(c.Faults, func(h Happening) bool { return h.At > end })
	})
	last := Span(time.Minute)
	for i := range s.best.Scenario.Jobs {
		last = max(last, s.best.Scenario.Jobs[i].Arrives+Span(time.Second))
	}
	for i := range s.best.Scenario.Faults {
		last = max(last, s.best.Scenario.Faults[i].At+Span(time.Second))
	}
	for _, horizon := range []Span{last, last + Span(10*time.Minute), min(last*2, s.best.Scenario.Setting.Horizon)} {
		if horizon < s.best.Scenario.Setting.Horizon && s.try(func(c *Scenario) { c.Setting.Horizon = horizon }) {
			return
		}
	}
}

// thin takes away as many of n things as it can: halves, quarters, and so on down to one. without makes the candidate
// that lacks some.
func (s *shrinker) thin(count func() int, without func(c *Scenario, from, to int)) {
	for chunk := max(count()/2, 1); ; chunk /= 2 {
		for from := 0; from < count() && s.left > 0; {
			to := min(from+chunk, count())
			if !s.try(func(c *Scenario) { without(c, from, to) }) {
				from = to
			}
		}
		if chunk <= 1 {
			return
		}
	}
}

func (s *shrinker) thinFaults() {
	s.thin(func() int { return len(s.best.Scenario.Faults) },
		func(c *Scenario, from, to int) { c.Faults = slices.Delete(c.Faults, from, to) })
}

func (s *shrinker) thinJobs() {
	s.thin(func() int { return len(s.best.Scenario.Jobs) },
		func(c *Scenario, from, to int) { c.Jobs = slices.Delete(c.Jobs, from, to) })
}

func (s *shrinker) thinMachines() {
	s.thin(func() int { return len(s.best.Scenario.Machines) }, func(c *Scenario, from, to int) {
		gone := map[int]bool{}
		for i := from; i < to; i++ {
			gone[c.Machines[i].Number] = true
		}
		c.Machines = slices.Delete(c.Machines, from, to)
		c.Faults = slices.DeleteFunc(c.Faults, func(h Happening) bool {
			return gone[h.Node] && h.Kind != leaderFalls && h.Kind != policyChanges
		})
	})
}

func (s *shrinker) thinMishaps() {
	s.try(func(c *Scenario) { *c.Mishaps = [mishaps][]int{} })
	for m := range mishaps {
		s.try(func(c *Scenario) { c.Mishaps[m] = nil })
		s.thin(func() int { return len(s.best.Scenario.Mishaps[m]) }, func(c *Scenario, from, to int) {
			c.Mishaps[m] = slices.Delete(slices.Clone(c.Mishaps[m]), from, to)
		})
	}
}

// plainer makes what is left simpler, one property at a time.
func (s *shrinker) plainer() {
	s.try(func(c *Scenario) { c.Setting.Servers = 1 })
	s.try(func(c *Scenario) { c.Setting.Skew = 0 })
	s.try(func(c *Scenario) {
		for i := range c.Faults {
			c.Faults[i].Skew = 0
		}
	})
	if !s.try(func(c *Scenario) { c.Policy = nil }) && !s.try(func(c *Scenario) { c.Policy = cluster.DefaultPolicy() }) {
		s.plainerPolicy()
	}
	for i := range s.best.Scenario.Faults {
		s.try(func(c *Scenario) { c.Faults[i].Reimaged = false })
	}
	for i := range s.best.Scenario.Jobs {
		s.plainerJob(i)
	}
}

func (s *shrinker) plainerPolicy() {
	if s.best.Scenario.Policy == nil {
		return
	}
	edit := func(change func(*cluster.Policy)) {
		s.try(func(c *Scenario) {
			p := *c.Policy
			change(&p)
			c.Policy = &p
		})
	}
	std := cluster.DefaultPolicy()
	edit(func(p *cluster.Policy) { p.Queues = nil })
	edit(func(p *cluster.Policy) { p.Windows = nil })
	edit(func(p *cluster.Policy) { p.Order = std.Order })
	edit(func(p *cluster.Policy) { p.Preemption = std.Preemption })
	edit(func(p *cluster.Policy) { p.Backfill = std.Backfill })
	edit(func(p *cluster.Policy) { p.Defrag = std.Defrag })
	edit(func(p *cluster.Policy) { p.Levels = std.Levels })
}

func (s *shrinker) plainerJob(i int) {
	edit := func(change func(*Submission, *cluster.JobSpec)) {
		s.try(func(c *Scenario) {
			spec := *c.Jobs[i].Spec
			c.Jobs[i].Spec = &spec
			change(&c.Jobs[i], &spec)
		})
	}
	edit(func(j *Submission, _ *cluster.JobSpec) { j.CancelAt = 0 })
	edit(func(j *Submission, _ *cluster.JobSpec) { j.FailsAt = 0 })
	edit(func(j *Submission, _ *cluster.JobSpec) { j.Follows = 0 })
	edit(func(_ *Submission, p *cluster.JobSpec) { p.Array = cluster.ArraySpec{} })
	edit(func(_ *Submission, p *cluster.JobSpec) { p.OnFailure = cluster.FailureRestarts })
	edit(func(_ *Submission, p *cluster.JobSpec) { p.MinGPUs, p.OnFailure = 0, cluster.FailureRestarts })
	edit(func(_ *Submission, p *cluster.JobSpec) {
		p.Topology, p.Selector, p.GPUTypes = cluster.TopologyWish{}, nil, nil
	})
	edit(func(_ *Submission, p *cluster.JobSpec) {
		p.GPUs, p.MinGPUs, p.GPUsPerNode, p.GPUMilli, p.OnFailure = 1, 0, 0, 0, cluster.FailureRestarts
	})
	edit(func(_ *Submission, p *cluster.JobSpec) { p.CPUPerGPU, p.MemPerGPU, p.GPUsPerNode = 0, 0, 0 })
	edit(func(_ *Submission, p *cluster.JobSpec) { p.TimeLimit = 0 })
	edit(func(_ *Submission, p *cluster.JobSpec) {
		p.Priority, p.Retries, p.Preemptible = cluster.DefaultPrio, 0, false
	})
}
