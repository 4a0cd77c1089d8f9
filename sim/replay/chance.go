package replay

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Streams of random numbers, one for each purpose: another rate of one kind of fault leaves all other draws as they
// were. What strikes when is drawn without a look at the state, so that two policies meet the same faults; what a job
// draws is a function of its id and epoch, so that they meet the same start-up times.
const (
	streamReports = iota + 1
	streamLaunch
	streamWarmup
	streamElastic
	streamWrites
	streamFaults // and one more for each kind of fault
)

// chance draws for a replay with conditions.
type chance struct {
	seed    uint64
	reports *rand.Rand
	faults  [faultKinds]*rand.Rand
}

func newChance(seed uint64) *chance {
	c := &chance{seed: seed, reports: rand.New(rand.NewPCG(seed, streamReports))}
	for k := range c.faults {
		c.faults[k] = rand.New(rand.NewPCG(seed, streamFaults+uint64(k))) //nolint:gosec // a small index
	}
	return c
}

// of is a generator of one job's own (and epoch's, or 0).
func (c *chance) of(stream uint64, job cluster.JobID, epoch cluster.Epoch) *rand.Rand {
	return rand.New(rand.NewPCG(c.seed^stream<<56, uint64(job)<<24^uint64(epoch)))
}

// picks reports whether a job belongs to the part of all jobs that a stream picks.
func (c *chance) picks(stream uint64, job cluster.JobID, part float64) bool {
	switch part {
	case 0:
		return false
	case 1:
		return true
	}
	return c.of(stream, job, 0).Float64() < part
}

// spread draws a time of some mean, see FaultRate.Spread. It is at most 1,000 times the mean, and of whole microseconds:
// machines differ in the last bit of a logarithm.
func spread(rng *rand.Rand, mean time.Duration, sigma float64) time.Duration {
	x := 1.0
	switch {
	case sigma == Exponential:
		x = rng.ExpFloat64()
	case sigma > 0:
		x = math.Exp(float64(sigma*rng.NormFloat64()) - float64(sigma*sigma/2))
	}
	return time.Duration(min(x, 1000) * float64(mean)).Round(time.Microsecond)
}

// speed is how fast a gang is with so many times the GPUs of the trace, to the sixth digit: see Elasticity.Curve.
func (e *Elasticity) speed(gpus float64) float64 {
	if gpus == 1 {
		return 1
	}
	if len(e.Curve) == 0 {
		return gpus
	}
	points := append([]CurvePoint{}, e.Curve...)
	one := false
	for _, p := range points {
		one = one || p.GPUs == 1
	}
	if !one {
		at := 0
		for at < len(points) && points[at].GPUs < 1 {
			at++
		}
		points = append(points[:at], append([]CurvePoint{{1, 1}}, points[at:]...)...)
	}
	if len(points) == 1 {
		return gpus
	}
	i := 1
	for i < len(points)-1 && points[i].GPUs < gpus {
		i++
	}
	a, b := points[i-1], points[i]
	slope := math.Log(b.Speed/a.Speed) / math.Log(b.GPUs/a.GPUs)
	return math.Round(a.Speed*math.Exp(slope*math.Log(gpus/a.GPUs))*1e6) / 1e6
}
