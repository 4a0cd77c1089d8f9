package planner

// ranked is what an ordered heap holds: it knows which of two comes first, and
// where in its heap it is, so that it can be moved or taken out.
type ranked[T any] interface {
	before(T) bool
	at() int // position in the heap, -1: in none
	moveTo(int)
}

// heapOf is a binary heap of things that know their places. Unlike
// container/heap it allocates nothing for a call.
type heapOf[T ranked[T]] struct{ items []T }

func (h *heapOf[T]) len() int { return len(h.items) }

// top returns the first item, or the zero T.
func (h *heapOf[T]) top() (t T) {
	if len(h.items) > 0 {
		return h.items[0]
	}
	return t
}

func (h *heapOf[T]) push(t T) {
	h.items = append(h.items, t)
	t.moveTo(len(h.items) - 1)
	h.up(len(h.items) - 1)
}

// fix restores the order after an item has changed.
func (h *heapOf[T]) fix(t T) {
	i := t.at()
	if !h.down(i) {
		h.up(i)
	}
}

func (h *heapOf[T]) remove(t T) {
	i, last := t.at(), len(h.items)-1
	moved := h.items[last]
	var none T
	h.items[last] = none
	h.items = h.items[:last]
	t.moveTo(-1)
	if i == last {
		return
	}
	// What comes from the end mostly belongs near it: so first down to the end
	// without asking where, with one comparison for each step, not two.
	for {
		child := 2*i + 1
		if child >= last {
			break
		}
		if r := child + 1; r < last && h.items[r].before(h.items[child]) {
			child = r
		}
		h.put(h.items[child], i)
		i = child
	}
	h.put(moved, i)
	h.up(i)
}

func (h *heapOf[T]) put(t T, i int) {
	h.items[i] = t
	t.moveTo(i)
}

// up moves the item at a place towards the top as far as it comes before others.
func (h *heapOf[T]) up(i int) {
	t, from := h.items[i], i
	for i > 0 {
		parent := (i - 1) / 2
		if !t.before(h.items[parent]) {
			break
		}
		h.put(h.items[parent], i)
		i = parent
	}
	if i < from {
		h.put(t, i)
	}
}

// down moves the item at a place away from the top as far as others come before
// it, and reports whether any did.
func (h *heapOf[T]) down(i int) bool {
	t, from := h.items[i], i
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			break
		}
		if r := child + 1; r < len(h.items) && h.items[r].before(h.items[child]) {
			child = r
		}
		if !h.items[child].before(t) {
			break
		}
		h.put(h.items[child], i)
		i = child
	}
	if i > from {
		h.put(t, i)
	}
	return i > from
}
