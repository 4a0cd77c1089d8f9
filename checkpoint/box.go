package checkpoint

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// A box is a rectangle of a tensor: shape elements from offset on, per dimension.
type box struct {
	offset, shape []int64
}

// volume gives the number of elements of a shape, and false if it overflows or a dimension is negative.
func volume(shape []int64) (int64, bool) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		if d != 0 && n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// intersect gives the common part of two boxes, and false if it is empty.
func intersect(a, b box) (box, bool) {
	c := box{offset: make([]int64, len(a.shape)), shape: make([]int64, len(a.shape))}
	for i := range a.shape {
		lo := max(a.offset[i], b.offset[i])
		hi := min(a.offset[i]+a.shape[i], b.offset[i]+b.shape[i])
		if hi <= lo {
			return box{}, false
		}
		c.offset[i], c.shape[i] = lo, hi-lo
	}
	return c, true
}

// runs calls fn for each stretch of elements that is contiguous both in from (the box as stored) and in
// to (the box as wanted), in rising order of both: element indexes from the start of each, and a count.
func runs(from, to box, fn func(src, dst, n int64) error) error {
	both, ok := intersect(from, to)
	if !ok {
		return nil
	}
	dims := len(both.shape)
	if dims == 0 {
		return fn(0, 0, 1)
	}
	// The last dimension is one run; as long as a dimension is whole on both sides, the next one joins it.
	inner, n := dims-1, both.shape[dims-1]
	for inner > 0 && both.shape[inner] == from.shape[inner] && both.shape[inner] == to.shape[inner] {
		inner--
		n *= both.shape[inner]
	}
	at := slices.Clone(both.offset)
	for {
		if err := fn(linear(from, at), linear(to, at), n); err != nil {
			return err
		}
		d := inner - 1
		for ; d >= 0; d-- {
			at[d]++
			if at[d] < both.offset[d]+both.shape[d] {
				break
			}
			at[d] = both.offset[d]
		}
		if d < 0 {
			return nil
		}
	}
}

// linear gives the index in b's memory of the element at the tensor's coordinates.
func linear(b box, at []int64) int64 {
	index := int64(0)
	for i := range at {
		index = index*b.shape[i] + at[i] - b.offset[i]
	}
	return index
}

// covers checks that the boxes fill the shape exactly once: no two overlap and the volumes add up.
// Empty boxes are allowed. Boxes must lie inside the shape.
func covers(global []int64, boxes []box) error {
	want, _ := volume(global)
	var full []box
	have := int64(0)
	for _, b := range boxes {
		n, _ := volume(b.shape)
		if n == 0 {
			continue
		}
		full = append(full, b)
		if have > want-n {
			return fmt.Errorf("parts hold more than the %d elements of the tensor", want)
		}
		have += n
	}
	if have != want {
		return fmt.Errorf("parts hold %d of %d elements", have, want)
	}
	if len(global) == 0 {
		return nil // a scalar: one part, as the sum says
	}
	// Sorted along the dimension that is cut into the most parts, a box can only meet those that begin
	// before it ends.
	cut := mostCut(full, len(global))
	slices.SortFunc(full, func(a, b box) int { return cmp.Compare(a.offset[cut], b.offset[cut]) })
	for i, a := range full {
		for _, b := range full[i+1:] {
			if b.offset[cut] >= a.offset[cut]+a.shape[cut] {
				break
			}
			if _, meet := intersect(a, b); meet {
				return fmt.Errorf("parts at %v and %v overlap", a.offset, b.offset)
			}
		}
	}
	return nil
}

// mostCut gives the dimension along which the boxes begin at the most different places.
func mostCut(boxes []box, dims int) int {
	best, most := 0, 0
	for d := range dims {
		starts := make(map[int64]struct{}, len(boxes))
		for _, b := range boxes {
			starts[b.offset[d]] = struct{}{}
		}
		if len(starts) > most {
			best, most = d, len(starts)
		}
	}
	return best
}
