package replay

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// churn is a run with departures. Its times are in mean lifetimes of a GPU's use.
type churn struct {
	y      *yard
	r      *PlaceReport
	pods   []*trace.Job
	lives  []float64 // of the pods; nil: exponential with mean 1
	rate   float64   // arrivals in a mean lifetime
	chance *rand.Rand
	leave  heap
	live   map[cluster.JobID]*lodger
	next   cluster.JobID

	area     float64 // milli-GPUs times ticks that were used while it was measured
	measured span
	last     cluster.Time
}

// churn lets pods come and go. Pods without GPUs are left out: how long they stay would decide the outcome, and nobody
// has published it.
func (y *yard) churn(r *PlaceReport, all []trace.Job) error {
	c := &churn{y: y, r: r, live: map[cluster.JobID]*lodger{}}
	sum := 0.0 // GPU time that a pod asks for, on average
	for i := range all {
		if p := &all[i]; p.GPUs > 0 && (!y.cfg.Own || p.Length > 0) {
			c.pods = append(c.pods, p)
			sum += float64(volume(p))
		}
	}
	if len(c.pods) == 0 {
		return errors.New("the order has no pod with a GPU (whose length is known, for own lifetimes): nothing would arrive")
	}
	if y.cfg.Own {
		c.ownLives(sum)
	}
	room := float64(r.GPUs * cluster.WholeGPU)
	c.rate = y.cfg.Departures * room / (sum / float64(len(c.pods)))
	c.chance = rand.New(rand.NewPCG(y.cfg.Seed, 0x706c616365)) //nolint:gosec // G404: a simulation must be repeatable
	c.measured = span{stamp(y.cfg.Warmup), stamp(y.cfg.Warmup + y.cfg.Span)}
	if err := c.balance(); err != nil {
		return err
	}
	if err := c.run(); err != nil {
		return err
	}
	if span := c.measured.within(c.measured); span > 0 { // else it was interrupted before there was anything to measure
		r.Allocated = 100 * c.area / room / span
	}
	return nil
}

// ownLives takes the pods' lengths as lifetimes, in units of their mean, each weighted by what its pod uses: so a pod asks
// for as much GPU time on average as with exponential ones.
func (c *churn) ownLives(sum float64) {
	mean := 0.0
	for _, p := range c.pods {
		mean += float64(float64(volume(p)) / sum * p.Length.Seconds())
	}
	for _, p := range c.pods {
		c.lives = append(c.lives, p.Length.Seconds()/mean)
	}
	c.r.MeanLife = mean
}

// balance begins with pods that are there already. With Poisson arrivals and nothing lost their number is Poisson too, a
// pod is among them in proportion to its lifetime, and is as likely of any age (M/G/infinity). They come in random
// order; who finds no room is lost, as later.
func (c *churn) balance() error {
	if c.lives == nil {
		return nil // the run warms up within a few lifetimes
	}
	var sums []float64
	all := 0.0
	for _, life := range c.lives {
		all += life
		sums = append(sums, all)
	}
	mean := c.rate * all / float64(len(c.pods))
	for at := c.chance.ExpFloat64(); at < mean; at += c.chance.ExpFloat64() {
		i, _ := slices.BinarySearch(sums, c.chance.Float64()*all)
		i = min(i, len(sums)-1)
		if err := c.arrive(i, 0, c.lives[i]*c.chance.Float64()); err != nil {
			return err
		}
	}
	return nil
}

// arrive places a pod that comes at a time and will stay for a while.
func (c *churn) arrive(i int, now, life float64) error {
	p := c.pods[i]
	l, err := c.y.place(p)
	if err != nil {
		return err
	}
	c.r.count(p, l != nil)
	if err := c.y.tell(p, l); err != nil || l == nil {
		return err
	}
	c.next++
	c.live[c.next] = l
	c.leave.push(event{at: stamp(now + life), seq: uint64(c.next), job: c.next}) //nolint:gosec // positive
	return nil
}

// tick counts what was used until a time.
func (c *churn) tick(t cluster.Time) {
	c.area += float64(float64(c.y.used) * span{c.last, t}.within(c.measured)) // rounded before it is added, on every machine alike
	c.last = t
}

func (c *churn) run() error {
	for now := 0.0; ; {
		now += c.chance.ExpFloat64() / c.rate
		i := c.chance.IntN(len(c.pods))
		life := 0.0
		if c.lives == nil {
			life = c.chance.ExpFloat64()
		} else {
			life = c.lives[i]
		}
		for len(c.leave) > 0 && c.leave[0].at <= stamp(now) {
			e := c.leave.pop()
			c.tick(e.at)
			c.y.remove(c.live[e.job])
			delete(c.live, e.job)
		}
		c.tick(stamp(now))
		if c.last >= c.measured.to {
			return nil
		}
		if err := c.arrive(i, now, life); err != nil {
			return err
		}
		if c.r.Partial = !c.y.goOn(now / (c.y.cfg.Warmup + c.y.cfg.Span)); c.r.Partial {
			c.measured.to = c.last
			return nil
		}
	}
}

// stamp is a moment of a run with departures: a mean lifetime is an hour of the heap's time.
func stamp(lifetimes float64) cluster.Time {
	return cluster.Time(lifetimes * float64(time.Hour))
}
