package policyfile

import (
	"cmp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// noLimit is how a file says that there is none.
const noLimit = "none"

// bytesOrNone reads a size such as 10TiB, or none.
func bytesOrNone(to *int64) func(*reader, string, *yaml.Node) {
	return func(r *reader, key string, n *yaml.Node) {
		v, ok := r.value(key, n)
		if !ok {
			return
		}
		if v == noLimit {
			*to = 0
			return
		}
		got, err := yamlfile.ParseBytes(v)
		if err == nil && got == 0 {
			r.bad(key, n, "%q would let nobody save anything: write none for no limit", v)
			return
		}
		if err != nil {
			r.bad(key, n, "%s, or none", err)
			return
		}
		*to = got
	}
}

func readUserLimits(r *reader, key string, n *yaml.Node) {
	limits := &r.policy.Checkpoints
	limits.Users = nil
	r.pairs(n, key+": ", func(name, value *yaml.Node) {
		u := cluster.UserBytes{User: name.Value}
		r.places[key+": "+name.Value] = value
		bytesOrNone(&u.Bytes)(r, key+": "+name.Value, value)
		limits.Users = append(limits.Users, u)
	})
	slices.SortFunc(limits.Users, func(a, b cluster.UserBytes) int { return cmp.Compare(a.User, b.User) })
}

// size writes bytes so that bytesOrNone reads the same number.
func size(b int64) *yaml.Node {
	if b == 0 {
		return plain(noLimit)
	}
	const kib = 1 << 10
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"TiB", kib * kib * kib * kib}, {"GiB", kib * kib * kib}, {"MiB", kib * kib}} {
		if b%u.bytes == 0 {
			return plain(strconv.FormatInt(b/u.bytes, 10) + u.name)
		}
	}
	return plain(strconv.FormatFloat(float64(b)/kib, 'f', -1, 64) + "KiB")
}

func userLimitsNode(users []cluster.UserBytes) *yaml.Node {
	n := flow()
	for _, u := range users {
		put(n, u.User, size(u.Bytes))
	}
	return n
}
