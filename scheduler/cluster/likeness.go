package cluster

import (
	"strconv"
	"strings"
)

// Likeness says which jobs a History is about: those of a size, of a queue, or
// of one user under one name; what is empty or 0 is left open.
type Likeness struct {
	Queue string
	User  string
	Name  string // without digits: runs of a job are often numbered
	Milli int64  // size of the gang in milli-GPUs; 0: of any size
	Limit bool   // told apart by time limit as well
}

// likenessOf reads a key of a kin.
func likenessOf(key string) Likeness {
	parts := strings.Split(key, "\x00")
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(parts[i], 10, 64)
		return n
	}
	switch {
	case parts[0] == "g" && len(parts) == 2:
		return Likeness{Milli: number(1)}
	case parts[0] == "q" && len(parts) == 3:
		return Likeness{Queue: parts[1], Milli: number(2)}
	case parts[0] == "u" && len(parts) == 6:
		return Likeness{Queue: parts[1], User: parts[2], Name: parts[3], Milli: number(4), Limit: true}
	default:
		return Likeness{}
	}
}

// EachHistory calls f for what was learned of jobs, the widest degree first,
// until f returns false. Those of which none has ended yet are left out.
func (s *State) EachHistory(f func(Likeness, *History) bool) {
	s.histories.Scan(func(key string, h *History) bool {
		return h.Jobs == 0 || f(likenessOf(key), h)
	})
}

// Typical is the GPU time that half of the jobs have needed that ended lately,
// in GPU-seconds: the middle of the bin in which it lies. 0: none has ended.
func (h *History) Typical() int64 {
	all, seen := uint64(0), uint64(0)
	for _, n := range h.Ended {
		all += uint64(n)
	}
	for i, n := range h.Ended {
		if seen += uint64(n); 2*seen >= all && all > 0 {
			return (binEdges[i] + binEdges[i+1]) / 2
		}
	}
	return 0
}
