package cluster

import (
	"maps"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// copyOfTrie is a trie with what should be in it, and its owner.
type copyOfTrie struct {
	requestTrie
	own  *owner
	want map[string]*Request
}

// TestRequestTrieIsAMapThatCopies: a trie finds what a map finds, and copies go
// their own ways, whatever is done to which of them.
func TestRequestTrieIsAMapThatCopies(t *testing.T) {
	t.Parallel()
	// The first two have the same hash, all 64 bits of it.
	same := []string{"8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ", ""}
	if p, q := (requestPath{id: same[0]}), (requestPath{id: same[1]}); p.next() != q.next() || p.hash != q.hash {
		t.Fatal("the test's ids have different hashes")
	}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(rapid.SampledFrom(same), rapid.Map(rapid.IntRange(0, 300), strconv.Itoa), rapid.String())
		all := []*copyOfTrie{{own: new(owner), want: map[string]*Request{}}}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			c := all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
			k := key.Draw(t, "key")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				next := *c
				c.own, next.own = new(owner), new(owner) // as State.Snapshot does
				next.want = maps.Clone(c.want)
				all = append(all, &next)
			case 1, 2, 3:
				if r := c.want[k]; r != nil {
					c.drop(c.own, r)
				}
				delete(c.want, k)
			default:
				r := &Request{ID: k}
				c.set(c.own, r)
				c.want[k] = r
			}
			for _, c := range all {
				if c.count != len(c.want) || c.get(k) != c.want[k] {
					t.Fatalf("it holds %d, and %v of %q: want %d, and %v", c.count, c.get(k), k, len(c.want), c.want[k])
				}
			}
		}
		for _, c := range all {
			for k, r := range c.want {
				if c.get(k) != r {
					t.Fatalf("%q is %v, want %v", k, c.get(k), r)
				}
				c.drop(c.own, r)
			}
			if c.top != nil || c.count != 0 {
				t.Fatalf("it is not empty once all has been dropped")
			}
		}
	})
}
