package fleet

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// outlook is the score named gangline: what a node is worth to the recent mix
// of requests. A state of a node costs, in thousandths of GPUs,
//
//   - worthOfHoles * V        V: what its free GPUs and parts of GPUs are worth,
//     each by the shares of the mix that it can hold (holeValues)
//   - sum over requests of the mix (their part of its GPU time x what the node
//     could hold of them if it were given to them alone, CPUs and memory considered)
//   - weightOfLack * (1 - churn) * lack^2 / V, for CPUs and for memory
//     lack: for how much of V they do not suffice, at what
//     the mix asks for beside a GPU
//   - worthOfFree * F^2 / 8   F: its free GPUs, parts counted: rather one node with
//     eight than two with four
//   - worthOfWhole * churn * the chance that all of it becomes free, on nodes that
//     the largest requests of the mix need all of (see Fleet.emptied)
//
// A share that chooses among parts of GPUs sees those of which many are free as
// worth less than V says, see ranks.glut.
//
// The lack counts less where jobs come and go: what misses CPUs now has them
// again when its neighbours end. The constants were found on the published
// openb trace, on arrivals alone and with departures at two loads, and hold for
// all clusters; "gangline sim place" measures them.
type outlook struct {
	kinds    []outlookKind
	lack     float64
	cpu, mem float64             // that the mix asks for beside one GPU
	sought   float64             // how much more than other types the mix seeks this one, see Fleet.sought
	hole     *[units + 1]float64 // value of a part of a GPU, the same for all types
	takers   *[units + 1]float64 // of a part, see holeValues
	volume   float64             // GPUs that the mix asks for
	empty    []float64           // by GPUs that are not wholly free: what is hoped for, see Fleet.emptied
	large    int32               // GPUs that a node must have for it
	// CPUs and memory are seen in these steps, so that there are few kinds of
	// nodes however the amounts differ.
	cpuStep, memStep int64
}

// outlookKind is the requests of the mix for the same GPUs.
type outlookKind struct {
	gpus  int32
	share int16
	needs []outlookNeed
}

type outlookNeed struct {
	cpu, mem int64   // of a request on one node, at least 1
	weight   float64 // its part of the mix's GPU time, times its thousandths of GPUs on one node
}

// Constants of the score.
const (
	worthOfHoles = 6.0
	weightOfLack = 6.0
	worthOfFree  = 0.2
	worthOfType  = 2.0
	worthOfWhole = 4.0
	refillRate   = 3.0  // arrivals at a GPU that is kept for last, for each end of a job
	enoughLarge  = 0.05 // part of the mix's GPU time from which on its largest requests count in full
	stepsOfNeed  = 4    // steps in what the mix asks for beside one GPU
)

func (f *Fleet) newOutlook(p *pool) *outlook {
	mix := f.mix
	if f.values == nil {
		f.values, f.takers = holeValues(mix)
	}
	o := &outlook{lack: weightOfLack * (1 - f.churn), hole: f.values, takers: f.takers}
	volume, cpu, mem := 0.0, 0.0, 0.0
	for i := range mix {
		m := &mix[i]
		w := float64(m.Weight)
		volume += w * float64(m.GPUs) * float64(m.Share) / cluster.WholeGPU
		cpu += w * float64(max(m.GPUs, 1)) * float64(m.CPU)
		mem += w * float64(max(m.GPUs, 1)) * float64(m.Mem)
	}
	for i := range mix {
		if m := &mix[i]; m.GPUs > 0 && m.takes(p) {
			o.addKind(m, p, volume)
		}
	}
	o.sought = f.sought(p) / volume
	o.large, o.empty = f.emptied(volume)
	slices.SortStableFunc(o.kinds, func(a, b outlookKind) int { return cmp.Or(cmp.Compare(a.gpus, b.gpus), cmp.Compare(a.share, b.share)) })
	o.volume = volume
	o.cpu, o.mem = cpu/volume, mem/volume
	o.cpuStep, o.memStep = max(int64(o.cpu/stepsOfNeed), 1), max(int64(o.mem/stepsOfNeed), 1)
	return o
}

