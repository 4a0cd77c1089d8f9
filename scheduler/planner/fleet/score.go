package fleet

import (
	"cmp"
	"math"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// MixItem is one kind of request of the recent past. Scores that look ahead
// place so that the mix still fits.
type MixItem struct {
	GPUs   int32    // of the gang, or on each node if it says so; 0: CPUs and memory alone
	Share  int32    // thousandths of each GPU, 1..1000
	CPU    int64    // thousandths for each GPU, or in all if there is none
	Mem    int64    // bytes for each GPU, or in all if there is none
	Types  []string // of GPU that will do; none: any
	Weight int64    // how often it was asked for, relative to the others
}

// SetMix tells what has been asked for lately, and which part of the jobs that
// start do so where others ended, in thousandths (0: nothing ever ends). The
// same mix gives the same choices. The scores fgd and gangline look at it;
// without one they are as bestfit. It makes them compute much anew, so it is
// to be called when the mix has drifted, not for each job.
func (f *Fleet) SetMix(mix []MixItem, churnMilli int32) {
	f.mix = f.mix[:0]
	for _, m := range mix {
		if m.Weight > 0 && (m.GPUs == 0 || (m.GPUs > 0 && m.Share > 0 && m.Share <= cluster.WholeGPU)) {
			f.mix = append(f.mix, m)
		}
	}
	slices.SortStableFunc(f.mix, func(a, b MixItem) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.GPUs, b.GPUs), cmp.Compare(a.Share, b.Share),
			cmp.Compare(a.CPU, b.CPU), cmp.Compare(a.Mem, b.Mem), slices.Compare(a.Types, b.Types))
	})
	f.mix = f.mix[:min(len(f.mix), maxMix)]
	f.churn = float64(min(max(churnMilli, 0), 1000)) / 1000
	f.asked = slices.ContainsFunc(f.mix, func(m MixItem) bool { return m.GPUs > 0 })
	f.values = nil
	for _, p := range f.pools {
		p.ranks = nil
	}
}

// maxMix bounds the requests that a score looks at: the rarest do not count.
const maxMix = 1024

// Item is the shape as a part of the mix.
func (sh *Shape) Item(weight int64) MixItem {
	gpus := sh.GPUs
	if sh.PerNode > 0 {
		gpus = sh.PerNode
		weight *= int64(sh.GPUs / sh.PerNode)
	}
	return MixItem{GPUs: gpus, Share: sh.Share, CPU: sh.CPU, Mem: sh.Mem, Types: sh.Types, Weight: weight}
}

// sight is what a score sees of a node.
type sight struct {
	free     []int16 // thousandths of each GPU of the type, ascending
	cpu, mem int64   // free, thousandths and bytes
}

// scorer says what a state of a node is worth. A gang that goes to one node
// goes where the cost of the node's state rises least.
type scorer interface {
	// cost is in thousandths of GPUs. It must not keep the sight.
	cost(s *sight) float64
	// rise is the score of a gang that raises the cost by so much.
	rise(by float64) float64
}

// scorer returns the score of a pool, or nil if the gang with the least room
// left behind wins.
func (f *Fleet) scorer(p *pool) scorer {
	if !f.asked {
		return nil
	}
	switch f.score {
	case cluster.ScoreFGD:
		return newFGD(f.mix, p)
	case cluster.ScoreGangline:
		return f.newOutlook(p)
	default:
		return nil
	}
}

// tiesByID reports whether of nodes with equal scores the first by id is taken,
// of whatever GPU type, rather than the one with the fewest wholly free GPUs.
//
// So does the scheduler in which the authors of FGD measured it, and since its
// scores are rounded, ties are common. It matters: on openb, arrivals alone, FGD
// comes to the published figures only so, and the fuller node would cost it 0.2
// points; with departures the fuller node would gain it 0.4 and 0.1 points at
// loads of 0.97 and 1.05.
func (f *Fleet) tiesByID() bool { return f.asked && f.score == cluster.ScoreFGD }

// after turns a sight into what it is once a request has taken its part: k
// wholly free GPUs, or a share of the GPU of which so much is free. With no GPU
// it is the CPUs and memory alone.
func (s *sight) after(k, share int32, cpu, mem int64, free int16) {
	n := len(s.free)
	s.cpu -= cpu * int64(max(k, 1))
	s.mem -= mem * int64(max(k, 1))
	if share == cluster.WholeGPU {
		copy(s.free[k:], s.free[:n-int(k)])
		clear(s.free[:k])
		return
	}
	i := slices.Index(s.free, free)
	left := free - int16(share)
	for ; i > 0 && s.free[i-1] > left; i-- {
		s.free[i] = s.free[i-1]
	}
	s.free[i] = left
}

// whole is how many of the GPUs are wholly free.
func (s *sight) whole() int32 {
	n := len(s.free)
	for n > 0 && s.free[n-1] == cluster.WholeGPU {
		n--
	}
	return int32(len(s.free) - n)
}

// fgd is the expected fragmentation of "Beware of Fragmentation: Scheduling
// GPU-Sharing Workloads with Fragmentation Gradient Descent" (Weng et al.,
// USENIX ATC 2023): over the requests that make up 95 % of the mix, how much of
// what is free a request could not use.
type fgd struct{ kinds []fgdKind }

type fgdKind struct {
	gpus   int32
	share  int16
	cpu    int64 // of the whole request
	weight float64
	no     bool // it takes no GPUs of this type
}

func newFGD(mix []MixItem, p *pool) *fgd {
	f := &fgd{}
	total, sum := 0.0, 0.0
	for i := range mix {
		m := &mix[i]
		k := fgdKind{gpus: m.GPUs, share: int16(m.Share), cpu: m.CPU * int64(max(m.GPUs, 1))}
		k.no = m.GPUs == 0 || !m.takes(p)
		at := slices.IndexFunc(f.kinds, func(o fgdKind) bool {
			o.weight = 0
			return o == k
		})
		if at < 0 {
			at = len(f.kinds)
			f.kinds = append(f.kinds, k)
		}
		f.kinds[at].weight += float64(m.Weight)
		total += float64(m.Weight)
	}
	slices.SortStableFunc(f.kinds, func(a, b fgdKind) int { return cmp.Compare(b.weight, a.weight) })
	for i := range f.kinds {
		if sum += f.kinds[i].weight; sum >= fgdPart*total {
			f.kinds = f.kinds[:i+1]
			break
		}
	}
	for i := range f.kinds {
		f.kinds[i].weight /= sum
	}
	return f
}

// fgdPart is how much of the mix counts: rare requests do not.
const fgdPart = 0.95

func (f *fgd) cost(s *sight) float64 {
	n := len(s.free)
	total := 0.0
	for _, free := range s.free {
		total += float64(free)
	}
	cost := 0.0
	for i := range f.kinds {
		k := &f.kinds[i]
		if k.no || s.cpu < k.cpu || n < int(k.gpus) || s.free[n-int(k.gpus)] < k.share {
			cost += k.weight * total
			continue
		}
		for j := 0; j < n && s.free[j] < k.share; j++ {
			cost += k.weight * float64(s.free[j])
		}
	}
	return cost
}

// rise rounds to a hundred steps as the authors' own scheduler does: without
// it, differences that mean nothing decide, and whole nodes are broken up.
func (f *fgd) rise(by float64) float64 { return -math.Floor(100 / (1 + math.Exp(by/cluster.WholeGPU))) }
