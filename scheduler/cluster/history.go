package cluster

import (
	"math"
	"math/bits"
	"time"
)

// Prediction of how much GPU time a job still needs, from what jobs like it
// have needed and from what it has had, as the order gangline uses it. The user
// says nothing. All of it is whole numbers: replicas must agree.
//
// Jobs are alike in four degrees: (queue, user, stem of the name, GPUs, time
// limit), (queue, GPUs), (GPUs), and all. For each, a history counts how many
// jobs ended in each bin of attained GPU time, how many reached it, and how many
// that are still alive have reached it. The hazard of a bin is the part of those
// who reached it that ended in it, drawn towards that of the next wider degree
// as by priorJobs jobs (the product-limit estimate of Kaplan and Meier with
// shrinkage). From the hazards follows the mean of what is left.

// Constants of prediction: one set for all clusters, found on public traces,
// see docs/policy.md.
const (
	historyUnit  = 256 // counts are in 1/256 job, so that halving them loses little
	priorJobs    = 16  // weight of the wider degree
	historyBits  = 20
	historyOne   = 1 << historyBits // a probability of 1
	priorHazard  = 166_796          // of a bin, before anything is known: 1 - 2^(-1/4)
	priorFirst   = historyOne / 20
	MaxHistories = 20_000          // of the narrowest two degrees together
	gpuSecond    = WholeGPU * 1000 // milli-GPU-milliseconds
)

// historyWindow is after how many jobs the past counts half, by degree from the
// widest to the narrowest.
var historyWindow = [4]uint32{2048, 1024, 256, 256} //nolint:gochecknoglobals // table

// History is what jobs of one kind have needed. A History in a State is
// replaced, never edited, but for one that no snapshot has yet.
type History struct {
	Ended   [historyBins]uint32 // jobs that ended in the bin, in 1/256
	Reached [historyBins]uint32 // jobs that have ended and had reached the bin, in 1/256
	Alive   [historyBins]uint32 // jobs that have not ended and have reached the bin
	Jobs    uint64              // that have ended, all time
	Error   int64               // mean distance of the first prediction from the truth, in thousandths of a doubling

	by *owner // who may edit it
}

// binOf is the bin of so much service, in milli-GPU-milliseconds.
func binOf(attained int64) int32 {
	seconds := attained / gpuSecond
	if seconds < binEdges[1] {
		return 0
	}
	b := 2*(bits.Len64(uint64(seconds/binEdges[1]))-1) + 1 // the bin or the one before
	for b+1 < historyBins && seconds >= binEdges[b+1] {
		b++
	}
	return int32(min(b, historyBins-1)) //nolint:gosec // small
}

// log2q8 is 256 x log2 of a number.
func log2q8(v int64) int64 {
	if v < 1 {
		return 0
	}
	n := bits.Len64(uint64(v)) - 1
	m := v << 8 >> n & 255
	if n > 54 {
		m = v >> (n - 8) & 255
	}
	return int64(n)<<8 + logTable[m]
}

// Level is how much GPU time a job is expected to need yet, in half octaves of
// a GPU-second: 0 is a second, 2 are two, 24 about an hour. An eighth of it is
// what it has had instead, so that a job about which the past is silent sinks.
func level(left int64, bin int32) int32 {
	l := (7*log2q8(left)/4 + 32*int64(10+bin)) >> 8
	return int32(min(max(l, 0), int64(len(halfPowers)-1))) //nolint:gosec // small
}

// LevelSpan is by how much a level puts a job back in the order gangline: jobs
// submitted less than so long after it may pass it, if they are expected to be
// over at once.
func LevelSpan(level int32) time.Duration {
	return time.Duration(halfPowers[min(max(level, 0), int32(len(halfPowers)-1))]) * time.Second
}

// LevelOf returns a job's level at a time, and how long its next epoch is
// expected to take.
func (s *State) LevelOf(j *Job, now Time) (int32, time.Duration) {
	bin := max(binOf(j.AttainedAt(now)), int32(j.Bin))
	if s.still || (bin == int32(j.Bin) && s.foresees()) {
		return j.Level, j.Expected
	}
	var room [4]*History
	k := s.knownKin(j)
	known := s.known(k, &room)
	left := s.remaining(k, known, bin)
	return level(left, bin), expected(known, j.Spec, left)
}

// LevelUntil is LevelOf of a job that holds GPUs, and until when it says the same,
// as long as the state has this version of the job; if it has passed its bin, which
// the next command finds, as long as the state does not change at all. It is only
// for policies by which jobs are placed as they go on.
func (s *State) LevelUntil(j *Job, now Time) (level int32, until Time, passed bool) {
	if s.still {
		return j.Level, math.MaxInt64, false
	}
	pace := j.pace()
	if until = j.crosses(int32(j.Bin), pace); until > now {
		return j.Level, until, false
	}
	bin := max(binOf(j.AttainedAt(now)), int32(j.Bin))
	if until = j.crosses(bin, pace); until == 0 {
		until = math.MaxInt64
	}
	level, _ = s.LevelOf(j, now)
	return level, until, bin > int32(j.Bin)
}

// foresees reports whether anything that the policy asks for depends on how
// long jobs are expected to run. If not, jobs are not placed by it as they go
// on, which is most of the work of Apply on a busy cluster; what jobs have
// needed is learned all the same, when they end.
func (s *State) foresees() bool {
	p := s.Policy()
	switch p.Order {
	case OrderFIFO, OrderSJF, OrderSRTF, OrderLAS:
		return !p.Backfill.Off || len(p.Windows) > 0
	default:
		return true
	}
}