// emptied returns, by how many GPUs of a node are in use, what it is worth that
// all may become free for the largest requests of the mix, in thousandths of
// GPUs, and how many GPUs a node needs for one. There must be a mix.
//
// Where jobs come and go, a node of which j GPUs are in use gets one back before
// it is filled up at a chance of j/(j+refillRate), if those that are emptier are
// filled last. The chance that it ends up empty is the product. So nodes that are
// nearly empty are left alone, and those that are nearly full are all alike.
func (f *Fleet) emptied(volume float64) (large int32, worth []float64) {
	widest, part := int32(0), 0.0
	for _, p := range f.pools {
		widest = max(widest, p.width)
	}
	for i := range f.mix {
		large = max(large, min(f.mix[i].GPUs, widest))
	}
	for i := range f.mix {
		if m := &f.mix[i]; m.GPUs >= large {
			part += float64(m.Weight) * float64(m.GPUs) * float64(m.Share) / cluster.WholeGPU / volume
		}
	}
	if large < 2 || f.churn == 0 {
		return large, nil
	}
	chance := worthOfWhole * cluster.WholeGPU * f.churn * min(part/enoughLarge, 1)
	for j := range widest + 1 {
		worth = append(worth, chance)
		chance *= float64(j+1) / (float64(j+1) + refillRate)
	}
	return large, worth
}

// sought is how much more of the mix is after a pool's GPUs than after those of
// the pool that is sought least: GPU time, in units of what all GPUs would get
// if each type were sought alike. It is 0 if no request names a type.
func (f *Fleet) sought(p *pool) float64 {
	all, here, least := 0.0, 0.0, -1.0
	for _, other := range f.pools {
		density := 0.0
		for i := range f.mix {
			m := &f.mix[i]
			if m.GPUs == 0 || !m.takes(other) {
				continue
			}
			gpus := 0.0
			for _, q := range f.pools {
				if m.takes(q) {
					gpus += float64(q.sum.Total)
				}
			}
			density += float64(m.Weight) * float64(m.GPUs) * float64(m.Share) / cluster.WholeGPU / gpus
		}
		all += float64(other.sum.Total)
		if least < 0 || density < least {
			least = density
		}
		if other == p {
			here = density
		}
	}
	return all * (here - least)
}

// takes reports whether a request may have GPUs of a pool.
func (m *MixItem) takes(p *pool) bool {
	return len(m.Types) == 0 && !p.named || slices.Contains(m.Types, p.gpuType)
}

func (o *outlook) addKind(m *MixItem, p *pool, volume float64) {
	gpus := min(m.GPUs, p.width) // a larger gang takes whole nodes
	at := slices.IndexFunc(o.kinds, func(k outlookKind) bool { return k.gpus == gpus && int32(k.share) == m.Share })
	if at < 0 {
		at = len(o.kinds)
		o.kinds = append(o.kinds, outlookKind{gpus: gpus, share: int16(m.Share)})
	}
	part := float64(m.Weight) * float64(m.GPUs) * float64(m.Share) / cluster.WholeGPU / volume
	o.kinds[at].needs = append(o.kinds[at].needs, outlookNeed{
		cpu: max(m.CPU*int64(gpus), 1), mem: max(m.Mem*int64(gpus), 1), weight: part * float64(gpus) * float64(m.Share),
	})
}

func (o *outlook) cost(s *sight) float64 {
	value, free := 0.0, 0.0
	for _, milli := range s.free {
		value += o.hole[milli/unit]
		free += float64(milli) / cluster.WholeGPU
	}
	if free == 0 {
		return 0
	}
	whole := s.whole()
	cost := -worthOfHoles*value - worthOfFree*free*free/8 - worthOfType*o.sought*free
	if value > 0 {
		if lack := value - float64(s.cpu)/o.cpu; o.cpu > 0 && lack > 0 {
			cost += o.lack * lack * lack / value
		}
		if lack := value - float64(s.mem)/o.mem; o.mem > 0 && lack > 0 {
			cost += o.lack * lack * lack / value
		}
	}
	cost *= cluster.WholeGPU
	if used := int32(len(s.free)) - whole; o.empty != nil && int32(len(s.free)) >= o.large {
		cost -= o.empty[used]
	}
	for i := range o.kinds {
		k := &o.kinds[i]
		fit := int64(0)
		if k.share == cluster.WholeGPU {
			fit = int64(whole / k.gpus)
		} else {
			for j := len(s.free) - 1; j >= 0 && s.free[j] >= k.share; j-- {
				fit += int64(s.free[j] / k.share)
			}
		}
		if fit == 0 {
			continue
		}
		for j := range k.needs {
			n := &k.needs[j]
			cost -= n.weight * float64(max(min(fit, s.cpu/n.cpu, s.mem/n.mem), 0))
		}
	}
	return cost
}

func (o *outlook) rise(by float64) float64 { return by }
