package planner

import (
	"math/bits"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// level is the unit of keys: thousandths of a doubling of GPU time.
const level = 1000

// keyOf is where a pending job stands among those of its priority: the lower
// starts first. It does not change while the job waits.
func (x *Index) keyOf(j *cluster.Job) int64 {
	switch x.policy.Order {
	case cluster.OrderLAS:
		return lasLevel(j.Attained)
	case cluster.OrderQSSF:
		return doublings(int64(j.Expected/time.Millisecond) * int64(j.Spec.GPUs) * int64(j.Spec.Share()))
	case cluster.OrderSJF:
		return int64(x.length(j))
	case cluster.OrderSRTF:
		return doublings(x.remaining(j, j.Attained))
	case cluster.OrderGangline:
		return ganglineKey(j, j.Level)
	default:
		return 0
	}
}

// ganglineKey is a virtual deadline in milliseconds: since when the job might
// have started (it does not age behind others that it waits for) and the GPU
// time that it is expected to need yet. So a job is passed only by those that
// are submitted before then: none starves. A quarter of that time bounds the
// wait of long gangs better and costs the others more than it gives those.
func ganglineKey(j *cluster.Job, level int32) int64 {
	return int64(j.ReadyAt)/1e6 + cluster.LevelSpan(level).Milliseconds()
}

// standing is how a job stands among those of its priority by the service that
// it has had: its key, and the level behind it in half octaves.
type standing struct {
	key   int64
	level int64
}

// standingOf is a running job's standing, or that of a pending one.
func (x *Index) standingOf(j *cluster.Job) standing {
	if x.policy.Order != cluster.OrderGangline {
		key := x.levelOf(j)
		return standing{key: key, level: 2 * key / level}
	}
	l, _ := x.state.LevelOf(j, x.now)
	return standing{key: ganglineKey(j, l), level: int64(l)}
}

// standsUntil is a running job's standing, and until when it stands there if
// nothing else changes of it, or, if it has passed its bin, nothing of the state; 0
// if that is not known.
func (x *Index) standsUntil(j *cluster.Job) (at standing, until cluster.Time, passed bool) {
	if x.policy.Order != cluster.OrderGangline {
		return x.standingOf(j), 0, false
	}
	l, until, passed := x.state.LevelUntil(j, x.now)
	return standing{key: ganglineKey(j, l), level: int64(l)}, until, passed
}

// levelOf is the key that a job would have by the service it has had.
func (x *Index) levelOf(j *cluster.Job) int64 {
	attained := j.AttainedAt(x.now)
	switch x.policy.Order {
	case cluster.OrderLAS:
		return lasLevel(attained)
	case cluster.OrderSRTF:
		return doublings(x.remaining(j, attained))
	default:
		return 0
	}
}

// preemptsByLevel reports whether the order lets a job stop another of its own
// priority that has had much more service.
func (x *Index) preemptsByLevel() bool {
	switch x.policy.Order {
	case cluster.OrderLAS, cluster.OrderSRTF, cluster.OrderGangline:
		return true
	default:
		return false
	}
}

// lasLevel is the level of multi-level least attained service: thresholds of
// 3,600 GPU-seconds x 8^k, as Tiresias (NSDI 2019) has two of.
func lasLevel(attained int64) int64 {
	k := int64(0)
	for t := int64(3600) * 1000 * cluster.WholeGPU; attained >= t && k < 12; t *= 8 {
		k++
	}
	return k * 3 * level
}

// doublings is log2 of a number, in thousandths, by linear interpolation
// between powers of two: whole numbers, since replicas must agree.
func doublings(v int64) int64 {
	if v < 1 {
		return 0
	}
	b := bits.Len64(uint64(v)) - 1
	frac := (uint64(v) << (63 - b) << 1) >> 32 // of the mantissa, as a fraction of 2^32
	return int64(b)*level + int64(frac*level>>32)
}

// length is the exact length of a job, which only the simulator knows.
func (x *Index) length(j *cluster.Job) time.Duration {
	if x.cfg.Length == nil {
		return 0
	}
	return x.cfg.Length(j.ID)
}

// remaining is the exact GPU time that a job still needs.
func (x *Index) remaining(j *cluster.Job, attained int64) int64 {
	return max(x.length(j).Milliseconds()*int64(j.Spec.GPUs)*int64(j.Spec.Share())-attained, 0)
}
