package interval

import (
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

var start = time.Unix(1_790_000_000, 0)

func paced(p Policy) *Pace {
	pace := New(start)
	pace.SetPolicy(p)
	return pace
}

// dueAt gives the first second after from at which a save is due.
func dueAt(t *testing.T, p *Pace, from time.Time) time.Duration {
	t.Helper()
	for passed := time.Duration(0); passed < 1000*time.Hour; {
		a := p.Due(1, from.Add(passed))
		if a.Due {
			return passed
		}
		if a.Wait <= 0 {
			t.Fatalf("not due, and no wait: %+v", a)
		}
		passed += a.Wait
	}
	t.Fatal("never due")
	return 0
}

func TestWithoutPolicyTheProgramDecides(t *testing.T) {
	t.Parallel()
	if a := paced(Policy{Between: time.Hour}).Due(100, start.Add(time.Hour)); a != (Answer{}) {
		t.Errorf("got %+v", a)
	}
}

func TestByTime(t *testing.T) {
	t.Parallel()
	p := paced(Policy{Time: time.Minute})
	for i := range 3 {
		from := start.Add(time.Duration(i) * time.Minute)
		if got := dueAt(t, p, from); got != time.Minute {
			t.Errorf("save %d is due after %v", i, got)
		}
		if a := p.Due(2, from.Add(time.Minute)); a.Due || a.Interval != time.Minute {
			t.Errorf("told twice: %+v", a)
		}
	}
}

// TestBySteps: multiples of the number, whatever the steps at which a program asks, and the same ones after a restart.
func TestBySteps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		every, first int64
		want         string
	}{{1, 1, "100 200 300"}, {10, 10, "100 200 300"}, {7, 7, "105 203 301"}, {1, 150, "200 300"}, {1, 200, "200 300"}} {
		p, got := paced(Policy{Steps: 100}), []string{}
		for step := c.first; step <= 301; step += c.every {
			if a := p.Due(step, start); a.Due {
				got = append(got, time.Duration(step).String())
				if a.WaitStep != (step/100+1)*100 {
					t.Errorf("the next is due at %d", a.WaitStep)
				}
			}
		}
		if s := strings.ReplaceAll(strings.Join(got, " "), "ns", ""); s != c.want {
			t.Errorf("asked each %d from %d: due at %s, want %s", c.every, c.first, s, c.want)
		}
	}
}

// TestAuto: the first one early, then by what saves cost, of which the median counts, and not as rarely as the formula alone would have it.
func TestAuto(t *testing.T) {
	t.Parallel()
	const between = 10 * time.Hour
	p := paced(Policy{Auto: true, Between: between})
	if got := dueAt(t, p, start); got != firstAuto {
		t.Errorf("the first save is due after %v", got)
	}
	now := start.Add(firstAuto)
	for i, cost := range []time.Duration{2 * time.Second, time.Second, time.Minute, 2 * time.Second, 2 * time.Second} {
		if got, _ := p.Saved(cost, 0, now); got != cost {
			t.Errorf("cost %d: %v", i, got)
		}
	}
	want := checkpoint.Interval(2*time.Second, between, 0)
	if got := dueAt(t, p, now); got.Round(time.Second) != want.Round(time.Second) {
		t.Errorf("due after %v, want %v", got, want)
	}
	p.SetPolicy(Policy{Auto: true, Between: between / 100})
	if got := dueAt(t, p, now.Add(want)); got >= want/5 {
		t.Errorf("with a hundred times as many failures due after %v", got)
	}
	p.SetPolicy(Policy{Auto: true, Between: 10000 * between})
	if a := p.Due(1, now.Add(want)); a.Interval != longestAuto || !strings.Contains(a.Reason, "at most 2h") || !strings.HasPrefix(a.Auto, "each 2h, auto: a save costs 2s") {
		t.Errorf("with hardly any failures: %+v", a)
	}
	known := paced(Policy{Auto: true, Between: between, Cost: 2 * time.Second})
	if got := dueAt(t, known, start); got != want {
		t.Errorf("with a cost from an earlier epoch due after %v", got)
	}
	known.Saved(time.Second, time.Hour, start)
	if got := dueAt(t, known, start.Add(want)); got != time.Hour {
		t.Errorf("with saves that take an hour in the background due after %v", got)
	}
}

// TestCostOfAProgramThatDoesNotTell is from when the save was due until it was committed.
func TestCostOfAProgramThatDoesNotTell(t *testing.T) {
	t.Parallel()
	p := paced(Policy{Time: time.Minute})
	if cost, _ := p.Saved(0, 0, start.Add(time.Second)); cost != 0 {
		t.Errorf("a save that nobody asked for costs %v", cost)
	}
	p.Due(1, start.Add(time.Minute))
	if cost, took := p.Saved(0, 0, start.Add(time.Minute+3*time.Second)); cost != 3*time.Second || took != cost {
		t.Errorf("got %v, %v", cost, took)
	}
	if cost, _ := p.Saved(0, 0, start.Add(time.Hour)); cost != 0 {
		t.Errorf("another one costs %v", cost)
	}
}

// TestResumed: an agent that restarts does not put a save off, nor does a clock that was set back by years.
func TestResumed(t *testing.T) {
	t.Parallel()
	p := paced(Policy{Time: time.Minute})
	p.Resume(start.Add(-50*time.Second), 5, start)
	if got := dueAt(t, p, start); got != 10*time.Second {
		t.Errorf("due after %v", got)
	}
	p = paced(Policy{Time: time.Minute})
	p.Resume(start.Add(time.Hour), 5, start)
	if got := dueAt(t, p, start); got != time.Minute {
		t.Errorf("with a clock set back due after %v", got)
	}
	p = paced(Policy{Steps: 100})
	p.Resume(start, 99, start)
	if !p.Due(100, start).Due {
		t.Error("not due at the step after an agent's restart")
	}
}

func TestRound(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		46 * time.Millisecond: "46ms", 2 * time.Second: "2s", 10 * time.Minute: "10m", 2 * time.Hour: "2h", 68*time.Minute + 3*time.Second: "1h8m", 30 * time.Hour: "30h",
		50040 * time.Hour: "2085 days", 0: "0s",
	} {
		if got := round(d); got != want {
			t.Errorf("%d is written as %q, want %q", d, got, want)
		}
	}
}
