package policyfile

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// allTypes is how a file names the number for GPUs of all types together.
const allTypes = "all"

// queues reads a map of queues below a path: names are parts of paths.
func (r *reader) queues(n *yaml.Node, prefix, above string) {
	r.pairs(n, prefix, func(name, value *yaml.Node) {
		path := name.Value
		if above != "" {
			path = above + "/" + name.Value
		}
		r.queue(path, name, value)
	})
}

func (r *reader) queue(path string, name, n *yaml.Node) {
	q := cluster.QueuePolicy{Path: path, Weight: 1000}
	key := "queue " + path
	r.places[key] = name
	r.places[fmt.Sprintf("queue: %q", path)] = name
	r.fields(n, key+": ", queueFields(&q))
	r.policy.Queues = append(r.policy.Queues, q)
}

func queueFields(q *cluster.QueuePolicy) []field {
	return []field{
		{name: "quota", read: counts(&q.Quota)},
		{name: "limit", read: counts(&q.Limit)},
		{name: "weight", read: thousandths(&q.Weight)},
		{name: "user_limit", read: count(func(v int64) { q.UserLimit = v }, math.MaxInt64)},
		{name: "closed", read: boolean(func(on bool) { q.Closed = on })},
		{name: "queues", read: func(r *reader, key string, n *yaml.Node) { r.queues(n, key+": ", q.Path) }},
	}
}

// counts reads numbers of GPUs by type, or one number for all types together.
func counts(to *[]cluster.TypeCount) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		one := func(gpuType, key string, n *yaml.Node) {
			c := cluster.TypeCount{Type: gpuType}
			count(func(v int64) { c.GPUs = v }, math.MaxInt64)(r, key, n)
			*to = append(*to, c)
		}
		if n.Kind == yaml.ScalarNode && !yamlfile.Null(n) {
			one("", key, n)
			return
		}
		r.pairs(n, key+": ", func(name, value *yaml.Node) {
			if name.Value == allTypes {
				one("", key, value)
				return
			}
			one(name.Value, key+": "+name.Value, value)
		})
		slices.SortStableFunc(*to, func(a, b cluster.TypeCount) int { return cmp.Compare(a.Type, b.Type) })
	}
}
