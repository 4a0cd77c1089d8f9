package fleet

import "github.com/gangline/gangline/scheduler/cluster"

// take gives the picked nodes' GPUs of a type to a gang.
func (f *Fleet) take(p *pool, sh *Shape, picks []pick) []Part {
	parts := make([]Part, len(picks))
	total := int32(0)
	for _, k := range picks {
		total += k.k
	}
	all := make([]int32, 0, total)
	for i, k := range picks {
		x := f.nodes[k.pos]
		from := len(all)
		all = x.room(p).wholes(x, k.k, all)
		gpus := all[from:len(all):len(all)]
		f.save(x)
		for _, g := range gpus {
			f.setFree(x, int(g), 0)
		}
		x.cpu -= sh.CPU * int64(k.k)
		x.mem -= sh.Mem * int64(k.k)
		f.refresh(x)
		parts[i] = Part{Node: x.is.ID, GPUs: k.k, Taken: gpus}
	}
	return parts
}

// takeShare gives a share of a GPU to a gang: of the node's first one of which
// so much is free.
func (f *Fleet) takeShare(p *pool, sh *Shape, pos int32, free int16) []Part {
	x := f.nodes[pos]
	r := x.room(p)
	k := 0
	for x.gpus[r.gpu(k)].free != free {
		k++
	}
	f.save(x)
	f.setFree(x, r.gpu(k), free-int16(sh.Share))
	x.cpu -= sh.CPU
	x.mem -= sh.Mem
	f.refresh(x)
	return []Part{{Node: x.is.ID, GPUs: 1, Taken: []int32{int32(r.gpu(k))}}}
}

// wholes appends the indexes of n wholly free GPUs of the type, ascending: of
// the island with the fewest free that has so many; if none has, of the islands
// with the most free, one after the other. Of equal islands the lower number.
func (r *room) wholes(x *node, n int32, out []int32) []int32 {
	from := len(out)
	if !r.apart || n == r.whole {
		for k := 0; int32(len(out)-from) < n; k++ {
			if i := r.gpu(k); x.gpus[i].free == cluster.WholeGPU {
				out = append(out, int32(i))
			}
		}
		return out
	}
	var ids, counts, wants [16]int32 // by island; more islands than that are as one
	islands := 0
	at := func(island int32) int {
		i := 0
		for i < islands && ids[i] != island && i < len(ids)-1 {
			i++
		}
		return i
	}
	r.eachWhole(x, func(i int32) {
		k := at(x.gpus[i].island)
		if k == islands {
			ids[k] = x.gpus[i].island
			islands++
		}
		counts[k]++
	})
	for left := n; left > 0; {
		best := -1
		for i, c := range counts[:islands] {
			if c > 0 && (best < 0 || nearer(c, counts[best], left) || (c == counts[best] && ids[i] < ids[best])) {
				best = i
			}
		}
		wants[best] = min(left, counts[best])
		left -= wants[best]
		counts[best] = 0
	}
	r.eachWhole(x, func(i int32) {
		if k := at(x.gpus[i].island); wants[k] > 0 {
			wants[k]--
			out = append(out, i)
		}
	})
	return out
}

// nearer reports whether an island with a free GPUs is a better choice for n
// than one with b.
func nearer(a, b, n int32) bool {
	if a >= n && b >= n {
		return a < b
	}
	return a > b
}

// eachWhole calls fn with the index of each wholly free GPU of the type, ascending.
func (r *room) eachWhole(x *node, fn func(i int32)) {
	for k := range r.size(x) {
		if i := r.gpu(k); x.gpus[i].free == cluster.WholeGPU {
			fn(int32(i))
		}
	}
}

// TypeOf is the GPU type of what Place took.
func (f *Fleet) TypeOf(parts []Part) string {
	return f.byID[parts[0].Node].is.GPUs[parts[0].Taken[0]].Type
}

// Workers names the GPUs of what Place took: one worker for each GPU, or one
// for each node. Ranks run through the nodes in the order of the parts, and
// through each node's GPUs. The nodes must have the GPUs that they had then.
func (f *Fleet) Workers(parts []Part, launch cluster.LaunchMode) []cluster.Placement {
	total := 0
	for i := range parts {
		total += len(parts[i].Taken)
	}
	size := total
	if launch == cluster.LaunchPerNode {
		size = len(parts)
	}
	uuids := make([]string, 0, total)
	workers := make([]cluster.Placement, 0, size)
	for i := range parts {
		x := f.byID[parts[i].Node]
		from := len(uuids)
		for _, g := range parts[i].Taken {
			uuids = append(uuids, x.gpus[g].uuid)
		}
		step := 1
		if launch == cluster.LaunchPerNode {
			step = len(uuids) - from
		}
		for ; from < len(uuids); from += step {
			workers = append(workers, cluster.Placement{Rank: cluster.Rank(len(workers)), Node: parts[i].Node, GPUs: uuids[from : from+step : from+step]})
		}
	}
	return workers
}
