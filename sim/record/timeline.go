package record

import "time"

// Buckets is how many equal parts of time a record tells apart: as many as a wide screen shows with room to spare.
const Buckets = 480

// timeline adds up values over parts of time. The parts double when time outgrows them.
type timeline struct {
	width time.Duration
	rows  []*[Buckets]float64
}

func newTimeline() *timeline { return &timeline{width: time.Second} }

// row makes one more row and returns its number.
func (t *timeline) row() int {
	t.rows = append(t.rows, &[Buckets]float64{})
	return len(t.rows) - 1
}

// reach makes the parts long enough for a time.
func (t *timeline) reach(at time.Duration) {
	for at >= Buckets*t.width {
		for _, r := range t.rows {
			for i := range Buckets / 2 {
				r[i] = r[2*i] + r[2*i+1]
			}
			clear(r[Buckets/2:])
		}
		t.width *= 2
	}
}

// put adds a value at a moment.
func (t *timeline) put(row int, at time.Duration, v float64) {
	t.reach(at)
	t.rows[row][at/t.width] += v
}

// add adds a value that held for a span: times seconds.
func (t *timeline) add(row int, from, to time.Duration, v float64) {
	if v == 0 || to <= from {
		return
	}
	t.reach(to)
	r := t.rows[row]
	for at := from; at < to; {
		i := at / t.width
		next := min((i+1)*t.width, to)
		r[i] += float64(v * (next - at).Seconds()) // rounded before it is added, on every machine alike
		at = next
	}
}
