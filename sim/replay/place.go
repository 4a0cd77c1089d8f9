package replay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// PlaceConfig is how an order of arrivals is placed. Equal configs and orders give equal reports.
type PlaceConfig struct {
	// Score chooses the nodes. Default gangline.
	Score cluster.ScoreName
	// Departures is the load of a run with departures: the GPU time that arrives, as a part of what there is. Arrivals
	// are then a Poisson process of pods drawn from the order, lifetimes are exponential, and what finds no room is
	// lost. 0: each pod of the order arrives once and stays.
	Departures float64
	Seed       uint64 // of the run with departures
	// Known tells the score the mix of all pods from the start, as the published figures have it. Else it learns the
	// mix as pods arrive.
	Known bool
	// Warmup and Span are the time before measuring and that of measuring, with departures, in mean lifetimes.
	// Defaults 3 and 6.
	Warmup, Span float64
	// Progress is told, after each arrival, which part is done, 0..1; it must be fast. If it returns false the run ends
	// there and its report is marked as partial. Nil: nobody is told.
	Progress func(part float64) bool
	// Pod is told of each arrival: where it was placed, or an empty node if it found no room. An error ends the run. Nil:
	// nobody is told.
	Pod func(p *trace.Job, node string) error
}

// DefaultPlaceConfig returns the defaults named in PlaceConfig.
func DefaultPlaceConfig() PlaceConfig {
	return PlaceConfig{Score: cluster.ScoreGangline, Warmup: 3, Span: 6, Seed: 1}
}

// Validate returns every problem of the config at once, joined, or nil.
func (c *PlaceConfig) Validate() error {
	var errs []error
	p := cluster.DefaultPolicy()
	p.Score = c.Score
	errs = append(errs, p.Validate())
	if !(c.Departures >= 0 && c.Departures <= 100) {
		errs = append(errs, fmt.Errorf("departures: a load of %g is not in 0..100", c.Departures))
	}
	if !(c.Warmup >= 0 && c.Warmup <= 1e6) || !(c.Span > 0 && c.Span <= 1e6) {
		errs = append(errs, fmt.Errorf("warm-up and span: %g and %g mean lifetimes are not in 0..1e6", c.Warmup, c.Span))
	}
	return errors.Join(errs...)
}

// Place places pods on nodes, without a queue: what finds no room when it arrives is lost.
func Place(cfg PlaceConfig, pods []trace.Job, nodes []trace.Node) (*PlaceReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	y, err := newYard(&cfg, nodes)
	if err != nil {
		return nil, err
	}
	if cfg.Known {
		for i := range pods {
			y.mix.note(&pods[i])
		}
		y.learn()
	}
	r := &PlaceReport{
		Score: string(cfg.Score), Load: cfg.Departures, Nodes: len(nodes), GPUs: trace.Capacity(nodes),
		Arrived: newSizes(), Placed: newSizes(),
	}
	if cfg.Departures > 0 {
		r.Seed = cfg.Seed
		err = y.churn(r, pods)
	} else {
		err = y.fill(r, pods)
	}
	r.Fragmented = 100 * y.fragmented(pods) / float64(r.GPUs*cluster.WholeGPU)
	return r, err
}

// fill lets each pod arrive once. None leaves.
func (y *yard) fill(r *PlaceReport, pods []trace.Job) error {
	room, arrived := r.GPUs*cluster.WholeGPU, int64(0)
	allocated := func() float64 { return 100 * float64(y.used) / float64(room) }
	for i := range pods {
		p := &pods[i]
		arrived += volume(p)
		l, err := y.place(p)
		if err != nil {
			return err
		}
		r.count(p, l != nil)
		if err := y.tell(p, l); err != nil {
			return err
		}
		for int64(len(r.ByArrived))*room <= 100*arrived { // this percent of the capacity has arrived
			r.ByArrived = append(r.ByArrived, allocated())
		}
		if r.Partial = !y.goOn(float64(i+1) / float64(len(pods))); r.Partial {
			break
		}
	}
	r.Allocated = allocated()
	return nil
}

// churn lets pods come and go. Pods without GPUs are left out: how long they stay would decide the outcome, and nobody
// has published it.
func (y *yard) churn(r *PlaceReport, all []trace.Job) error {
	var pods []*trace.Job
	sum := int64(0)
	for i := range all {
		if p := &all[i]; p.GPUs > 0 {
			pods = append(pods, p)
			sum += volume(p)
		}
	}
	if len(pods) == 0 {
		return errors.New("the order has no pod with a GPU: nothing would arrive")
	}
	room := float64(r.GPUs * cluster.WholeGPU)
	rate := y.cfg.Departures * room / (float64(sum) / float64(len(pods))) // arrivals in a mean lifetime
	chance := rand.New(rand.NewPCG(y.cfg.Seed, 0x706c616365))             //nolint:gosec // G404: a simulation must be repeatable
	var leave heap
	live := map[cluster.JobID]*lodger{}
	area, next := 0.0, cluster.JobID(0)
	measured := span{stamp(y.cfg.Warmup), stamp(y.cfg.Warmup + y.cfg.Span)}
	now, last := 0.0, cluster.Time(0)
	tick := func(t cluster.Time) { // what was used until t
		area += float64(float64(y.used) * span{last, t}.within(measured)) // rounded before it is added, on every machine alike
		last = t
	}
	for {
		now += chance.ExpFloat64() / rate
		p := pods[chance.IntN(len(pods))]
		life := chance.ExpFloat64()
		for len(leave) > 0 && leave[0].at <= stamp(now) {
			e := leave.pop()
			tick(e.at)
			y.remove(live[e.job])
			delete(live, e.job)
		}
		tick(stamp(now))
		if last >= measured.to {
			break
		}
		l, err := y.place(p)
		if err != nil {
			return err
		}
		r.count(p, l != nil)
		if err := y.tell(p, l); err != nil {
			return err
		}
		if r.Partial = !y.goOn(now / (y.cfg.Warmup + y.cfg.Span)); r.Partial {
			measured.to = last
			break
		}
		if l != nil {
			next++
			live[next] = l
			leave.push(event{at: stamp(now + life), seq: uint64(next), job: next}) //nolint:gosec // positive
		}
	}
	if span := measured.within(measured); span > 0 { // else it was interrupted before there was anything to measure
		r.Allocated = 100 * area / room / span
	}
	return nil
}

// tell tells of an arrival.
func (y *yard) tell(p *trace.Job, l *lodger) error {
	if y.cfg.Pod == nil {
		return nil
	}
	node := ""
	if l != nil {
		node = y.nodes[y.index[l.parts[0].Node]].Name
	}
	return y.cfg.Pod(p, node)
}

// goOn tells how far the run is, and reports whether it is to go on.
func (y *yard) goOn(part float64) bool { return y.cfg.Progress == nil || y.cfg.Progress(part) }

// stamp is a moment of a run with departures: a mean lifetime is an hour of the heap's time.
func stamp(lifetimes float64) cluster.Time {
	return cluster.Time(lifetimes * float64(time.Hour))
}

// volume is what a pod asks of GPUs, in thousandths.
func volume(p *trace.Job) int64 { return int64(p.GPUs) * int64(p.Milli) }
