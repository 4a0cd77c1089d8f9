package cluster

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestHazardsAreOfWholeNumbers: divided as floats, hazards are what whole numbers
// give, also for the largest counts: replicas on all machines agree.
func TestHazardsAreOfWholeNumbers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.SampledFrom([]uint32{3, 1 << 12, 1 << 20, math.MaxUint32}).Draw(t, "most")
		h := History{}
		for i := range historyBins {
			h.Reached[i] = rapid.Uint32Max(most).Draw(t, "reached")
			h.Ended[i] = rapid.Uint32Max(h.Reached[i]).Draw(t, "ended")
			h.Alive[i] = rapid.Uint32Max(most).Draw(t, "alive")
		}
		for i := range historyBins {
			reached := int64(h.Reached[i])
			if i+1 < historyBins {
				reached += int64(h.Alive[i+1]) * historyUnit
			}
			hazard := rapid.Int64Range(0, historyOne).Draw(t, "hazard")
			want := hazard
			if reached > 0 {
				want = (int64(h.Ended[i])*historyOne + priorJobs*historyUnit*hazard) / (reached + priorJobs*historyUnit)
			}
			if got := h.refined(i, hazard); got != want {
				t.Fatalf("got hazard %d, want %d in bin %d of %+v", got, want, i, h)
			}
		}
	})
}

// TestOutlooksAreUpToDate: whatever is learned of jobs meanwhile, what is expected
// of them is what it is if all of it is reckoned anew.
func TestOutlooksAreUpToDate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &State{}
		var jobs []*Job
		specs := []*JobSpec{{Queue: "q", GPUs: 1}, {Queue: "q", GPUs: 2}, {Queue: "r", GPUs: 1, Name: "a1"}}
		begin := func() *Job {
			j := &Job{Spec: rapid.SampledFrom(specs).Draw(t, "spec"), User: rapid.SampledFrom([]string{"", "u"}).Draw(t, "user")}
			s.begin(j)
			return j
		}
		conclude := func(j *Job) {
			j.Epoch = Epoch(rapid.IntRange(0, 1).Draw(t, "epoch"))
			j.Attained += rapid.Int64Range(0, 1<<20).Draw(t, "attained at last") * gpuSecond
			s.conclude(j)
		}
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(*rapid.T) { jobs = append(jobs, begin()) },
			"attain": func(t *rapid.T) {
				if len(jobs) > 0 {
					j := rapid.SampledFrom(jobs).Draw(t, "job")
					j.Attained = max(j.Attained, rapid.Int64Range(0, 1<<30).Draw(t, "seconds")*gpuSecond)
					s.attain(s.kinOf(j), j, j.Attained)
				}
			},
			"conclude": func(*rapid.T) {
				if len(jobs) > 0 {
					conclude(jobs[0])
					jobs = jobs[1:]
				}
			},
			"snapshot": func(t *rapid.T) {
				if c := s.Snapshot(); rapid.Bool().Draw(t, "go on with it") {
					s = c
				}
			},
			"many": func(*rapid.T) { // so that what is long ago counts half
				j := begin()
				for range 2 * historyWindow[3] {
					s.begin(j)
					j.Epoch = 1
					s.conclude(j)
				}
				conclude(j)
			},
			"others": func(*rapid.T) { // more than there are outlooks for
				for i := range int32(maxOutlooks) {
					s.foresee(&Job{Spec: &JobSpec{Queue: "s", GPUs: i + 1}})
				}
			},
			"": func(t *rapid.T) {
				for _, j := range jobs {
					k := s.kinOf(j)
					bin := rapid.Int32Range(0, historyBins-1).Draw(t, "bin")
					var room [4]*History
					known := s.known(k, &room)
					if got, want := s.remaining(k, known, bin), s.lessons.reckon(&outlook{}, known, int(bin)); got != want {
						t.Fatalf("got %d s left in bin %d, want %d", got, bin, want)
					}
				}
			},
		})
	})
}
