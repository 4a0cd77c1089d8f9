package compare

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

func secs(n int) time.Duration { return time.Duration(n) * time.Second }

func job(at, length, gpus int, user string) trace.Job {
	return trace.Job{
		ID: fmt.Sprintf("j%d", at), Submit: secs(at), Length: secs(length), Guess: secs(length), GPUs: int32(gpus), Milli: 1000, Queue: "q", User: user,
	}
}

func nodes(n int) (out []trace.Node) {
	for i := range n {
		out = append(out, trace.Node{Name: fmt.Sprintf("n%d", i), GPUs: 8, Type: "gpu"})
	}
	return out
}

// run makes a strictly ordered run.
func run(name string, order cluster.OrderName, on []trace.Node, jobs ...trace.Job) Run {
	cfg := replay.DefaultConfig()
	cfg.Strict, cfg.Order = true, order
	return Run{Name: name, Config: cfg, Open: func() (*replay.Trace, error) {
		return replay.InMemory(jobs, on), nil
	}}
}

// TestFirstDifference: a long and a short job wait for the same node. Shortest first takes the short one when the node is
// free at 100 s, first come first served the long one.
func TestFirstDifference(t *testing.T) {
	t.Parallel()
	jobs := []trace.Job{job(0, 100, 8, "ann"), job(10, 1000, 8, "ann"), job(20, 50, 8, "bob")}
	r, err := Runs([]Run{run("fifo", cluster.OrderFIFO, nodes(1), jobs...), run("sjf", cluster.OrderSJF, nodes(1), jobs...)})
	if err != nil {
		t.Fatal(err)
	}
	a := r.Runs[1].Against
	if a.Both != 3 || a.Faster != 1 || a.Slower != 1 || a.Same != 1 {
		t.Errorf("%+v", a)
	}
	if bob := a.PerUser["bob"]; bob.FirstW != 1080 || bob.Wait != 80 || bob.Jobs != 1 {
		t.Errorf("bob: %+v", bob)
	}
	if q := a.PerQueue["q"]; q.Jobs != 3 || q.FirstW != 390 || q.Wait != (80+140)/3. {
		t.Errorf("queue: %+v", q)
	}
	d := a.Order
	if d == nil || a.Nodes != nil || d.Nth != 1 || d.At != 100 || d.First.Job != "j10" || d.This.Job != "j20" {
		t.Fatalf("%+v", d)
	}
	if !strings.HasPrefix(d.First.Other, "is pending: ") || !strings.HasPrefix(d.This.Other, "is pending: ") {
		t.Errorf("why: %q and %q", d.First.Other, d.This.Other)
	}
	if want := "started job j10 (queue q, 8 GPUs) on n0 (8), 1 min 30 s after it came"; d.First.Did != want {
		t.Errorf("did %q want %q", d.First.Did, want)
	}
	var text, again bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"sjf first decided otherwise than fifo at 1 min 40 s, after 1 decisions alike:",
		"  fifo started job j10 (queue q, 8 GPUs) on n0 (8), 1 min 30 s after it came\n    there job j20 is pending: ",
		"bob     1  18 min 00 s  1 min 20 s (-92.6%)",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	r2, err := Runs([]Run{run("fifo", cluster.OrderFIFO, nodes(1), jobs...), run("sjf", cluster.OrderSJF, nodes(1), jobs...)})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := json.Marshal(r)
	second, _ := json.Marshal(r2)
	if _ = r2.WriteText(&again); !bytes.Equal(first, second) || again.String() != text.String() {
		t.Error("the same runs gave other bytes")
	}
}

// TestLaterAndEarlier: on a larger cluster a job starts that must wait on the smaller one; the smaller one's side says
// why, and that it came to it later.
func TestLaterAndEarlier(t *testing.T) {
	t.Parallel()
	jobs := []trace.Job{job(0, 100, 8, ""), job(10, 5, 8, "")}
	r, err := Runs([]Run{run("small", cluster.OrderFIFO, nodes(1), jobs...), run("large", cluster.OrderFIFO, nodes(2), jobs...)})
	if err != nil {
		t.Fatal(err)
	}
	d := r.Runs[1].Against.Order
	if d == nil || d.At != 10 || d.First.At != 100 || d.This.At != 10 || d.This.Other != "" || !strings.Contains(d.First.Other, "pending") {
		t.Fatalf("%+v", d)
	}
	if got := d.First.Text(d); !strings.HasPrefix(got, "only 1 min 30 s later started job j10") {
		t.Errorf("%q", got)
	}
}

// TestNoDifference: equal runs differ nowhere; what starts at once has no order; one that ends early differs where the
// other goes on.
func TestNoDifference(t *testing.T) {
	t.Parallel()
	jobs := []trace.Job{job(0, 10, 2, ""), job(0, 20, 2, ""), job(50, 5, 8, "")}
	same := run("same", cluster.OrderSJF, nodes(1), jobs...)
	short := run("short", cluster.OrderFIFO, nodes(1), jobs...)
	short.Config.Until = secs(30)
	r, err := Runs([]Run{run("a", cluster.OrderFIFO, nodes(1), jobs...), same, short})
	if err != nil {
		t.Fatal(err)
	}
	if a := r.Runs[1].Against; a.Order != nil {
		t.Errorf("equal decisions, but %+v", a.Order)
	}
	if a := r.Runs[2].Against; a.Order == nil || a.Order.This.Did != "decided nothing more" || a.Order.First.Job != "j50" || a.Order.At != 50 {
		t.Errorf("%+v", r.Runs[2].Against.Order)
	}
}

// TestInterrupted: a comparison that is stopped says so and has what there was.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	jobs := []trace.Job{job(0, 10, 8, ""), job(5, 10, 8, ""), job(6, 10, 8, "")}
	stopped := run("b", cluster.OrderFIFO, nodes(1), jobs...)
	stopped.Watch = &replay.Watch{Progress: func(p *replay.Progress) bool { return p.Ended < 1 }}
	r, err := Runs([]Run{run("a", cluster.OrderFIFO, nodes(1), jobs...), stopped, run("c", cluster.OrderFIFO, nodes(1), jobs...)})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Partial || len(r.Runs) != 2 || r.Runs[1].Report.Done != 1 {
		t.Errorf("partial %v, %d runs", r.Partial, len(r.Runs))
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil || !strings.HasPrefix(text.String(), "PARTIAL") {
		t.Errorf("%v: %s", err, text.String())
	}
}