// foresee places a job in the order by the service that it has had.
func (s *State) foresee(j *Job) {
	if !s.foresees() {
		return
	}
	s.expect(s.kinOf(j), j)
}

// expect is foresee once it is known that the policy asks for it.
func (s *State) expect(k *kin, j *Job) {
	var room [4]*History
	known := s.known(k, &room)
	left := s.remaining(k, known, int32(j.Bin))
	j.Level, j.Expected = level(left, int32(j.Bin)), expected(known, j.Spec, left)
	if j.Epoch == 0 && j.Bin == 0 {
		j.Predicted = left
	}
}

// foreseeAll places all unfinished jobs anew, once a policy asks for it that
// follows one which did not.
func (s *State) foreseeAll() {
	var all []*Job
	take := func(j *Job) bool {
		all = append(all, j)
		return true
	}
	s.pending.scan(&s.jobs, take)
	s.holding.scan(&s.jobs, take)
	for _, old := range all {
		j := *old
		s.attain(s.kinOf(&j), &j, j.AttainedAt(s.now))
		s.foresee(&j)
		s.putJob(&j)
	}
}

// expected is how long an epoch takes in which a job has so much GPU time left,
// or 0 if too few like it have ended.
func expected(known []*History, spec *JobSpec, left int64) time.Duration {
	if h := narrowest(known); h == nil || h.Jobs < enoughJobs {
		return 0
	}
	gpus := int64(spec.GPUs) * int64(spec.Share())
	return time.Duration(left*WholeGPU/gpus) * time.Second
}

// enoughJobs must have ended before a length is foretold. The order needs no
// such bound: there, a guess is better than none.
const enoughJobs = 4

// Prediction returns the history of the narrowest degree that has at least one
// ended job like this one, or nil. It is valid until the next Apply.
func (s *State) Prediction(spec *JobSpec, user string) *History {
	var k kin
	var room [4]*History
	k.name(spec, user)
	return narrowest(s.known(&k, &room))
}

func narrowest(known []*History) *History {
	for i := len(known) - 1; i >= 0; i-- {
		if known[i].Jobs > 0 {
			return known[i]
		}
	}
	return nil
}

// restartTime is what of a later epoch does not count as service: start-up and
// reading the checkpoint.
const restartTime = time.Minute

// AttainedAt is the service that a job has had until now, in
// milli-GPU-milliseconds: all its epochs, without what the restarts cost.
func (j *Job) AttainedAt(now Time) int64 {
	if !j.State.Holding() {
		return j.Attained
	}
	return j.Attained + j.service(now)
}

// service is what the current epoch has held beyond what its start cost.
func (j *Job) service(now Time) int64 { return j.served(now) * j.pace() }

// served is for how many milliseconds the current epoch has been of service.
func (j *Job) served(now Time) int64 {
	ran := now.Sub(j.StartedAt)
	if j.Epoch > 1 {
		ran -= restartTime
	}
	return max(ran.Milliseconds(), 0)
}

// pace is how much a job is served in a millisecond, in milli-GPUs.
func (j *Job) pace() int64 { return int64(j.Held()) * int64(j.Spec.Share()) }

// begin counts a new job among the living and places it in the order.
func (s *State) begin(j *Job) {
	s.foresee(j)
	for _, h := range s.ownHistories(s.kinOf(j)) {
		if h != nil {
			h.Alive[0]++
		}
	}
}

// attain moves a job to the bin of the service that it has had.
func (s *State) attain(k *kin, j *Job, attained int64) {
	from, bin := int32(j.Bin), max(binOf(attained), int32(j.Bin))
	if bin == from {
		return
	}
	for _, h := range s.ownHistories(k) {
		if h != nil {
			for i := from + 1; i <= bin; i++ {
				h.Alive[i]++
			}
		}
	}
	s.lessons.learn(bin - 1)
	j.Bin = int8(bin) //nolint:gosec // below historyBins
}

// conclude counts a job that has ended, with all the service that it has had. One
// that never ran teaches nothing.
func (s *State) conclude(j *Job) {
	bin, last := max(binOf(j.Attained), int32(j.Bin)), int32(0)
	for d, h := range s.ownHistories(s.kinOf(j)) {
		if h != nil {
			last = max(last, h.conclude(j, bin, historyWindow[d]))
		}
	}
	s.lessons.learn(last)
	j.Bin = int8(bin) //nolint:gosec // below historyBins
}

// conclude counts a job that has ended in a bin, and returns the last one of which
// the hazard is another one since. In those that it reached since it was last
// counted, it need not be counted among the living first.
func (h *History) conclude(j *Job, bin int32, window uint32) int32 {
	last := bin
	for i := range j.Bin + 1 {
		h.Alive[i] -= min(h.Alive[i], 1)
	}
	if j.Epoch == 0 {
		return last
	}
	if h.Reached[0] >= 2*window*historyUnit {
		for i := range h.Ended {
			h.Ended[i] /= 2
			h.Reached[i] /= 2
		}
		last = historyBins - 1
	}
	h.Ended[bin] += historyUnit
	for i := range bin + 1 {
		h.Reached[i] += historyUnit
	}
	h.Jobs++
	if j.Predicted > 0 { // else the policy had nothing foreseen
		distance := log2q8(max(j.Attained/gpuSecond, 1)) - log2q8(j.Predicted)
		distance = max(distance, -distance) * 1000 / 256
		h.Error += (distance - h.Error) / int64(min(h.Jobs, 64)) //nolint:gosec // at most 64
	}
	return last
}
