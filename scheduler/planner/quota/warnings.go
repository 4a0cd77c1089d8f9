package quota

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Warnings tells what of a valid policy cannot come true on a cluster with
// these GPUs, in the order of the policy: promises above what there is, types
// that no node has, quota that a limit keeps out of reach, limits with which
// nothing can start. Capacity is by type; a cluster without any GPU yet gets
// only warnings that hold everywhere. Warnings are for people: nothing is refused.
func Warnings(p *cluster.Policy, capacity []cluster.TypeCount) []string {
	w := &warner{policy: p, tree: New(p), capacity: capacity}
	w.types()
	w.sums()
	for i := range p.Queues {
		w.queue(&p.Queues[i])
	}
	return w.out
}

type warner struct {
	policy   *cluster.Policy
	tree     *Tree
	capacity []cluster.TypeCount
	out      []string
}

func (w *warner) say(format string, args ...any) { w.out = append(w.out, fmt.Sprintf(format, args...)) }

// types names those that no node has, once each.
func (w *warner) types() {
	if len(w.capacity) == 0 {
		return
	}
	var have []string
	for _, c := range w.capacity {
		have = append(have, c.Type)
	}
	slices.Sort(have)
	var said []string
	check := func(where, name string) {
		if name != "" && !slices.Contains(have, name) && !slices.Contains(said, name) {
			said = append(said, name)
			w.say("%s names GPU type %q, which no node has (there are %s): mend the name, or ignore this until such nodes come", where, name, strings.Join(have, ", "))
		}
	}
	for i := range w.policy.Queues {
		q := &w.policy.Queues[i]
		for _, c := range q.Quota {
			check("queue "+q.Path+": its quota", c.Type)
		}
		for _, c := range q.Limit {
			check("queue "+q.Path+": its limit", c.Type)
		}
	}
	for _, x := range w.policy.Weights {
		check("fair_share.gpu_weights", x.Type)
	}
}

// sums compares what the top queues are promised with what there is.
func (w *warner) sums() {
	total, promised, said := int64(0), int64(0), len(w.out)
	var all []string
	for _, c := range w.capacity {
		total += c.GPUs
		sum := int64(0)
		var who []string
		for _, q := range w.tree.queues {
			if quota, ofAny := w.tree.Quota(q, c.Type); q.Parent() == nil && !ofAny && quota > 0 {
				sum += quota / cluster.WholeGPU
				who = append(who, q.Path)
			}
		}
		if sum > c.GPUs {
			w.say("the quotas of %s add up to %d GPUs of type %s, the cluster has %d: not all of them can be kept at once", listed(who), sum, c.Type, c.GPUs)
		}
	}
	for _, q := range w.tree.queues {
		if quota, _ := w.tree.Quota(q, ""); q.Parent() == nil && quota > 0 {
			promised += quota / cluster.WholeGPU
			all = append(all, q.Path)
		}
	}
	if len(w.capacity) > 0 && promised > total && len(w.out) == said {
		w.say("the quotas of %s add up to %d GPUs of all types, the cluster has %d: not all of them can be kept at once", listed(all), promised, total)
	}
}

// queue compares the quota of a queue with the limits that hold for it.
func (w *warner) queue(q *cluster.QueuePolicy) {
	sum := int64(0)
	for _, c := range q.Quota {
		sum += c.GPUs
		if path, limit, ok := w.lowest(q.Path, c.Type); ok && limit < c.GPUs {
			w.say("queue %s: its quota of %s is out of reach: queue %s has a limit of %d", q.Path, gpus(c.GPUs, c.Type), path, limit)
		}
	}
	if path, limit, ok := w.lowest(q.Path, ""); ok && limit < sum && len(q.Quota) > 1 {
		w.say("queue %s: its quotas add up to %s, of which it can have at most %d: that is the limit of queue %s", q.Path, gpus(sum, ""), limit, path)
	}
	for _, c := range q.Limit {
		if c.GPUs == 0 && !q.Closed {
			w.say("queue %s: a limit of %s lets no job start there: close the queue if that is meant", q.Path, gpus(0, c.Type))
		}
	}
	if q.Closed && sum > 0 {
		w.say("queue %s is closed and has a quota of %s: it only lends them now", q.Path, gpus(sum, ""))
	}
}

// lowest returns the least limit of a type, or of all types, on the way from a
// queue to the top.
func (w *warner) lowest(path, gpuType string) (where string, limit int64, ok bool) {
	for ; path != ""; path = cluster.ParentQueue(path) {
		q := w.policy.Queue(path)
		if q == nil {
			continue
		}
		for _, c := range q.Limit {
			if (c.Type == gpuType || c.Type == "") && (!ok || c.GPUs < limit) {
				where, limit, ok = path, c.GPUs, true
			}
		}
	}
	return where, limit, ok
}

func gpus(n int64, gpuType string) string {
	if gpuType == "" {
		return fmt.Sprintf("%d GPUs", n)
	}
	return fmt.Sprintf("%d GPUs of type %s", n, gpuType)
}

// listed names a few of many queues.
func listed(paths []string) string {
	const few = 5
	if n := len(paths) - few; n > 1 {
		return fmt.Sprintf("%s and %d more queues", strings.Join(paths[:few], ", "), n)
	}
	return strings.Join(paths, ", ")
}
