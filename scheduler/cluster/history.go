package cluster

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"
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
	historyUnit  = 256     // counts are in 1/256 job, so that halving them loses little
	priorJobs    = 16      // weight of the wider degree
	historyOne   = 1 << 20 // a probability of 1
	priorHazard  = 166_796 // of a bin, before anything is known: 1 - 2^(-1/4)
	priorFirst   = historyOne / 20
	MaxHistories = 20_000          // of the narrowest two degrees together
	gpuSecond    = WholeGPU * 1000 // milli-GPU-milliseconds
)

// historyWindow is after how many jobs the past counts half, by degree from the
// widest to the narrowest.
var historyWindow = [4]uint32{2048, 1024, 256, 256} //nolint:gochecknoglobals // table

// History is what jobs of one kind have needed. A History in a State is
// replaced, never edited.
type History struct {
	Ended   [historyBins]uint32 // jobs that ended in the bin, in 1/256
	Reached [historyBins]uint32 // jobs that have ended and had reached the bin, in 1/256
	Alive   [historyBins]uint32 // jobs that have not ended and have reached the bin
	Jobs    uint64              // that have ended, all time
	Error   int64               // mean distance of the first prediction from the truth, in thousandths of a doubling
}

// historyKeys returns the keys of a job's histories, the widest first.
func historyKeys(spec *JobSpec, user string) (keys [4]string, n int) {
	size := strconv.Itoa(int(spec.GPUs) * int(spec.Share()))
	keys = [4]string{"", "g\x00" + size, "q\x00" + spec.Queue + "\x00" + size}
	if user == "" {
		return keys, 3
	}
	limit := strconv.Itoa(bits.Len64(uint64(spec.TimeLimit / time.Minute)))
	keys[3] = "u\x00" + spec.Queue + "\x00" + user + "\x00" + nameStem(spec.Name) + "\x00" + size + "\x00" + limit
	return keys, 4
}

// nameStem is a job's name without the numbers that tell runs of it apart.
func nameStem(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, name)
}

