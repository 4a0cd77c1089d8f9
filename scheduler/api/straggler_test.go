package api

import (
	"math"
	"testing"
	"time"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// TestStraggler: the rank that spends the least time in the calls that all make is named, with how long the one in the middle waits for
// it, if that is much of the time. Nothing is said while a rank is silent, or long after the last word.
func TestStraggler(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	// play lets ranks report each two seconds, after ten calls a second of which each rank spends a part of a second within.
	play := func(r *ring, from, to int, within ...float64) time.Time {
		at := start
		for s := from; s <= to; s += 2 {
			at = start.Add(time.Duration(s) * time.Second)
			for rank, part := range within {
				word := &agentv1.Ring{Calls: int64(10 * s), Bytes: int64(4000 * s), BusyNs: int64(part * float64(s) * 1e9)}
				r.hear(r.members[rank], at, word)
				r.hear(r.members[rank], at.Add(time.Second), word) // reports repeat it
			}
		}
		return at
	}
	r := &ring{members: []cluster.Rank{0, 1, 2, 5}, said: make([]ringWords, 4)}
	at := play(r, 0, 60, .5, .52, .1, .48)
	got := r.gone(at)
	if late := got.GetStraggler(); late.GetRank() != 2 || math.Abs(late.GetLagSeconds()-.04) > 1e-9 || math.Abs(late.GetLagRatio()-.4) > 1e-9 {
		t.Errorf("rank 2 is in calls for 10 ms each, others for about 50: got %v", late)
	}
	r.hear(4, at, &agentv1.Ring{Calls: 1}) // who was given up changes nothing
	if math.Abs(got.GetCallsPerSecond()-10) > 1e-9 || math.Abs(got.GetBytesPerSecond()-4000) > 1e-9 || math.Abs(got.GetBusyRatio()[3]-.48) > 1e-9 {
		t.Errorf("10 calls of 400 bytes a second were made: got %v", got)
	}
	if got := r.gone(at.Add(2 * time.Minute)); got != nil {
		t.Errorf("two minutes after the last word: %v", got)
	}

	even := &ring{members: []cluster.Rank{0, 1, 2, 5}, said: make([]ringWords, 4)}
	at = play(even, 0, 60, .5, .52, .47, .48)
	if got := even.gone(at); got == nil || got.GetStraggler() != nil {
		t.Errorf("all come at about the same time, but %v", got)
	}

	// Who was late once and is not any more is not named for ever.
	at = play(even, 62, 120, .5, .5, .5, .5)
	if got := even.gone(at).GetStraggler(); got != nil {
		t.Errorf("nobody is late any more: %v", got)
	}

	silent := &ring{members: []cluster.Rank{0, 1, 2}, said: make([]ringWords, 3)}
	at = play(silent, 0, 60, .5, .1)
	if got := silent.gone(at); got != nil {
		t.Errorf("rank 2 says nothing, but %v", got)
	}

	// A group that was formed anew counts from zero.
	again := &ring{members: []cluster.Rank{0, 1}, said: make([]ringWords, 2)}
	play(again, 0, 60, .5, .1)
	again.hear(0, start.Add(62*time.Second), &agentv1.Ring{Calls: 1})
	again.hear(1, start.Add(62*time.Second), &agentv1.Ring{Calls: 1})
	if got := again.gone(start.Add(62 * time.Second)); got != nil {
		t.Errorf("of one word of a new group: %v", got)
	}
}
