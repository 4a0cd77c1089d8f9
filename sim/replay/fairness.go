package replay

import (
	"math"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// crowd knows how many jobs were there, over time.
type crowd struct {
	jobs int
	area float64 // job-seconds until last
	last cluster.Time
}

func (c *crowd) tick(now cluster.Time) float64 {
	if c.last != 0 {
		c.area += float64(float64(c.jobs) * now.Sub(c.last).Seconds()) // rounded at once, on every machine alike
	}
	c.last = now
	return c.area
}

// come takes in a job and returns what the area was before it.
func (c *crowd) come(now cluster.Time) float64 {
	area := c.tick(now)
	c.jobs++
	return area
}

// leave lets a job go and returns the area with it.
func (c *crowd) leave(now cluster.Time) float64 {
	area := c.tick(now)
	c.jobs--
	return area
}

// leastLength is what a job counts as at least when its fairness is judged: a job of no length would be infinitely
// delayed by any wait.
const leastLength = time.Second

// fairness is the finish-time fairness of a job that has just ended: its completion time, divided by what it would have
// been on 1/N of the cluster, its own for as long as it needs it. N is how many unfinished jobs there were on average
// while it was there, itself among them. A gang that asks for less than this share runs as long as it does; one that
// asks for more would take turns with itself, longer in proportion. 1 or less: sharing the cluster cost it nothing.
// (Mahajan et al., "Themis: Fair and Efficient GPU Cluster Scheduling", NSDI 2020, section 4.1; what a rigid gang does
// with a smaller share is not in it.)
func (w *world) fairness(a *attempt) float64 {
	area := w.crowd.leave(w.now)
	jct := (a.ended.Sub(genesis) - a.job.Submit).Seconds()
	alone := max(a.job.Length, leastLength).Seconds()
	if jct <= 0 {
		return math.Min(1, jct/alone)
	}
	others := math.Max((area-a.crowd)/jct, 1)
	share := float64(w.capacity) / others
	asked := float64(int64(a.job.GPUs)*int64(a.job.Milli)) / milli
	return jct / (alone * math.Max(1, asked/share))
}
