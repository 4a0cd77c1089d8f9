package trace

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// lengthNoise is the sigma of the log-normal factor on lengths that are taken from a trace: a tenth, so that a longer
// workload is not the same few lengths again and again.
const lengthNoise = 0.1

// Size is a number of GPUs, and how often jobs want it in relation to others.
type Size struct {
	GPUs   int32
	Weight float64
}

// Synthetic describes a workload that is made up as it is read: arrivals are a Poisson process whose rate goes with the
// hour of the week, jobs are drawn from mixes or from a trace. Equal values give equal jobs.
type Synthetic struct {
	Jobs int64  // default 10,000, or as many as Like has, times Scale
	Seed uint64 // fixes all randomness
	// Load is the GPU time that jobs ask for, as a part of what GPUs have. Default 0.9; with Like: the trace's own rate.
	Load float64
	GPUs int64 // of the cluster, for Load
	// Scale multiplies the rate of arrivals of Like, and their number. Default 1.
	Scale float64

	// Like is a trace to draw from: sizes, types, lengths, queues and users of its jobs as they come together, and
	// the rate of arrivals of each hour of its week (of its day, if it is shorter than two weeks). Nil: the mixes below.
	Like func() (Source, error)

	Sizes     []Size        // default: 1 to 64 GPUs, most of them 1
	Median    time.Duration // of lengths, which are log-normal. Default 10 min
	P90       time.Duration // of lengths. Default 4 h
	MaxLength time.Duration // longer ones are cut. Default 14 d
	Queues    int           // default 8: q0, q1...; each half as large as the one before
	Users     int           // of each queue. Default 10
	Day       float64       // how much arrivals go up and down within a day, 0..1. Default 0.3
	Weekend   float64       // how much fewer arrive on two days of seven, 0..1. Default 0.3
}

// DefaultSynthetic returns the defaults named in Synthetic.
func DefaultSynthetic() Synthetic {
	return Synthetic{
		Seed: 1, Scale: 1, Median: 10 * time.Minute, P90: 4 * time.Hour, MaxLength: 14 * 24 * time.Hour, Queues: 8, Users: 10, Day: 0.3, Weekend: 0.3,
		Sizes: []Size{{1, 70}, {2, 8}, {4, 8}, {8, 10}, {16, 2}, {32, 1.5}, {64, 0.5}},
	}
}

// Validate returns every problem at once, joined, or nil.
func (c *Synthetic) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("synthetic workload: "+format, args...))
		}
	}
	check(c.Jobs >= 0 && c.Jobs <= 1e12, "jobs: %d is not in 0..1e12", c.Jobs)
	check(c.Load >= 0 && c.Load <= 100, "load: %g is not in 0..100", c.Load)
	check(c.GPUs >= 0, "GPUs: %d is below 0", c.GPUs)
	check(c.Scale > 0 && c.Scale <= 1e6, "scale: %g is not above 0 and at most 1e6", c.Scale)
	check(c.Median > 0 && c.Median <= c.P90, "length: a median of %s is not above 0 and at most length-p90, %s", c.Median, c.P90)
	check(c.MaxLength >= c.P90 && c.MaxLength <= MaxSeconds*time.Second, "max-length: %s is below length-p90 (%s), or above %g s", c.MaxLength, c.P90, MaxSeconds)
	check(c.Queues >= 1 && c.Queues <= 1000, "queues: %d is not in 1..1000", c.Queues)
	check(c.Users >= 1 && c.Users <= 1e6, "users: %d is not in 1..1e6", c.Users)
	check(c.Day >= 0 && c.Day <= 1, "day: %g is not in 0..1", c.Day)
	check(c.Weekend >= 0 && c.Weekend <= 1, "weekend: %g is not in 0..1", c.Weekend)
	check(len(c.Sizes) > 0, "sizes: there are none")
	for _, s := range c.Sizes {
		check(s.GPUs >= 1 && s.GPUs <= cluster.MaxGPUs, "sizes: %d GPUs are not in 1..%d", s.GPUs, int32(cluster.MaxGPUs))
		check(s.Weight > 0 && s.Weight <= 1e9, "sizes: the weight of %d GPUs is %g, not above 0", s.GPUs, s.Weight)
	}
	return errors.Join(errs...)
}

