package trace

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"time"
)

const (
	hoursOfWeek = 7 * 24
	maxSample   = 1 << 16 // jobs of a trace that a mix remembers
)

// mix is what jobs of a synthetic workload are like, and when they come.
type mix struct {
	sample []Job // any one is as likely as another; empty: drawn from sizes and lengths
	sizes  []Size
	spread float64              // sigma of the log-normal lengths, or of the noise on those of the sample
	hours  [hoursOfWeek]float64 // relative rate of arrivals; 1 on average
	rate   float64              // arrivals per second; 0: not known
	jobs   int64                // of the sampled trace
}

// fit learns a mix from a trace. Of a long one it remembers a sample (Vitter's algorithm R, ACM TOMS 1985).
func fit(src Source, seed uint64) (*mix, error) {
	m := &mix{spread: lengthNoise}
	chance := rand.New(rand.NewPCG(seed, 0x666974)) //nolint:gosec // G404: a simulation must be repeatable
	var first, last time.Duration
	for {
		var j Job
		err := src.Next(&j)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.Join(err, src.Close())
		}
		if m.jobs == 0 {
			first = j.Submit
		}
		last = j.Submit
		m.jobs++
		m.hours[int(j.Submit/time.Hour)%hoursOfWeek]++
		if len(m.sample) < maxSample {
			m.sample = append(m.sample, j)
		} else if at := chance.Int64N(m.jobs); at < maxSample {
			m.sample[at] = j
		}
	}
	if m.jobs < 2 || last == first {
		return nil, errors.Join(errors.New("a workload can be fitted to two jobs or more, submitted at two times or more"), src.Close())
	}
	m.rate = float64(m.jobs-1) / (last - first).Seconds()
	m.fold(first, last)
	m.level()
	return m, src.Close()
}

// fold turns counts into rates: an hour of the week that came more often has more arrivals for that. A trace of less
// than two weeks tells of hours of the day only.
func (m *mix) fold(first, last time.Duration) {
	var seen [hoursOfWeek]float64 // hours
	for h := first / time.Hour; h <= last/time.Hour; h++ {
		from, to := max(h*time.Hour, first), min((h+1)*time.Hour, last)
		seen[h%hoursOfWeek] += (to - from).Hours()
	}
	period := hoursOfWeek
	if last-first < 2*hoursOfWeek*time.Hour {
		period = 24
	}
	for h := range period {
		arrivals, hours := 0.0, 0.0
		for k := h; k < hoursOfWeek; k += period {
			arrivals += m.hours[k]
			hours += seen[k]
		}
		for k := h; k < hoursOfWeek; k += period {
			m.hours[k] = arrivals / math.Max(hours, 1) // part of an hour tells little
		}
	}
}

// wave makes rates that go up and down within a day and fall at the weekend: at 15:00 they are 1 + day times the
// average, on days 6 and 7 weekend less.
func (m *mix) wave(day, weekend float64) {
	for h := range m.hours {
		m.hours[h] = 1 + float64(day*math.Cos(2*math.Pi*float64(h%24-15)/24))
		if h >= 5*24 {
			m.hours[h] *= 1 - weekend
		}
	}
	m.level()
}

// level makes the average of all hours 1.
func (m *mix) level() {
	sum := 0.0
	for _, x := range m.hours {
		sum += x
	}
	for h := range m.hours {
		m.hours[h] *= hoursOfWeek / sum
	}
}

// volume is the GPU-seconds of an average job.
func (m *mix) volume(c *Synthetic) float64 {
	sum := 0.0
	if len(m.sample) > 0 {
		for i := range m.sample {
			j := &m.sample[i]
			sum += float64(j.GPUs) * float64(j.Milli) / milli * j.Length.Seconds()
		}
		return sum / float64(len(m.sample)) * math.Exp(float64(m.spread*m.spread)/2)
	}
	const steps = 1 << 12 // the lengths' quantiles, evenly
	for i := range steps {
		p := (float64(i) + 0.5) / steps
		sum += c.length(m.spread * math.Sqrt2 * math.Erfinv(2*p-1))
	}
	gpus, weights := 0.0, 0.0
	for _, s := range m.sizes {
		gpus += float64(s.Weight * float64(s.GPUs))
		weights += s.Weight
	}
	return sum / steps * gpus / weights
}
