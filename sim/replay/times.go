package replay

import (
	"fmt"
	"math"
	"slices"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

// times is a distribution of seconds: all of them, or a sketch (Masson et al., "DDSketch", VLDB 2019) and their sum.
type times struct {
	full   [][]float64 // as they came, in pieces: a list that grows is copied again and again
	last   []float64   // the piece that is being filled
	held   int         // how many are in full
	sketch *ddsketch.DDSketch
	sum    float64 // of the sketch's
}

// Bounds of a piece of times: there may be many queues with few jobs.
const (
	leastTimes = 16
	mostTimes  = 1 << 10
)

func (x *times) add(s float64) {
	if x.sketch == nil {
		if len(x.last) == cap(x.last) {
			x.turn()
		}
		x.last = append(x.last, s)
		return
	}
	x.sum += s
	if err := x.sketch.Add(math.Max(s, 0)); err != nil {
		panic(fmt.Sprintf("a time of %g s: %v", s, err)) // a bug: times are finite and below the sketch's end
	}
}

// turn begins a piece.
func (x *times) turn() {
	if len(x.last) > 0 {
		x.full, x.held = append(x.full, x.last), x.held+len(x.last)
	}
	x.last = make([]float64, 0, min(max(x.held, leastTimes), mostTimes))
}

// compress turns all times into a sketch.
func (x *times) compress() {
	how, err := mapping.NewCubicallyInterpolatedMapping(sketchError)
	if err != nil {
		panic(err) // a bug: the error is a constant
	}
	x.sketch = ddsketch.NewDDSketch(how, store.NewCollapsingLowestDenseStore(sketchBins), store.NewCollapsingLowestDenseStore(1))
	for _, part := range append(x.full, x.last) {
		for _, s := range part {
			x.add(s)
		}
	}
	x.full, x.last, x.held = nil, nil, 0
}

// merge adds another distribution of the same kind, which keeps its pieces.
func (x *times) merge(o *times) {
	if x.sketch == nil {
		x.full, x.held = append(append(x.full, o.full...), o.last), x.held+o.count()
		return
	}
	x.sum += o.sum
	if err := x.sketch.MergeWith(o.sketch); err != nil {
		panic(err) // a bug: all sketches have one mapping
	}
}

func (x *times) count() int {
	if x.sketch != nil {
		return int(x.sketch.GetCount())
	}
	return x.held + len(x.last)
}

// figured is a distribution that is asked for its figures.
type figured struct {
	of     *times
	sorted []float64 // unless there is a sketch
}

// sorter makes distributions ready to be asked, each in the memory of the one before it, which is of no use then.
type sorter struct{ list, room []float64 }

func (o *sorter) figured(x *times) figured {
	if x.sketch != nil {
		return figured{of: x}
	}
	list := slices.Grow(o.list[:0], x.count())
	for _, part := range x.full {
		list = append(list, part...)
	}
	list = append(list, x.last...)
	if cap(list) > cap(o.room) {
		o.room = make([]float64, cap(list))
	}
	o.list, o.room = sortTimes(list, o.room)
	return figured{of: x, sorted: o.list}
}

// mean is the average, or 0 of nothing. Exact times are added up in their order, so that nothing depends on which job
// ended first.
func (d figured) mean() float64 {
	sum := d.of.sum
	for _, v := range d.sorted {
		sum += v
	}
	return sum / math.Max(float64(d.of.count()), 1)
}

// quantile is the time below which a part of all lies, between neighbours in proportion, or 0 of nothing.
func (d figured) quantile(q float64) float64 {
	switch {
	case d.of.count() == 0:
		return 0
	case d.of.sketch != nil:
		v, err := d.of.sketch.GetValueAtQuantile(q)
		if err != nil {
			panic(err) // a bug: the quantile is a constant in 0..1, and the sketch is not empty
		}
		return v
	}
	at := q * float64(len(d.sorted)-1)
	i := int(at)
	if i+1 == len(d.sorted) {
		return d.sorted[i]
	}
	return d.sorted[i] + float64((at-float64(i))*(d.sorted[i+1]-d.sorted[i])) // rounded before it is added, on every machine alike
}
