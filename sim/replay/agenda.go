package replay

import (
	binheap "container/heap"

	"github.com/gangline/gangline/scheduler/cluster"
)

// happening is something that will physically happen.
type happening struct {
	at   cluster.Time
	seq  uint64
	what what
	gang *gang   // and its turn: once the gang has gone on otherwise, the happening is void
	turn uint32  // of the gang
	one  *worker // of a launch of one worker alone
	node int32
	gpu  int32
	kind faultKind // of a strike
}

// what a happening is.
type what uint8

const (
	gangLaunched  what = iota + 1 // its processes run
	oneLaunched                   // one late worker's process runs
	gangWarm                      // its first training step
	gangSaved                     // a checkpoint is written
	gangSavedLast                 // the one that a warning asked for
	gangDone                      // its work is done
	gangExits                     // the processes that were stopped, or are done, are gone
	peersExit                     // ranks have seen that one is missing
	reportComes                   // an agent's report is with the leader
	faultStrikes
	nodeBack
	gpuBack
	agentBack
	leaderRises
)

// agenda is a heap of happenings, the next one first: by time, then in the order in which they were planned.
type agenda struct {
	list []happening
	seq  uint64
}

// Len implements heap.Interface.
func (a *agenda) Len() int { return len(a.list) }

// Less implements heap.Interface.
func (a *agenda) Less(i, j int) bool {
	x, y := &a.list[i], &a.list[j]
	return x.at < y.at || (x.at == y.at && x.seq < y.seq)
}

// Swap implements heap.Interface.
func (a *agenda) Swap(i, j int) { a.list[i], a.list[j] = a.list[j], a.list[i] }

// Push implements heap.Interface.
func (a *agenda) Push(x any) { a.list = append(a.list, *x.(*happening)) }

// Pop implements heap.Interface.
func (a *agenda) Pop() any {
	last := len(a.list) - 1
	h := a.list[last]
	a.list[last] = happening{}
	a.list = a.list[:last]
	return h
}

func (a *agenda) add(h happening) {
	a.seq++
	h.seq = a.seq
	binheap.Push(a, &h)
}

// next is when something happens, 0: never.
func (a *agenda) next() cluster.Time {
	if len(a.list) == 0 {
		return 0
	}
	return a.list[0].at
}

func (a *agenda) take() happening { return binheap.Pop(a).(happening) }
