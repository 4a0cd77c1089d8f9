package replay

import (
	"errors"
	"fmt"

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
	// Own lets each pod that arrives, with departures, stay for as long as it did in the order (trace.Job.Length), instead
	// of an exponential time; pods of which that is not known are left out. The run begins in the balance of arrivals
	// and departures: with pods in number and age as they would be there if none was ever lost.
	Own  bool
	Seed uint64 // of the run with departures
	// Known tells the score the mix of all pods from the start, as the published figures have it. Else it learns the
	// mix as pods arrive.
	Known bool
	// Warmup and Span are the time before measuring and that of measuring, with departures, in mean lifetimes of a GPU's use.
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
	if c.Own && c.Departures == 0 {
		errs = append(errs, errors.New("own lifetimes: without departures nothing leaves: give a load"))
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
		Score: string(cfg.Score), Load: cfg.Departures, Own: cfg.Own, Nodes: len(nodes), GPUs: trace.Capacity(nodes),
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

// volume is what a pod asks of GPUs, in thousandths.
func volume(p *trace.Job) int64 { return int64(p.GPUs) * int64(p.Milli) }
