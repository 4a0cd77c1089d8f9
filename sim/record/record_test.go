package record

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// TestTimelineKeepsSums: whatever is added, in whatever order, the sum of all parts is what was added, and each part has
// what fell into it, however often the parts have doubled.
func TestTimelineKeepsSums(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tl := newTimeline()
		row, other := tl.row(), tl.row()
		type piece struct {
			from, to time.Duration
			v        float64
		}
		var pieces []piece
		for range rapid.IntRange(1, 20).Draw(t, "pieces") {
			from := time.Duration(rapid.IntRange(0, 5000).Draw(t, "from")) * time.Second
			p := piece{from, from + time.Duration(rapid.IntRange(0, 3000).Draw(t, "length"))*time.Second, float64(rapid.IntRange(0, 9).Draw(t, "value"))}
			tl.add(row, p.from, p.to, p.v)
			tl.put(other, p.from, 1)
			pieces = append(pieces, p)
		}
		count := 0.
		for i := range Buckets {
			from := time.Duration(i) * tl.width
			want := 0.
			for _, p := range pieces {
				want += p.v * max((min(p.to, from+tl.width)-max(p.from, from)).Seconds(), 0)
			}
			if math.Abs(tl.rows[row][i]-want) > 1e-6 {
				t.Fatalf("part %d of %s has %g, want %g", i, tl.width, tl.rows[row][i], want)
			}
			count += tl.rows[other][i]
		}
		if count != float64(len(pieces)) {
			t.Fatalf("%g were put, want %d", count, len(pieces))
		}
	})
}

// TestBounds: more queues, users, holds and incidents than are kept are counted, and what is kept is bounded.
func TestBounds(t *testing.T) {
	t.Parallel()
	nodes := make([]trace.Node, 100)
	for i := range nodes {
		nodes[i] = trace.Node{Name: fmt.Sprint(i), GPUs: 8}
	}
	r := New(nodes, false)
	w := r.Watch()
	for i := range 9000 {
		j := &trace.Job{ID: fmt.Sprint(i), Queue: fmt.Sprintf("%d/%d", i%8, i%600), User: fmt.Sprint(i), GPUs: 8, Milli: 1000}
		at := time.Duration(i) * time.Second
		w.Levels(&replay.Levels{Queue: j.Queue, From: at, To: at + time.Second, Held: 8000})
		w.Hold(&replay.Hold{Job: j, From: at, To: at + time.Duration(1+i%100)*time.Second, Places: []replay.Spot{{Node: "0", GPUs: []int{0}}}})
		w.Incident(&replay.Incident{At: at, Kind: replay.JobFault, Row: i})
		if err := w.Outcome(&replay.Outcome{Row: i, Job: j, State: replay.Finished, Ended: at + time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	held := 0.
	for _, q := range r.Queues() {
		held += q.Held
	}
	if n := len(r.Queues()); n != maxQueues+1 || held != 8*9000 {
		t.Errorf("%d queues held %g GPU s, want %d and %d", n, held, maxQueues+1, 8*9000)
	}
	groups, of := r.Grouped(8)
	sum := 0.
	for _, g := range groups {
		for _, v := range r.Held(g) {
			sum += v * r.Width().Seconds()
		}
	}
	if len(groups) != 9 || of["3/3"] != "3" || math.Abs(sum-8*9000) > 300 { // the last part of time is not whole
		t.Errorf("%d groups held %g GPU s, queue 3/3 is in %q", len(groups), sum, of["3/3"])
	}
	if n := len(r.Users()); n != maxUsers+1 {
		t.Errorf("%d users, want %d", n, maxUsers+1)
	}
	bars := r.Nodes()[0].Bars
	if len(r.Nodes()) != maxNodes || len(bars) > 2*maxBars || len(bars) < maxBars/2 {
		t.Errorf("%d nodes, %d bars", len(r.Nodes()), len(bars))
	}
	longest := 0
	for _, b := range bars {
		if b.To-b.From == 100*time.Second {
			longest++
		}
	}
	if longest != 90 {
		t.Errorf("%d of the 90 longest bars are kept", longest)
	}
	if len(r.Incidents) != maxIncidents || r.Counts[replay.JobFault] != 9000 {
		t.Errorf("%d incidents kept, %d counted", len(r.Incidents), r.Counts[replay.JobFault])
	}
	times, parts := r.CDF()
	if len(times) == 0 || parts[len(parts)-1] != 1 {
		t.Errorf("CDF %v %v", times, parts)
	}
}

// TestCSV: every job and every sample is a row, and says what the report says.
func TestCSV(t *testing.T) {
	t.Parallel()
	var in []trace.Job
	for i := range 3 {
		in = append(in, trace.Job{
			ID: fmt.Sprintf("j,%d", i), Submit: time.Duration(10*i) * time.Second, Length: 50 * time.Second, GPUs: 8, Milli: 1000, Queue: "q", User: "u",
		})
	}
	in[2].GPUs = 16
	tr := replay.InMemory(in, []trace.Node{{Name: "n", GPUs: 8, Type: "gpu"}})
	var jobs, samples bytes.Buffer
	j, err1 := NewJobsCSV(&jobs)
	s, err2 := NewSamplesCSV(&samples, 30*time.Second)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	cfg := replay.DefaultConfig()
	cfg.Watch = replay.Watches(j.Watch(), nil, s.Watch())
	if _, err := replay.Run(cfg, tr); err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	const wantJobs = `job_id,user,queue,gpus,gpu_milli,submit_s,duration_s,first_start_s,end_s,jct_s,wait_s,preemptions,finish_time_fairness,outcome
"j,2",u,q,16,1000,20,50,,,,,0,,refused
"j,0",u,q,8,1000,0,50,0,50,50,0,0,0.555556,finished
"j,1",u,q,8,1000,10,50,50,100,90,40,0,1.24615,finished
`
	if jobs.String() != wantJobs {
		t.Errorf("got\n%swant\n%s", jobs.String(), wantJobs)
	}
	rows, err := csv.NewReader(&samples).ReadAll()
	if err != nil || len(rows) != 1+2*4 {
		t.Fatalf("%d rows of samples, %v: %v", len(rows), err, rows)
	}
	if got, want := fmt.Sprint(rows[4]), "[30  q 1 8 1 8 20  ]"; got != want {
		t.Errorf("queue at 30 s: %s want %s", got, want)
	}
	if got, want := fmt.Sprint(rows[3]), "[30  (all) 1 8 1 8 20 8 0.000]"; got != want {
		t.Errorf("all at 30 s: %s want %s", got, want)
	}
}
