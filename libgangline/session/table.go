package session

import (
	"fmt"
	"sync"
)

// table knows things by numbers. A number is never used twice, so that a stale one is an error and not another thing. It is safe for
// concurrent use; the zero value is ready.
type table[T any] struct {
	mu     sync.RWMutex
	last   int64
	things map[int64]T
}

// put gives a thing its number, from 1.
func (t *table[T]) put(thing T) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.things == nil {
		t.things = map[int64]T{}
	}
	t.last++
	t.things[t.last] = thing
	return t.last
}

// set gives a thing a number that another table has given it.
func (t *table[T]) set(number int64, thing T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.things == nil {
		t.things = map[int64]T{}
	}
	t.things[number] = thing
}

// get finds a thing; what names it in the error.
func (t *table[T]) get(number int64, what string) (T, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	thing, ok := t.things[number]
	if !ok {
		return thing, fmt.Errorf("%s %d: %w", what, number, errHandle)
	}
	return thing, nil
}

// take finds a thing and forgets its number.
func (t *table[T]) take(number int64, what string) (T, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	thing, ok := t.things[number]
	if !ok {
		return thing, fmt.Errorf("%s %d: %w", what, number, errHandle)
	}
	delete(t.things, number)
	return thing, nil
}
