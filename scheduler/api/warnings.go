package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/census"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// policyWarnings tells what of a valid policy cannot come true, or may surprise,
// on the cluster as it is. Nothing is refused for it. Lost nodes count: they
// may come back.
func policyWarnings(st *cluster.State, p *cluster.Policy) []string {
	total := map[string]int64{}
	st.EachNode(func(n *cluster.Node) bool {
		for i := range n.GPUs {
			total[n.GPUs[i].Type]++
		}
		return true
	})
	var capacity []cluster.TypeCount
	for _, t := range slices.Sorted(maps.Keys(total)) {
		capacity = append(capacity, cluster.TypeCount{Type: t, GPUs: total[t]})
	}
	out := quota.Warnings(p, capacity)
	out = append(out, unpromisedQueues(p)...)
	out = append(out, deletedQueues(st, p)...)
	out = append(out, belowUse(st, p)...)
	if st.Nodes() == 0 {
		return out
	}
	out = append(append(out, absentLevels(st, p)...), absentHosts(st, p)...)
	return append(out, absentNodes(st, p)...)
}

// unpromisedQueues names queues that live on what others lend, if others are
// promised something: it surprises those whose jobs may not be stopped.
func unpromisedQueues(p *cluster.Policy) []string {
	if !slices.ContainsFunc(p.Queues, func(q cluster.QueuePolicy) bool { return len(q.Quota) > 0 }) {
		return nil
	}
	parents := map[string]bool{}
	for i := range p.Queues {
		parents[cluster.ParentQueue(p.Queues[i].Path)] = true
	}
	var names []string
	for i := range p.Queues {
		path := p.Queues[i].Path
		has := false
		for up := path; up != ""; up = cluster.ParentQueue(up) {
			has = has || len(p.Queue(up).Quota) > 0
		}
		if !has && !parents[path] && !p.Queues[i].Closed {
			names = append(names, path)
		}
	}
	const few = 10
	switch {
	case len(names) == 0:
		return nil
	case len(names) > few:
		names = append(names[:few], fmt.Sprintf("and %d more", len(names)-few))
	}
	return []string{fmt.Sprintf("no quota is named for these queues nor for one above them, but for others: %s: they only borrow, and jobs that are not preemptible do not start there",
		strings.Join(names, ", "))}
}

// deletedQueues names queues in which jobs are, but which the policy does not have.
func deletedQueues(st *cluster.State, p *cluster.Policy) []string {
	if len(p.Queues) == 0 {
		return nil
	}
	type jobs struct{ pending, holding int }
	lost := map[string]jobs{}
	count := func(j *cluster.Job) bool {
		if p.Queue(j.Spec.Queue) == nil {
			n := lost[j.Spec.Queue]
			if j.State.Holding() {
				n.holding++
			} else {
				n.pending++
			}
			lost[j.Spec.Queue] = n
		}
		return true
	}
	st.EachPending(count)
	st.EachHolding(count)
	var out []string
	for _, path := range slices.Sorted(maps.Keys(lost)) {
		out = append(out, fmt.Sprintf("queue %s is not in the policy, and %d pending and %d running jobs are in it: they go on without quota or limit of their own, new ones are refused",
			path, lost[path].pending, lost[path].holding))
	}
	return out
}

// belowUse names queues that hold more than a limit, or than a quota that is
// lowered, lets them.
func belowUse(st *cluster.State, p *cluster.Policy) []string {
	var out []string
	queues := census.Take(st, st.Now(), census.Options{}).Queues
	for i := range queues {
		q := &queues[i]
		next := p.Queue(q.Path)
		if next == nil || q.HeldMilli == 0 {
			continue
		}
		for _, l := range next.Limit {
			if held := heldOf(q, l.Type); held > l.GPUs*cluster.WholeGPU {
				out = append(out, fmt.Sprintf("queue %s holds %g %s, more than its limit of %d: nothing is stopped for that, but nothing more starts until fewer are held",
					q.Path, wholeGPUs(held), gpusOf(l.Type), l.GPUs))
			}
		}
		if q.Policy == nil {
			continue
		}
		for _, was := range q.Policy.Quota {
			now, _ := cluster.CountOf(next.Quota, was.Type)
			if held := heldOf(q, was.Type); now < was.GPUs && held > now*cluster.WholeGPU && len(next.Quota) > 0 {
				out = append(out, fmt.Sprintf("queue %s holds %g %s, more than its new quota of %d: the rest counts as borrowed, and others may take it back",
					q.Path, wholeGPUs(held), gpusOf(was.Type), now))
			}
		}
	}
	return out
}

