package record

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// End is the last moment that was told of.
func (r *Record) End() time.Duration { return r.end }

// Width is how long a part of time is.
func (r *Record) Width() time.Duration { return r.time.width }

// parts is how many parts of time there are until the end.
func (r *Record) parts() int { return min(int(r.end/r.time.width)+1, Buckets) }

// span is how many seconds of a part lie before the end.
func (r *Record) span(i int) float64 {
	from := time.Duration(i) * r.time.width
	return (min(from+r.time.width, r.end) - from).Seconds()
}

// average divides a row of sums by time.
func (r *Record) average(row int) []float64 {
	out := make([]float64, r.parts())
	for i := range out {
		if s := r.span(i); s > 0 {
			out[i] = r.time.rows[row][i] / s
		} else if i > 0 {
			out[i] = out[i-1]
		}
	}
	return out
}

// ratio divides a row by another; NaN where that is 0.
func (r *Record) ratio(row, by int) []float64 {
	out := make([]float64, r.parts())
	for i := range out {
		if d := r.time.rows[by][i]; d > 0 {
			out[i] = r.time.rows[row][i] / d
		} else {
			out[i] = math.NaN()
		}
	}
	return out
}

// Queues are those that held most first.
func (r *Record) Queues() []*Queue {
	out := slices.Clone(r.order)
	slices.SortStableFunc(out, func(a, b *Queue) int { return cmp.Or(cmp.Compare(b.Held, a.Held), cmp.Compare(a.Name, b.Name)) })
	return out
}

// Grouped is Queues, but where there are more than some number the queues of one top queue are one. The second result
// says which of the first each queue's name stands for.
func (r *Record) Grouped(most int) ([]*Queue, map[string]string) {
	of := map[string]string{}
	for _, q := range r.order {
		of[q.Name] = q.Name
	}
	if len(r.order) <= most {
		return r.Queues(), of
	}
	groups := map[string]*Queue{}
	var out []*Queue
	for _, q := range r.order {
		top, _, _ := strings.Cut(q.Name, "/")
		of[q.Name] = top
		g := groups[top]
		if g == nil {
			t := r.time
			g = &Queue{Name: top, held: t.row(), pending: t.row(), pendingGPUs: t.row(), started: t.row(), startsWait: t.row()}
			groups[top] = g
			out = append(out, g)
		}
		g.Held += q.Held
		for _, rows := range [][2]int{{g.held, q.held}, {g.pending, q.pending}, {g.pendingGPUs, q.pendingGPUs}, {g.started, q.started}, {g.startsWait, q.startsWait}} {
			to, from := r.time.rows[rows[0]], r.time.rows[rows[1]]
			for i := range from {
				to[i] += from[i]
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *Queue) int { return cmp.Or(cmp.Compare(b.Held, a.Held), cmp.Compare(a.Name, b.Name)) })
	return out, of
}

// Held is how many GPUs a queue held on average in each part of time.
func (r *Record) Held(q *Queue) []float64 { return r.average(q.held) }

// Pending is how many jobs of a queue waited.
func (r *Record) Pending(q *Queue) []float64 { return r.average(q.pending) }

// PendingGPUs is for how many GPUs they waited.
func (r *Record) PendingGPUs(q *Queue) []float64 { return r.average(q.pendingGPUs) }

// StartWaits is what the jobs of a queue that started in each part of time had waited, s in all, and how many they were.
func (r *Record) StartWaits(q *Queue) (waits, jobs []float64) {
	n := r.parts()
	return r.time.rows[q.startsWait][:n], r.time.rows[q.started][:n]
}

// Total adds up a view over all queues.
func (r *Record) Total(view func(*Queue) []float64) []float64 {
	out := make([]float64, r.parts())
	for _, q := range r.order {
		for i, v := range view(q) {
			out[i] += v
		}
	}
	return out
}

// GPUs is how many GPUs were there.
func (r *Record) GPUs() []float64 {
	out := make([]float64, r.parts())
	for i := range out {
		out[i] = r.time.rows[r.gpuTime][i] / r.time.width.Seconds()
		if i > 0 && i == len(out)-1 {
			out[i] = out[i-1] // its last sample counts for longer than there is
		}
	}
	return out
}

// Fragmented is the part of the GPUs that was free and of no use, 0..1.
func (r *Record) Fragmented() []float64 { return r.ratio(r.fragments, r.gpuTime) }

// Nodes are those of the Gantt chart.
func (r *Record) Nodes() []*Node { return r.shown }

// Busy is which part of a node was held, 0..1.
func (r *Record) Busy(n *Node) []float64 {
	out := r.average(n.busy)
	for i := range out {
		out[i] = math.Min(out[i]/float64(max(n.GPUs, 1)), 1)
	}
	return out
}

// Away is which part of the time a node was lost, 0..1.
func (r *Record) Away(n *Node) []float64 {
	if n.lost >= 0 {
		r.time.add(n.away, n.lost, r.end, 1)
		n.lost = r.end
	}
	return r.average(n.away)
}

// Events is how many incidents of a kind there were in each part of time.
func (r *Record) Events(kind string) []float64 { return r.time.rows[r.events[kind]][:r.parts()] }

// CDF is the part of the jobs, 0..1, that had ended within a time, s, at growing times.
func (r *Record) CDF() (times, parts []float64) {
	sum := 0
	for i, n := range r.jct {
		if n == 0 && sum == 0 {
			continue
		}
		if sum == 0 {
			times, parts = append(times, edge(i)), append(parts, 0)
		}
		sum += n
		times, parts = append(times, edge(i+1)), append(parts, float64(sum)/float64(r.finished))
		if sum == r.finished {
			break
		}
	}
	return times, parts
}

// edge is where a part of the histogram begins, s.
func edge(i int) float64 { return math.Pow(10, float64(i)/perDecade) }
