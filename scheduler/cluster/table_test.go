package cluster

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// copyOfTable is a table with what should be in it, and its owner.
type copyOfTable struct {
	table[uint64]
	own  *owner
	want map[uint64]uint64
	made map[uint64]bool // by own, and to be edited in place
}

// TestTableIsAMapThatCopies: a table is what a map is, in order, and copies go
// their own ways, whatever is done to which of them.
func TestTableIsAMapThatCopies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(rapid.Uint64Range(1, 200), rapid.Uint64Range(4000, 4200), rapid.SampledFrom([]uint64{0, 1 << 20, 1 << 40, 1<<64 - 1}))
		all := []*copyOfTable{{own: new(owner), want: map[uint64]uint64{}, made: map[uint64]bool{}}}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			c := all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
			k := key.Draw(t, "key")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				next := *c
				c.own, next.own = new(owner), new(owner) // as State.Snapshot does
				next.want = maps.Clone(c.want)
				c.made, next.made = map[uint64]bool{}, map[uint64]bool{}
				all = append(all, &next)
			case 1, 2, 3:
				c.drop(c.own, k)
				delete(c.want, k)
				delete(c.made, k)
			case 4, 5:
				v, mine := c.edit(c.own, k)
				if mine != c.made[k] {
					t.Fatalf("%d may be edited: %v, want %v", k, mine, c.made[k])
				}
				if mine {
					*v++
					c.want[k]++
				}
			default:
				v := rapid.Uint64().Draw(t, "value")
				mine := rapid.Bool().Draw(t, "mine")
				c.set(c.own, k, &v, mine)
				c.want[k], c.made[k] = v, mine
			}
			for _, c := range all {
				c.compare(t, k)
			}
		}
	})
}

func (c *copyOfTable) compare(t *rapid.T, last uint64) {
	if c.count != len(c.want) {
		t.Fatalf("it holds %d, want %d", c.count, len(c.want))
	}
	keys := slices.Sorted(maps.Keys(c.want))
	var want, down []uint64
	for _, k := range keys {
		want = append(want, c.want[k])
		if k <= last {
			down = append(down, c.want[k])
		}
		if got := c.get(k); got == nil || *got != c.want[k] {
			t.Fatalf("%d is %v, want %d", k, got, c.want[k])
		}
	}
	slices.Reverse(down)
	if _, known := c.want[last]; !known && c.get(last) != nil {
		t.Fatalf("%d is still there", last)
	}
	var got, gotDown []uint64
	c.scan(func(v *uint64) bool { got = append(got, *v); return true })
	c.scanDown(last, func(v *uint64) bool { gotDown = append(gotDown, *v); return true })
	if !slices.Equal(got, want) || !slices.Equal(gotDown, down) {
		t.Fatalf("in order it has %v, want %v; down from %d %v, want %v", got, want, last, gotDown, down)
	}
	if first := c.first(); len(want) > 0 && *first != want[0] || len(want) == 0 && first != nil {
		t.Fatalf("first is %v of %v", first, want)
	}
	if len(want) == 0 && len(c.roots) > 0 {
		t.Fatalf("%d roots are left of nothing", len(c.roots))
	}
	c.scan(func(*uint64) bool { got = got[:1]; return false })
	if len(want) > 0 && len(got) != 1 {
		t.Fatal("scan did not stop")
	}
}
