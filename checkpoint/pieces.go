package checkpoint

import "slices"

// Pieces calls fn for boxes of at most limit elements, at least 1, that make up a tensor of shape, in the order of its elements. fn must not
// keep the slices. The first error ends it.
func Pieces(shape []int64, limit int64, fn func(offset, box []int64) error) error {
	if n, _ := volume(shape); n == 0 {
		return nil
	}
	// The dimensions from cut+1 on fit into one piece; along cut several of them go together.
	cut, inner := len(shape)-1, int64(1)
	for cut > 0 && inner*shape[cut] <= limit {
		inner *= shape[cut]
		cut--
	}
	offset, box := make([]int64, len(shape)), slices.Clone(shape)
	if len(shape) == 0 {
		return fn(offset, box)
	}
	for i := range cut {
		box[i] = 1
	}
	rows := max(1, limit/inner)
	for {
		for offset[cut] = 0; offset[cut] < shape[cut]; offset[cut] += rows {
			box[cut] = min(rows, shape[cut]-offset[cut])
			if err := fn(offset, box); err != nil {
				return err
			}
		}
		d := cut - 1
		for ; d >= 0; d-- {
			if offset[d]++; offset[d] < shape[d] {
				break
			}
			offset[d] = 0
		}
		if d < 0 {
			return nil
		}
	}
}
