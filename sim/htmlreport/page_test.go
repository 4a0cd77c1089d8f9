package htmlreport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/compare"
	"github.com/gangline/gangline/sim/record"
	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// workload is 200 jobs of ten queues, with names that HTML must escape, on six nodes.
func workload() *replay.Trace {
	var nodes []trace.Node
	var jobs []trace.Job
	for i := range 6 {
		nodes = append(nodes, trace.Node{Name: fmt.Sprintf("n<%d>", i), GPUs: 8, Type: "gpu"})
	}
	for i := range 200 {
		length := time.Duration(50+(i*i*31)%997) * time.Second
		jobs = append(jobs, trace.Job{
			ID: fmt.Sprintf("j%d&", i), Submit: time.Duration(i*7) * time.Second, Length: length, Guess: length, GPUs: 1 << (i % 5), Milli: 1000,
			Queue: fmt.Sprintf("<q%d>", i%10), User: "<script>alert(1)</script>",
		})
	}
	jobs[7].GPUs = 1000 // refused
	return replay.InMemory(jobs, nodes)
}

func page(t *testing.T, orders ...cluster.OrderName) []byte {
	t.Helper()
	var runs []compare.Run
	for _, o := range orders {
		cfg := replay.DefaultConfig()
		cfg.Order = o
		runs = append(runs, compare.Run{Name: "<" + string(o) + ">", Config: cfg, Open: func() (*replay.Trace, error) { return workload(), nil }})
	}
	res, err := compare.Runs(runs)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(&out, &Page{Title: "a <b> & c", Command: "gangline sim run 'x y'", Version: "test", Result: res}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// outside is what would make a page need more than itself.
var outside = regexp.MustCompile(`(?i)(src|href)\s*=|@import|url\(|https?://|<script|<link|<iframe`)

// TestPages: pages of one run and of several are whole HTML, need nothing from elsewhere, show every picture, escape names
// and are the same bytes each time.
func TestPages(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		orders   []cluster.OrderName
		sections []string
	}{
		"one run": {
			[]cluster.OrderName{cluster.OrderGangline},
			[]string{"GPUs over time", "Queue depth", "Wait at the start", "Wait by queue", "Completion times", "Fragmentation", "What failed", "Nodes", "Queues"},
		},
		"compared": {
			[]cluster.OrderName{cluster.OrderFIFO, cluster.OrderSJF},
			[]string{"Figures", "Completion times", "Average wait by queue", "GPUs held over time", "Queue depth", "Fragmentation", "Where &lt;sjf&gt; first differs", "Queues", "Users"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := page(t, c.orders...)
			if !bytes.Equal(got, page(t, c.orders...)) {
				t.Error("the same replay gave other bytes")
			}
			for _, s := range c.sections {
				if !bytes.Contains(got, []byte("<h2>"+s+"</h2>")) {
					t.Errorf("no section %q", s)
				}
			}
			if m := outside.Find(got); m != nil {
				t.Errorf("the page asks for something from elsewhere: %q", m)
			}
			if bytes.Contains(got, []byte("NaN")) || bytes.Contains(got, []byte("Inf")) {
				t.Error("a number is none")
			}
			balanced(t, got)
		})
	}
}

// balanced holds that every element ends, in order.
func balanced(t *testing.T, page []byte) {
	t.Helper()
	empty := map[string]bool{"meta": true, "br": true}
	var open []string
	z := html.NewTokenizer(bytes.NewReader(page))
	for {
		switch z.Next() {
		case html.ErrorToken:
			if !errors.Is(z.Err(), io.EOF) || len(open) > 0 {
				t.Errorf("the page ends with %v, open are %v", z.Err(), open)
			}
			return
		case html.StartTagToken:
			if name, _ := z.TagName(); !empty[string(name)] {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if len(open) == 0 || open[len(open)-1] != string(name) {
				t.Fatalf("</%s> ends none of %v", name, open)
			}
			open = open[:len(open)-1]
		default:
		}
	}
}

// TestPicturesAreRight: of one job on one of two nodes from 0 to 100 s, the bar is as long as the axis and in lanes 0 to
// 3; the other node has none.
func TestPicturesAreRight(t *testing.T) {
	t.Parallel()
	on := []trace.Node{{Name: "a", GPUs: 8, Type: "gpu"}, {Name: "b", GPUs: 8, Type: "gpu"}}
	r := record.New(on, false)
	w := r.Watch()
	j := &trace.Job{ID: "j", Queue: "q", GPUs: 4, Milli: 1000}
	w.Levels(&replay.Levels{Queue: "q", To: 100 * time.Second, Running: 1, Held: 4000, Started: 1})
	w.Hold(&replay.Hold{Job: j, To: 100 * time.Second, Places: []replay.Spot{{Node: "a", GPUs: []int{0, 1, 2, 3}}}, Why: "finished"})
	if err := w.Outcome(&replay.Outcome{Job: j, State: replay.Finished, Ended: 100 * time.Second}); err != nil {
		t.Fatal(err)
	}
	rep := &replay.Report{Jobs: 1, Done: 1, PerQueue: map[string]replay.QueueReport{"q": {Jobs: 1, Done: 1}}}
	var out strings.Builder
	res := &compare.Result{Runs: []*compare.Entry{{Name: "x", Report: rep, Record: r}}}
	if err := Write(&out, &Page{Title: "t", Result: res}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "<rect "); n != 1 {
		t.Errorf("%d bars, want 1", n)
	}
	for _, want := range []string{
		`<rect class="c0" x="0" y="0.08" width="1000" height="3.84"><title>job j, queue q, 4 GPUs here of 4: 0 to 1.67 min, finished</title>`,
		`Nothing: every job finished.`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}