// editHistories changes a job's histories.
func (s *State) editHistories(spec *JobSpec, user string, edit func(h *History, window uint32)) {
	keys, n := historyKeys(spec, user)
	for i := range n {
		old, known := s.histories.Get(keys[i])
		if !known && i >= 2 && s.histories.Len() >= MaxHistories {
			continue // the wider ones have to do
		}
		next := &History{}
		if known {
			*next = *old
		}
		edit(next, historyWindow[i])
		s.histories.Set(keys[i], next)
	}
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

// hazards are the parts of the jobs like one that end in each bin, of those
// that reach it.
func (s *State) hazards(spec *JobSpec, user string) (hazard [historyBins]int64) {
	keys, n := historyKeys(spec, user)
	for i := range hazard {
		hazard[i] = priorHazard
	}
	hazard[0] = priorFirst
	for i := range n {
		if h, known := s.histories.Get(keys[i]); known {
			h.refine(&hazard)
		}
	}
	return hazard
}

// remaining is the mean GPU time that a job still needs, in GPU-seconds.
func (s *State) remaining(spec *JobSpec, user string, bin int32) int64 {
	hazard := s.hazards(spec, user)
	left := binEdges[historyBins]
	for i := int32(historyBins) - 1; i >= bin; i-- {
		w := binEdges[i+1] - binEdges[i]
		left = (w*(historyOne-hazard[i]/2) + (historyOne-hazard[i])*left) / historyOne
	}
	return left
}

// refine turns the hazards of a wider degree into those of this one.
func (h *History) refine(hazard *[historyBins]int64) {
	const prior = priorJobs * historyUnit
	for i := range hazard {
		alive := int64(0)
		if i+1 < historyBins {
			alive = int64(h.Alive[i+1]) * historyUnit
		}
		hazard[i] = (int64(h.Ended[i])*historyOne + prior*hazard[i]) / (int64(h.Reached[i]) + alive + prior)
	}
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
	return time.Duration(halfPowers[min(max(level, 0), int32(len(halfPowers)-1))]) * time.Second / 4
}

// LevelOf returns a job's level at a time, and how long its next epoch is
// expected to take.
func (s *State) LevelOf(j *Job, now Time) (int32, time.Duration) {
	bin := binOf(j.AttainedAt(now))
	if bin <= j.Bin || s.still {
		return j.Level, j.Expected
	}
	return s.predict(j, bin)
}

func (s *State) predict(j *Job, bin int32) (int32, time.Duration) {
	left := s.remaining(j.Spec, j.User, bin)
	if h := s.Prediction(j.Spec, j.User); h == nil || h.Jobs < enoughJobs {
		return level(left, bin), 0
	}
	gpus := int64(j.Spec.GPUs) * int64(j.Spec.Share())
	return level(left, bin), time.Duration(left*WholeGPU/gpus) * time.Second
}

// enoughJobs must have ended before a length is foretold. The order needs no
// such bound: there, a guess is better than none.
const enoughJobs = 4

// Prediction returns the history of the narrowest degree that has at least one
// ended job like this one, or nil.
func (s *State) Prediction(spec *JobSpec, user string) *History {
	keys, n := historyKeys(spec, user)
	for i := n - 1; i >= 0; i-- {
		if h, ok := s.histories.Get(keys[i]); ok && h.Jobs > 0 {
			return h
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
func (j *Job) service(now Time) int64 {
	ran := now.Sub(j.StartedAt)
	if j.Epoch > 1 {
		ran -= restartTime
	}
	return max(ran.Milliseconds(), 0) * int64(j.Held()) * int64(j.Spec.Share())
}

// begin counts a new job among the living and places it in the order.
func (s *State) begin(j *Job) {
	j.Level, j.Expected = s.predict(j, 0)
	j.Predicted = s.remaining(j.Spec, j.User, 0)
	s.editHistories(j.Spec, j.User, func(h *History, _ uint32) { h.Alive[0]++ })
}

// advance moves a job to the bin of the service that it has had, and places it
// in the order anew.
func (s *State) advance(j *Job, attained int64) {
	from, bin := j.Bin, max(binOf(attained), j.Bin)
	if bin > from {
		s.editHistories(j.Spec, j.User, func(h *History, _ uint32) {
			for i := from + 1; i <= bin; i++ {
				h.Alive[i]++
			}
		})
		j.Bin = bin
	}
	j.Level, j.Expected = s.predict(j, j.Bin)
}

// conclude counts a job that has ended. One that never ran teaches nothing.
func (s *State) conclude(j *Job) {
	ran := j.Epoch > 0
	distance := log2q8(max(j.Attained/gpuSecond, 1)) - log2q8(max(j.Predicted, 1))
	distance = max(distance, -distance) * 1000 / 256
	s.editHistories(j.Spec, j.User, func(h *History, window uint32) {
		for i := range j.Bin + 1 {
			h.Alive[i] -= min(h.Alive[i], 1)
		}
		if !ran {
			return
		}
		if h.Reached[0] >= 2*window*historyUnit {
			for i := range h.Ended {
				h.Ended[i] /= 2
				h.Reached[i] /= 2
			}
		}
		h.Ended[j.Bin] += historyUnit
		for i := range j.Bin + 1 {
			h.Reached[i] += historyUnit
		}
		h.Jobs++
		h.Error += (distance - h.Error) / int64(min(h.Jobs, 64)) //nolint:gosec // at most 64
	})
}

// crossing is when a job that holds GPUs reaches its next bin, or 0 for never.
func (s *State) crossing(j *Job) Time {
	if !j.State.Holding() || j.Bin+1 >= historyBins || j.Held() == 0 {
		return 0
	}
	rate := int64(j.Held()) * int64(j.Spec.Share())
	need := max(binEdges[j.Bin+1]*gpuSecond-j.Attained, 0)
	wait := time.Duration((need+rate-1)/rate) * time.Millisecond
	if j.Epoch > 1 {
		wait += restartTime
	}
	return max(j.StartedAt.Add(wait), 1)
}

// crossingKey orders the jobs that hold GPUs by when they reach their next bin.
func crossingKey(at Time, id JobID) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), uint64(at)) //nolint:gosec // positive
	return string(binary.BigEndian.AppendUint64(b, uint64(id)))
}

// trackCrossing keeps the crossings in step with a job's new version.
func (s *State) trackCrossing(j *Job) {
	if s.still {
		return
	}
	at := s.crossing(j)
	old, had := s.crossAt.Get(j.ID)
	if had && old == at {
		return
	}
	if had {
		s.crossings.Delete(crossingKey(old, j.ID))
		s.crossAt.Delete(j.ID)
	}
	if at > 0 {
		s.crossAt.Set(j.ID, at)
		s.crossings.Set(crossingKey(at, j.ID), j.ID)
	}
}

// maxCrossings bounds the jobs that one command moves on; the next one does the
// rest. Each takes a few microseconds.
const maxCrossings = 256

// cross moves on the jobs that have reached their next bin by now. What is
// expected of a job is nothing that a command does: no Result tells of it.
func (s *State) cross() {
	if s.still {
		return
	}
	for range maxCrossings {
		_, id, ok := s.crossings.Min()
		if at, _ := s.crossAt.Get(id); !ok || at > s.now {
			return
		}
		j := *s.Job(id)
		s.advance(&j, max(j.AttainedAt(s.now), binEdges[j.Bin+1]*gpuSecond))
		s.putJob(&j)
	}
}
