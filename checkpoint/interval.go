package checkpoint

import (
	"math"
	"time"
)

// GPUHoursPerFailure is how many GPU-hours of training pass between two interruptions that nobody asked for, where nothing better is
// known: 419 in 54 days of 16,384 GPUs (Llama Team, "The Llama 3 Herd of Models", 2024, section 3.3.4).
const GPUHoursPerFailure = 54 * 24 * 16384 / 419

// TimeBetweenFailures gives how long a job of so many GPUs runs, on average, before one of them stops it. gpuHours is the
// cluster's own experience, GPU-hours for each failure; 0 means GPUHoursPerFailure.
func TimeBetweenFailures(gpus int, gpuHours float64) time.Duration {
	if gpuHours <= 0 {
		gpuHours = GPUHoursPerFailure
	}
	return saturate(gpuHours / float64(max(gpus, 1)) * float64(time.Hour))
}

// Experience is what GPUs have shown: the failures that ended work on them, and the GPU-hours of that work.
type Experience struct {
	GPUHours, Failures float64
}

// FailuresPerGPUHour estimates how often GPUs fail, from all of a cluster's experience and from that of the nodes in question. Both are
// means of a Gamma prior and what was seen: for the cluster the prior is one failure in GPUHoursPerFailure, for the nodes one failure at the
// cluster's rate. So a new cluster fails as published, an old one as it does, and nodes that fail more than others count as such once they have
// shown it more than once.
func FailuresPerGPUHour(cluster, nodes Experience) float64 {
	all := (1 + max(cluster.Failures, 0)) / (GPUHoursPerFailure + max(cluster.GPUHours, 0))
	return (1 + max(nodes.Failures, 0)) / (1/all + max(nodes.GPUHours, 0))
}

// Interval gives the time between the starts of two saves that loses the least to saves and failures together: long intervals repeat more work
// after a failure, short ones stop the training more often. cost is how long a save holds up the training, its stall: measure it. between is the mean
// time between failures. It is Daly's formula (J. Daly, "A higher order estimate of the optimum checkpoint interval", 2006), whose first term,
// sqrt(2 cost between), is Young's (1974); where a save costs more than half of between, it is between itself. least
// bounds it from below, for what a save costs beside the stall: the storage must be done with one before the next, and 0 costs never end.
func Interval(cost, between, least time.Duration) time.Duration {
	c, m := max(cost.Seconds(), 0), between.Seconds()
	if m <= 0 {
		return least
	}
	seconds := m
	if c < m/2 {
		x := c / (2 * m)
		seconds = math.Sqrt(2*c*m)*(1+math.Sqrt(x)/3+x/9) - c
	}
	return max(saturate(seconds*float64(time.Second)), least)
}

// saturate turns nanoseconds into a duration; what is too long for one becomes the longest.
func saturate(ns float64) time.Duration {
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}
