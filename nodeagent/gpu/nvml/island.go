package nvml

import "github.com/gangline/gangline/nodeagent/gpu"

// islands numbers the islands of n GPUs, from 0 in the order of their first GPUs. GPUs that NVLink joins, directly or
// through others, are one. Where it joins none, those of one NUMA node are, since they reach each other without
// crossing between sockets; and where that is not known either, all are one: then no pair is known to be closer.
func islands(numa []int, linked func(a, b int) bool) []int {
	root := make([]int, len(numa))
	for i := range root {
		root[i] = i
	}
	find := func(i int) int {
		for root[i] != i {
			i = root[i]
		}
		return i
	}
	join := func(same func(a, b int) bool) (joined bool) {
		for b := range numa {
			for a := range b {
				if find(a) != find(b) && same(a, b) {
					root[find(b)] = find(a)
					joined = true
				}
			}
		}
		return joined
	}
	if !join(linked) {
		join(func(a, b int) bool {
			return numa[a] == numa[b] || numa[a] == gpu.NUMAUnknown || numa[b] == gpu.NUMAUnknown
		})
	}
	out := make([]int, len(numa))
	numbers := map[int]int{}
	for i := range out {
		n, known := numbers[find(i)]
		if !known {
			n = len(numbers)
			numbers[find(i)] = n
		}
		out[i] = n
	}
	return out
}
