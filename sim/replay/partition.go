package replay

import (
	"slices"
	"strings"
)

// part is a workload with nodes of its own.
type part struct {
	queue string // empty: all
	jobs  []Job
	nodes []Node
}

// partition splits a trace by queues: the jobs of queue Q get the nodes of rack "vc-Q". Parts do not meet, so each is
// replayed alone. Nodes of queues without jobs are left out of all figures. A queue without nodes has all its jobs
// refused; parts are in order of queues.
func partition(jobs []Job, nodes []Node) []part {
	byQueue := map[string]*part{}
	var queues []string
	for i := range jobs {
		q := jobs[i].Queue
		p := byQueue[q]
		if p == nil {
			p = &part{queue: q}
			byQueue[q] = p
			queues = append(queues, q)
		}
		p.jobs = append(p.jobs, jobs[i])
	}
	for i := range nodes {
		q, ok := strings.CutPrefix(nodes[i].Rack, partitionPrefix)
		if p := byQueue[q]; ok && p != nil {
			p.nodes = append(p.nodes, nodes[i])
		}
	}
	slices.Sort(queues)
	parts := make([]part, 0, len(queues))
	for _, q := range queues {
		parts = append(parts, *byQueue[q])
	}
	return parts
}