// Open begins the workload.
func (c Synthetic) Open() (Source, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &mix{sizes: c.Sizes, spread: math.Log(float64(c.P90)/float64(c.Median)) / 1.2815515655446004} // the normal distribution's 90 %
	if c.Like == nil {
		m.wave(c.Day, c.Weekend)
	} else {
		src, err := c.Like()
		if err != nil {
			return nil, err
		}
		if m, err = fit(src, c.Seed); err != nil {
			return nil, fmt.Errorf("fit a synthetic workload: %w", err)
		}
	}
	switch {
	case c.Jobs > 0:
	case c.Like != nil:
		c.Jobs = int64(math.Round(float64(m.jobs) * c.Scale))
	default:
		c.Jobs = 10000
	}
	if c.Load == 0 && c.Like == nil {
		c.Load = 0.9
	}
	if rate := m.rate * c.Scale; c.Load == 0 {
		m.rate = rate
	} else if m.rate = c.Load * float64(c.GPUs) / m.volume(&c); !(m.rate > 0) || math.IsInf(m.rate, 1) {
		return nil, errors.New("synthetic workload: a load needs a cluster with GPUs, and jobs with a length")
	}
	return &maker{c: c, m: m, chance: rand.New(rand.NewPCG(c.Seed, 0x6d616b65))}, nil //nolint:gosec // G404: a simulation must be repeatable
}

// length is that of a job in seconds, at so many sigmas times their size from the median.
func (c *Synthetic) length(x float64) float64 {
	return math.Min(c.Median.Seconds()*math.Exp(x), c.MaxLength.Seconds())
}

// maker makes jobs up.
type maker struct {
	c      Synthetic
	m      *mix
	chance *rand.Rand
	at     float64 // seconds
	made   int64
	texts  names
}

// Next implements Source.
func (k *maker) Next(j *Job) error {
	if k.made == k.c.Jobs {
		return io.EOF
	}
	if k.at = k.arrival(); k.at > MaxSeconds {
		return fmt.Errorf("synthetic workload: job %d would come after %g s: ask for fewer jobs, more GPUs or a higher load", k.made, MaxSeconds)
	}
	*j = k.draw()
	j.ID, j.Submit = "s"+strconv.FormatInt(k.made, 10), millis(k.at)
	j.Guess = j.Length
	k.made++
	return nil
}

// arrival is when the next job comes: the rate is that of each hour.
func (k *maker) arrival() float64 {
	const hour = 3600
	at, wait := k.at, k.chance.ExpFloat64()
	for {
		h := math.Floor(at / hour)
		rate := k.m.rate * k.m.hours[int(h)%hoursOfWeek]
		end := (h + 1) * hour
		room := rate * (end - at)
		if wait < room {
			return at + wait/rate
		}
		if at = end; at > MaxSeconds {
			return at
		}
		wait -= room
	}
}

// draw makes a job without its times of arrival.
func (k *maker) draw() Job {
	if s := k.m.sample; len(s) > 0 {
		j := s[k.chance.IntN(len(s))]
		j.Length = millis(math.Min(j.Length.Seconds()*math.Exp(k.m.spread*k.chance.NormFloat64()), MaxSeconds))
		return j
	}
	j := Job{Milli: milli, Length: millis(k.c.length(k.m.spread * k.chance.NormFloat64()))}
	all := 0.0
	for _, s := range k.m.sizes {
		all += s.Weight
	}
	at := k.chance.Float64() * all
	for _, s := range k.m.sizes {
		j.GPUs = s.GPUs
		if at -= s.Weight; at < 0 {
			break
		}
	}
	q := 0
	for q < k.c.Queues-1 && k.chance.IntN(2) == 0 {
		q++
	}
	queue := "q" + strconv.Itoa(q)
	j.Queue = k.texts.keep(queue)
	j.User = k.texts.keep(queue + "u" + strconv.Itoa(k.chance.IntN(k.c.Users)))
	return j
}

// millis is a time in whole milliseconds: machines that round otherwise agree on it, but for the rarest cases.
func millis(s float64) time.Duration {
	return time.Duration(math.Round(s*1e3)) * time.Millisecond
}

// Skipped implements Source.
func (k *maker) Skipped() int { return 0 }

// Close implements Source.
func (k *maker) Close() error { return nil }

// Left is how many jobs are yet to come.
func (k *maker) Left() int { return int(k.c.Jobs - k.made) }

// MakeNodes makes up nodes that are all alike, in racks of 16.
func MakeNodes(n, gpus int) []Node {
	const perRack = 16
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i] = Node{Name: fmt.Sprintf("node%05d", i), GPUs: int32(gpus), Type: UnknownType, Rack: fmt.Sprintf("rack%04d", i/perRack)} //nolint:gosec // bounded by the caller
	}
	return nodes
}
