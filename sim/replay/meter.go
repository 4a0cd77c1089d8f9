package replay

import (
	"math"

	"github.com/gangline/gangline/scheduler/cluster"
)

// span is a part of virtual time.
type span struct{ from, to cluster.Time }

// forever is the end of a span that has none yet. What has ended within it by now stays as it was measured when the end
// comes.
const forever = cluster.Time(math.MaxInt64)

// within is how many seconds of the span lie in another.
func (s span) within(o span) float64 {
	return max(min(s.to, o.to).Sub(max(s.from, o.from)).Seconds(), 0)
}

// meter adds up GPU time.
type meter struct {
	window *span   // in which jobs arrive: capacity is judged there, not while the last long jobs run out
	held   float64 // GPU-seconds held within the window
	wasted float64 // of these, without work that counted: restarts and grace
	lost   float64 // wasted ones, within the window or not

	byCause [causes]float64 // with conditions: GPU-seconds, within the window or not
}

// use is what an epoch that has ended adds to a meter.
type use struct{ held, wasted, lost float64 }

// useOf is the use of an epoch that held some GPUs (thousandths) for a span, and worked in a part of it.
func useOf(milliGPUs int64, all, worked, window span) use {
	gpus := float64(milliGPUs) / milli
	worked = span{min(max(worked.from, all.from), all.to), min(max(worked.to, all.from), all.to)} // it may have been planned further
	held := all.within(window)
	// Products are rounded before they are added: some machines would else do both at once and get other last digits.
	return use{
		held:   float64(gpus * held),
		wasted: float64(gpus * (held - worked.within(window))),
		lost:   float64(gpus * (all.within(all) - worked.within(all))),
	}
}

func (m *meter) use(u use) {
	m.held += u.held
	m.wasted += u.wasted
	m.lost += u.lost
}

func (m *meter) add(o *meter) {
	m.held += o.held
	m.wasted += o.wasted
	m.lost += o.lost
	for i := range m.byCause {
		m.byCause[i] += o.byCause[i]
	}
}
