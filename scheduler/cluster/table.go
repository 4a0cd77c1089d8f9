package cluster

import (
	"cmp"
	"math/bits"
	"slices"
)

// table maps numbers that are given once each, in growing order, to objects:
// jobs by id, say. It copies on write: a copy of the struct is a snapshot as soon
// as both go on with other owners, and what one writes the other does not see.
//
// It is a tree of a fixed depth. A number says where its object is: three loads
// find it, where a search tree compares some fifteen keys, and neighbours share
// a leaf of 64. Leaves without objects are dropped. A lone number takes a
// kilobyte; those that are remembered are mostly neighbours.
type table[T any] struct {
	count int
	by    *owner    // who may write to roots
	roots []root[T] // by number
	spare *leaf[T]  // an empty one: few numbers that come and go are in none of the others
	bare  *twig[T]  // likewise
}

// Numbers are split into the root's, and 6 bits each for twig and leaf.
const (
	tableBits = 6
	tableFan  = 1 << tableBits
)

type root[T any] struct {
	number uint64
	twig   *twig[T]
}

type twig[T any] struct {
	by     *owner
	has    uint64 // a bit for each leaf
	leaves [tableFan]*leaf[T]
}

type leaf[T any] struct {
	by    *owner
	has   uint64 // a bit for each object
	mine  uint64 // a bit for each that by has made, and may edit
	items [tableFan]*T
}

// rootAt returns where a root is, or would be.
func (t *table[T]) rootAt(number uint64) (int, bool) {
	return slices.BinarySearchFunc(t.roots, number, func(r root[T], n uint64) int { return cmp.Compare(r.number, n) })
}

// leafOf returns the leaf that has a number, or nil. Mostly no root is missing
// between the first and that of the number, and then none is to be searched for.
func (t *table[T]) leafOf(key uint64) *leaf[T] {
	if roots := t.roots; len(roots) > 0 {
		i := key>>(2*tableBits) - roots[0].number
		if i < uint64(len(roots)) && roots[i].number == key>>(2*tableBits) {
			return roots[i].twig.leaves[key>>tableBits%tableFan]
		}
	}
	return t.search(key)
}

// search is leafOf wherever the root may be.
func (t *table[T]) search(key uint64) *leaf[T] {
	i, ok := t.rootAt(key >> (2 * tableBits))
	if !ok {
		return nil
	}
	return t.roots[i].twig.leaves[key>>tableBits%tableFan]
}

// get returns an object, or nil.
func (t *table[T]) get(key uint64) *T {
	if l := t.leafOf(key); l != nil {
		return l.items[key%tableFan]
	}
	return nil
}

// edit returns an object, or nil, and whether the owner has made it, so that
// nobody else sees it.
func (t *table[T]) edit(own *owner, key uint64) (*T, bool) {
	l := t.leafOf(key)
	if l == nil {
		return nil, false
	}
	return l.items[key%tableFan], l.by == own && l.mine>>(key%tableFan)&1 != 0
}

// set stores an object; mine says that the owner has made it.
func (t *table[T]) set(own *owner, key uint64, item *T, mine bool) {
	t.setIn(t.ownLeaf(own, key), key, item, mine)
}

// setIn is set in the owner's leaf for the number.
func (t *table[T]) setIn(l *leaf[T], key uint64, item *T, mine bool) {
	bit := uint64(1) << (key % tableFan)
	if l.has&bit == 0 {
		l.has |= bit
		t.count++
	}
	if l.mine &^= bit; mine {
		l.mine |= bit
	}
	l.items[key%tableFan] = item
}

// ownLeaf returns the leaf for a number, to be written to.
func (t *table[T]) ownLeaf(own *owner, key uint64) *leaf[T] {
	if l := t.leafOf(key); l != nil && l.by == own {
		return l
	}
	number := key >> (2 * tableBits)
	i, ok := t.rootAt(number)
	if !ok {
		t.ownRoots(own)
		w := t.bare
		if w == nil || w.by != own {
			w = &twig[T]{by: own}
		}
		t.bare = nil
		t.roots = slices.Insert(t.roots, i, root[T]{number, w})
	}
	w := t.roots[i].twig
	if w.by != own {
		t.ownRoots(own)
		next := *w
		next.by = own
		w = &next
		t.roots[i].twig = w
	}
	k := key >> tableBits % tableFan
	l := w.leaves[k]
	switch {
	case l == nil:
		if l = t.spare; l == nil || l.by != own {
			l = &leaf[T]{by: own}
		}
		t.spare = nil
		w.leaves[k] = l
		w.has |= 1 << k
	case l.by != own:
		next := *l
		next.by, next.mine = own, 0
		l = &next
		w.leaves[k] = l
	}
	return l
}

// ownRoots makes the roots the owner's.
func (t *table[T]) ownRoots(own *owner) {
	if t.by != own {
		t.roots, t.by = slices.Clone(t.roots), own
	}
}

// drop forgets an object, if it is there.
func (t *table[T]) drop(own *owner, key uint64) {
	l := t.leafOf(key)
	if l == nil || l.items[key%tableFan] == nil {
		return
	}
	if l.by != own {
		l = t.ownLeaf(own, key)
	}
	bit := uint64(1) << (key % tableFan)
	l.has &^= bit
	l.mine &^= bit
	l.items[key%tableFan] = nil
	t.count--
	if l.has != 0 {
		return
	}
	t.spare = l
	i, _ := t.rootAt(key >> (2 * tableBits))
	w := t.roots[i].twig // the owner's, as its leaf is
	w.has &^= 1 << (key >> tableBits % tableFan)
	w.leaves[key>>tableBits%tableFan] = nil
	if w.has == 0 {
		t.ownRoots(own)
		t.roots = slices.Delete(t.roots, i, i+1)
		t.bare = w
	}
}

// first returns the object with the lowest number, or nil.
func (t *table[T]) first() *T {
	if len(t.roots) == 0 {
		return nil
	}
	w := t.roots[0].twig
	l := w.leaves[bits.TrailingZeros64(w.has)]
	return l.items[bits.TrailingZeros64(l.has)]
}

// scan calls f for all objects by number until f returns false.
func (t *table[T]) scan(f func(*T) bool) {
	for i := range t.roots {
		w := t.roots[i].twig
		for ws := w.has; ws != 0; ws &= ws - 1 {
			l := w.leaves[bits.TrailingZeros64(ws)]
			for ls := l.has; ls != 0; ls &= ls - 1 {
				if !f(l.items[bits.TrailingZeros64(ls)]) {
					return
				}
			}
		}
	}
}

// scanDown calls f for the objects with numbers up to a last one, the highest
// first, until f returns false.
func (t *table[T]) scanDown(last uint64, f func(*T) bool) {
	for i := len(t.roots) - 1; i >= 0; i-- {
		base, w := t.roots[i].number<<(2*tableBits), t.roots[i].twig
		if base > last {
			continue
		}
		for ws := w.has; ws != 0; {
			k := 63 - bits.LeadingZeros64(ws)
			ws &^= 1 << k
			base, l := base+uint64(k)<<tableBits, w.leaves[k] //nolint:gosec // 0..63
			if base > last {
				continue
			}
			ls := l.has
			if over := last - base; over < tableFan-1 {
				ls &= 1<<(over+1) - 1
			}
			for ls != 0 {
				k := 63 - bits.LeadingZeros64(ls)
				ls &^= 1 << k
				if !f(l.items[k]) {
					return
				}
			}
		}
	}
}