// heldOf is what a queue holds of a type, or of all types, in milli-GPUs.
func heldOf(q *census.Queue, gpuType string) int64 {
	if gpuType == "" {
		return q.HeldMilli
	}
	for _, a := range q.Held {
		if a.Type == gpuType {
			return a.Milli
		}
	}
	return 0
}

func gpusOf(gpuType string) string {
	if gpuType == "" {
		return "GPUs"
	}
	return "GPUs of type " + gpuType
}

// absentLevels names levels of the topology whose label no node has. The
// default levels are not worth a word: many clusters have none.
func absentLevels(st *cluster.State, p *cluster.Policy) []string {
	var out []string
	usual := cluster.DefaultPolicy().Levels
	for _, l := range p.Levels {
		if slices.ContainsFunc(usual, func(u cluster.Level) bool { return u.Name == l.Name && u.Label == l.Label }) || len(l.Domains) > 0 {
			continue
		}
		found := false
		st.EachNode(func(n *cluster.Node) bool {
			found = n.Label(l.Label) != ""
			return !found
		})
		if !found {
			out = append(out, fmt.Sprintf("topology: no node has the label %s of level %s: jobs that require it cannot start", l.Label, l.Name))
		}
	}
	return out
}

// absentHosts names domains of the topology in which nodes are that are not
// there, and says how many nodes are in no domain of a level that names some.
func absentHosts(st *cluster.State, p *cluster.Policy) []string {
	var out []string
	for _, l := range p.Levels {
		named := map[string]bool{}
		absent, first, in := 0, "", ""
		for _, d := range l.Domains {
			for _, pattern := range d.Nodes {
				hosts, _ := cluster.Hosts(pattern)
				for _, h := range hosts {
					if named[h] = true; st.NodeByName(h) != nil {
						continue
					}
					if absent++; absent == 1 {
						first, in = h, d.Name
					}
				}
			}
		}
		if absent > 0 {
			out = append(out, fmt.Sprintf("topology: level %s: %d of the nodes that its domains name are not there, such as %s of domain %s", l.Name, absent, first, in))
		}
		loose, such := 0, ""
		st.EachNode(func(n *cluster.Node) bool {
			if len(l.Domains) > 0 && !named[n.Name] && !slices.ContainsFunc(n.Labels, func(x cluster.Label) bool { return x.Key == l.Label }) {
				if loose++; loose == 1 {
					such = n.Name
				}
			}
			return true
		})
		if loose > 0 {
			out = append(out, fmt.Sprintf("topology: level %s: nodes are in no domain (%d, such as %s): no gang that requires one %s runs there", l.Name, loose, such, l.Name))
		}
	}
	return out
}

// absentNodes names reservations that name or select no node that is there.
func absentNodes(st *cluster.State, p *cluster.Policy) []string {
	var out []string
	for i := range p.Windows {
		w := &p.Windows[i]
		names := slices.Clone(w.Nodes)
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			if st.NodeByName(name) == nil {
				out = append(out, fmt.Sprintf("reservation %s: no node is named %s", w.Name, name))
			}
		}
		if len(w.Selector) == 0 {
			continue
		}
		found := false
		st.EachNode(func(n *cluster.Node) bool {
			found = !slices.ContainsFunc(w.Selector, func(l cluster.Label) bool { return n.Label(l.Key) != l.Value })
			return !found
		})
		if !found {
			out = append(out, fmt.Sprintf("reservation %s: no node has all the labels of its node_selector", w.Name))
		}
	}
	return out
}
