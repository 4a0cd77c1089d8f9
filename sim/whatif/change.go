package whatif

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// by is who changes a cluster that is only asked about.
const by = "what if"

// Change is something about a cluster that would be otherwise.
type Change struct {
	Text string // for people, such as "4 nodes more, like n1"
	gone cluster.JobID
	do   func(s *cluster.State, now cluster.Time) error
}

func apply(s *cluster.State, now cluster.Time, c cluster.Command) error {
	if r := s.Apply(s.Index()+1, now, c); r.Code != cluster.OK {
		return fmt.Errorf("%s", r.Message)
	}
	return nil
}

// AddNodes adds nodes that are like one of the cluster's, by name, its labels and so its rack included; empty: like the
// kind of which there are most. They are free and sound.
func AddNodes(n int, like string) Change {
	text := fmt.Sprintf("%d nodes more", n)
	if like != "" {
		text += ", like " + like
	}
	return Change{Text: text, do: func(s *cluster.State, now cluster.Time) error {
		of := s.NodeByName(like)
		if like == "" {
			of = commonest(s)
		}
		switch {
		case of == nil && like == "":
			return fmt.Errorf("the cluster has no node that others could be like")
		case of == nil:
			return fmt.Errorf("there is no node %s%s", like, suggestNode(s, like))
		}
		for i := range n {
			name := fmt.Sprintf("new%d", i+1)
			for s.NodeByName(name) != nil || s.Node(cluster.NodeID(name)) != nil {
				name += "x"
			}
			more := cluster.Node{
				ID: cluster.NodeID(name), Name: name, Incarnation: 1, Version: of.Version,
				CPUMilli: of.CPUMilli, MemBytes: of.MemBytes, Labels: of.Labels, Taints: of.Taints,
			}
			for g := range of.GPUs {
				gpu := of.GPUs[g]
				more.GPUs = append(more.GPUs, cluster.GPU{
					UUID: fmt.Sprintf("%s-%d", name, g), Type: gpu.Type, MemBytes: gpu.MemBytes, Healthy: true, Island: gpu.Island, NUMA: gpu.NUMA,
				})
			}
			if err := apply(s, now, &cluster.RegisterNode{Node: more}); err != nil {
				return err
			}
		}
		return nil
	}}
}

// commonest is the first node by id of the kind of which there are most.
func commonest(s *cluster.State) *cluster.Node {
	count, best := map[string]int{}, 0
	kind := func(n *cluster.Node) string {
		if len(n.GPUs) == 0 {
			return ""
		}
		return fmt.Sprintf("%d %s", len(n.GPUs), n.GPUs[0].Type)
	}
	s.EachNode(func(n *cluster.Node) bool {
		if kind(n) != "" {
			count[kind(n)]++
			best = max(best, count[kind(n)])
		}
		return true
	})
	var found *cluster.Node
	s.EachNode(func(n *cluster.Node) bool {
		if kind(n) != "" && count[kind(n)] == best {
			found = n
		}
		return found == nil
	})
	return found
}

func suggestNode(s *cluster.State, name string) string {
	var names []string
	s.EachNode(func(n *cluster.Node) bool { names = append(names, n.Name); return true })
	slices.Sort(names) // of equally near ones the first by name, whatever their ids
	return yamlfile.Suggest(name, names)
}

// DropNode takes a node away, as a drain with a deadline now that never ends: its jobs are warned, keep what they have
// done, and wait again.
func DropNode(name string) Change {
	return Change{Text: "without node " + name, do: func(s *cluster.State, now cluster.Time) error {
		n := s.NodeByName(name)
		if n == nil {
			return fmt.Errorf("there is no node %s%s", name, suggestNode(s, name))
		}
		return apply(s, now, &cluster.DrainNode{Node: n.ID, Reason: by, By: by, Deadline: now})
	}}
}

// rackLevel is the level of the policy's topology whose domains are racks.
const rackLevel = "rack"

// DropRack does so to all nodes of a rack, by its name or its whole path.
func DropRack(rack string) Change {
	return Change{Text: "without rack " + rack, do: func(s *cluster.State, now cluster.Time) error {
		var nodes []cluster.NodeID
		var racks []string
		s.EachNode(func(n *cluster.Node) bool {
			path := s.Policy().Domain(n, rackLevel)
			name := path[strings.LastIndexByte(path, '/')+1:]
			if path == rack || name == rack {
				nodes = append(nodes, n.ID)
			}
			racks = append(racks, name)
			return true
		})
		if len(nodes) == 0 {
			slices.Sort(racks)
			return fmt.Errorf("no node is in rack %s%s: the policy's topology says by which label nodes name their rack", rack, yamlfile.Suggest(rack, racks))
		}
		for _, id := range nodes {
			if err := apply(s, now, &cluster.DrainNode{Node: id, Reason: by, By: by, Deadline: now}); err != nil {
				return err
			}
		}
		return nil
	}}
}

// Policy replaces the policy.
func Policy(p *cluster.Policy, name string) Change {
	return Change{Text: "policy " + name, do: func(s *cluster.State, now cluster.Time) error {
		return apply(s, now, &cluster.SetPolicy{Policy: p, By: by, Any: true})
	}}
}

// Quota replaces a queue's quota of one GPU type, or, with an empty type, its whole quota by one of any type.
func Quota(queue, gpuType string, gpus int64) Change {
	what := gpuType
	if what == "" {
		what = "any"
	}
	return Change{Text: fmt.Sprintf("quota of %s: %s:%d", queue, what, gpus), do: func(s *cluster.State, now cluster.Time) error {
		p := *s.Policy()
		p.Queues = slices.Clone(p.Queues)
		i := slices.IndexFunc(p.Queues, func(q cluster.QueuePolicy) bool { return q.Path == queue })
		if i < 0 {
			var names []string
			for _, q := range p.Queues {
				names = append(names, q.Path)
			}
			return fmt.Errorf("the policy has no queue %s%s", queue, yamlfile.Suggest(queue, names))
		}
		q := &p.Queues[i]
		rest := slices.DeleteFunc(slices.Clone(q.Quota), func(c cluster.TypeCount) bool { return c.Type == gpuType || c.Type == "" || gpuType == "" })
		if gpus > 0 {
			rest = append(rest, cluster.TypeCount{Type: gpuType, GPUs: gpus})
		}
		slices.SortFunc(rest, func(a, b cluster.TypeCount) int { return strings.Compare(a.Type, b.Type) })
		q.Quota = rest
		if err := p.Validate(); err != nil {
			return err
		}
		return apply(s, now, &cluster.SetPolicy{Policy: &p, By: by, Any: true})
	}}
}

// WithoutJob cancels a job.
func WithoutJob(id cluster.JobID) Change {
	return Change{Text: fmt.Sprintf("without job %d", id), gone: id, do: func(s *cluster.State, now cluster.Time) error {
		if j := s.Job(id); j == nil || j.State.Final() {
			return fmt.Errorf("job %d does not exist or has ended", id)
		}
		return apply(s, now, &cluster.CancelJob{Job: id, Reason: by})
	}}
}
