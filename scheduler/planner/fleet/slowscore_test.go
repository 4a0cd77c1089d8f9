package fleet

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// cheapest returns the node for a gang that fits on one by the score.
func (f *slow) cheapest(sh *Shape, size int32, rooms []slowRoom, gpuType string) (best []slowRoom, least float64) {
	for _, r := range rooms {
		if r.k < size {
			continue
		}
		score, _ := f.rise(r.x, sh, size, gpuType, nil)
		if best == nil || score < least || (score == least && f.first(r.x, best[0].x, r.x.whole(gpuType)-best[0].x.whole(gpuType))) {
			best, least = []slowRoom{{r.x, size, r.fit}}, score
		}
	}
	return best, least
}

func (f *slow) rise(x *slowNode, sh *Shape, k int32, gpuType string, loss *glut) (float64, int16) {
	sc, cpuStep, memStep := f.scorer(gpuType)
	s := sight{cpu: max(x.cpu, 0)/cpuStep*cpuStep + cpuStep/2, mem: max(x.mem, 0)/memStep*memStep + memStep/2}
	for i := range x.free {
		if x.is.GPUs[i].Type == gpuType {
			s.free = append(s.free, int16(x.free[i]))
		}
	}
	slices.Sort(s.free)
	return least(ways(sc, &s, sc.cost(&s), sh, k, &sight{}), sh, loss)
}

// glut is what parts of GPUs lose by being many.
func (f *slow) glut(gpuType string) *glut {
	if f.scorer == nil {
		return nil
	}
	sc, _, _ := f.scorer(gpuType)
	o, ok := sc.(*outlook)
	if !ok {
		return nil
	}
	var stock [units + 1]int32
	gpus := int64(0)
	for _, x := range f.nodes {
		seen := map[string]bool{} // by type and what is free
		for i, free := range x.free {
			key := fmt.Sprint(x.is.GPUs[i].Type, free)
			gpus++
			if free > 0 && free < cluster.WholeGPU && !seen[key] {
				seen[key] = true
				stock[free/unit]++
			}
		}
	}
	out := &glut{}
	o.glut(&stock, gpus, out)
	return out
}

// first tells which of two nodes with equal scores comes first, if the one that is
// not yet chosen has so many wholly free GPUs more.
func (f *slow) first(x, chosen *slowNode, more int32) bool {
	if f.byID { // there is a score
		return x.is.ID < chosen.is.ID
	}
	return more < 0
}

// tighter compares two ways to place one gang: fewer nodes, then the lower
// score, then less left over, or the first node by id.
func (f *slow) tighter(a, b []slowRoom, score float64) bool {
	left := func(rooms []slowRoom) (n int32) {
		for _, r := range rooms {
			n += r.fit - r.k
		}
		return n
	}
	if f.byID && f.scorer != nil && len(a) == 1 && len(b) == 1 && score == 0 {
		return a[0].x.is.ID < b[0].x.is.ID
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(score, 0), cmp.Compare(left(a), left(b))) < 0
}
