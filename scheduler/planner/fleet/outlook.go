package fleet

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// outlook is the score named gangline: what a node is worth to the recent mix
// of requests. A state of a node costs less
//   - the more its free GPUs and parts of GPUs hold of the mix's shares, each at
//     the price that a whole new GPU for it would cost (holePrices);
//   - the more of each kind of request it could take, CPUs and memory considered,
//     if it were given to that kind alone;
//   - the more of its GPUs are wholly free together;
//   - and more if its CPUs or memory fall short of what the mix asks for beside
//     what is free of its GPUs.
//
// The constants were found on the published openb trace (see
// docs/ARCHITECTURE.md) and hold for all clusters.
type outlook struct {
	kinds            []outlookKind // by GPUs and share
	short            float64       // weight of CPUs and memory that fall short
	cpu, mem         float64       // of the mix beside one GPU
	cpuStep, memStep int64
	hole             [units + 1]float64 // worth of a part of a GPU, in GPUs
	holeCPU, holeMem [units + 1]float64 // what the shares in such a part ask for
}

// outlookKind is the requests of the mix with the same GPUs.
type outlookKind struct {
	gpus  int32
	share int16
	needs []outlookNeed
}

type outlookNeed struct {
	cpu, mem int64   // of the whole request, at least 1
	weight   float64 // part of the mix's GPUs that such requests ask for, times the thousandths of one request
}

// Constants of the score.
const (
	worthHole      = 6.0 // weight of what parts of GPUs are worth, in units of what requests could use
	shortStay      = 6.0 // weight of missing CPUs and memory when nothing ever ends
	shortChurn     = 1.0 // the same when each start follows an end
	worthWhole     = 0.2 // weight of GPUs that are wholly free together
	stepsOfOne     = 4   // CPUs and memory are seen in so many steps of what the mix asks for beside one GPU
	thousandths    = 1000
	spreadOfDemand = 0.2 // by which demands are varied when parts of GPUs are priced
	priceRounds    = 8   // how often
)

func newOutlook(mix []MixItem, p *pool, churn float64) *outlook {
	o := &outlook{short: shortStay + (shortChurn-shortStay)*churn}
	var demand [units + 1]float64
	var cpus, mems [units + 1]float64
	volume, cpu, mem := 0.0, 0.0, 0.0
	aside := [2]float64{} // CPUs and memory that are asked for without GPUs
	for i := range mix {
		m := &mix[i]
		w := float64(m.Weight)
		if m.GPUs == 0 {
			aside[0] += w * float64(m.CPU)
			aside[1] += w * float64(m.Mem)
			continue
		}
		volume += w * float64(m.GPUs) * float64(m.Share) / thousandths
		cpu += w * float64(m.GPUs) * float64(m.CPU)
		mem += w * float64(m.GPUs) * float64(m.Mem)
		if m.Share < thousandths {
			u := (m.Share + unit - 1) / unit
			demand[u] += w
			cpus[u] += w * float64(m.CPU)
			mems[u] += w * float64(m.Mem)
		}
	}
	// What is asked for without GPUs is taken as spread over what asks for them.
	more := [2]float64{1 + aside[0]/max(cpu, 1), 1 + aside[1]/max(mem, 1)}
	for u := range cpus {
		cpus[u] *= more[0]
		mems[u] *= more[1]
	}
	o.cpu, o.mem = (cpu+aside[0])/volume, (mem+aside[1])/volume
	o.cpuStep, o.memStep = max(int64(o.cpu/stepsOfOne), 1), max(int64(o.mem/stepsOfOne), 1)
	for i := range mix {
		o.addKind(&mix[i], p, volume)
	}
	slices.SortStableFunc(o.kinds, func(a, b outlookKind) int { return cmp.Or(cmp.Compare(a.gpus, b.gpus), cmp.Compare(a.share, b.share)) })
	o.price(&demand, &cpus, &mems)
	return o
}

func (o *outlook) addKind(m *MixItem, p *pool, volume float64) {
	if m.GPUs == 0 || len(m.Types) > 0 && !slices.Contains(m.Types, p.gpuType) {
		return
	}
	gpus := min(m.GPUs, p.width) // of a larger gang a node takes a part
	at := slices.IndexFunc(o.kinds, func(k outlookKind) bool { return k.gpus == gpus && int32(k.share) == m.Share })
	if at < 0 {
		at = len(o.kinds)
		o.kinds = append(o.kinds, outlookKind{gpus: gpus, share: int16(m.Share)})
	}
	size := float64(gpus) * float64(m.Share)
	all := float64(m.Weight) * float64(m.GPUs) * float64(m.Share) / thousandths
	o.kinds[at].needs = append(o.kinds[at].needs, outlookNeed{
		cpu: max(m.CPU*int64(gpus), 1), mem: max(m.Mem*int64(gpus), 1), weight: all / volume * size,
	})
}

// price computes what parts of GPUs are worth, averaged over varied demands.
func (o *outlook) price(demand, cpus, mems *[units + 1]float64) {
	var sizes []int
	var asked []float64
	for u, d := range demand {
		if d > 0 {
			sizes = append(sizes, u)
			asked = append(asked, d)
		}
	}
	prices := make([]float64, len(sizes))
	seed := uint64(12345) // a fixed sequence: equal mixes have equal prices
	varied := make([]float64, len(sizes))
	for range priceRounds {
		for k := range varied {
			seed = seed*6364136223846793005 + 1442695040888963407
			varied[k] = asked[k] * (1 + spreadOfDemand*(2*float64(seed>>11)/(1<<53)-1))
		}
		for k, v := range holePrices(sizes, varied) {
			prices[k] += v / priceRounds
		}
	}
	for c := 1; c <= units; c++ {
		o.hole[c], o.holeCPU[c], o.holeMem[c] = o.hole[c-1], o.holeCPU[c-1], o.holeMem[c-1]
		for k, size := range sizes {
			if size > c {
				break
			}
			if v := o.hole[c-size] + prices[k]; v > o.hole[c]+.01 {
				o.hole[c] = v
				o.holeCPU[c] = o.holeCPU[c-size] + cpus[size]/demand[size]
				o.holeMem[c] = o.holeMem[c-size] + mems[size]/demand[size]
			}
		}
		o.hole[c] = min(o.hole[c], 1)
	}
	o.hole[units], o.holeCPU[units], o.holeMem[units] = 1, o.cpu, o.mem
}

func (o *outlook) cost(s *sight) float64 {
	worth, cpu, mem := 0.0, 0.0, 0.0
	for _, free := range s.free {
		worth += o.hole[free/unit]
		cpu += o.holeCPU[free/unit]
		mem += o.holeMem[free/unit]
	}
	whole := s.whole()
	cost := 0.0
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
	if d := cpu - float64(s.cpu); d > 0 && cpu > 0 {
		cost += o.short * thousandths * d / o.cpu * d / cpu
	}
	if d := mem - float64(s.mem); d > 0 && mem > 0 {
		cost += o.short * thousandths * d / o.mem * d / mem
	}
	return cost - thousandths*(worthHole*worth+worthWhole*float64(whole)*float64(whole)/8)
}

func (o *outlook) rise(by float64) float64 { return by }
