package replay

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/gangline/gangline/sim/trace"
)

// part is a workload with nodes of its own.
type part struct {
	queue string // the only one of its jobs; empty: all of them
	nodes []trace.Node
}

// survey is what is known of a workload before it is played.
type survey struct {
	queues []string // of jobs with GPUs, in order
	window span     // in which they arrive
	jobs   int
}

// look reads a workload from its beginning to its end.
func look(tr *Trace) (*survey, error) {
	s := &survey{window: span{genesis, genesis}}
	f, err := newFeed(tr, "")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for {
		at, jobs, err := f.moment()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.Join(err, f.src.Close())
		}
		if s.jobs == 0 {
			s.window.from = genesis.Add(at)
		}
		s.window.to = genesis.Add(at)
		s.jobs += len(jobs)
		for i := range jobs {
			if q := jobs[i].job.Queue; !seen[q] {
				seen[q] = true
				s.queues = append(s.queues, q)
			}
		}
	}
	slices.Sort(s.queues)
	return s, f.src.Close()
}

// partition splits nodes by queues: the jobs of queue Q get those of rack "vc-Q". Parts do not meet, so each is replayed
// alone. Nodes of queues without jobs are left out of all figures. A queue without nodes has all its jobs refused; parts
// are in order of queues.
func partition(queues []string, nodes []trace.Node) []part {
	own := map[string][]trace.Node{}
	for i := range nodes {
		if q, ok := strings.CutPrefix(nodes[i].Rack, partitionPrefix); ok {
			own[q] = append(own[q], nodes[i])
		}
	}
	parts := make([]part, 0, len(queues))
	for _, q := range queues {
		parts = append(parts, part{queue: q, nodes: own[q]})
	}
	return parts
}
