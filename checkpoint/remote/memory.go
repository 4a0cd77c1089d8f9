package remote

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Memory is a bucket in memory, for tests. The zero value is empty and works.
type Memory struct {
	// Before, if not nil, runs before each operation with its count from 1; an error that it gives is the operation's.
	Before func(n int, op, name string) error

	mu      sync.Mutex
	ops     int
	objects map[string][]byte
}

func (b *Memory) begin(op, name string) error {
	b.mu.Lock()
	b.ops++
	n := b.ops
	if b.objects == nil {
		b.objects = map[string][]byte{}
	}
	b.mu.Unlock()
	if b.Before != nil {
		return b.Before(n, op, name)
	}
	return nil
}

// Ops gives how many operations there were.
func (b *Memory) Ops() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ops
}

// Upload stores an object.
func (b *Memory) Upload(ctx context.Context, name string, parts int, partBytes int64, part func(context.Context, int, []byte) ([]byte, error)) error {
	var all []byte
	for i := range parts {
		if err := b.begin("upload", name); err != nil {
			return err
		}
		data, err := part(ctx, i, make([]byte, partBytes))
		if err != nil {
			return err
		}
		all = append(all, data...)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[name] = all
	return nil
}

// PutNew stores an object if there is none of that name.
func (b *Memory) PutNew(_ context.Context, name string, data []byte) error {
	if err := b.begin("put", name); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.objects[name]; there {
		return fmt.Errorf("%s: %w", name, ErrExists)
	}
	b.objects[name] = slices.Clone(data)
	return nil
}

// Read fills dst.
func (b *Memory) Read(_ context.Context, name string, at int64, dst []byte) error {
	if err := b.begin("read", name); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, there := b.objects[name]
	if !there || at+int64(len(dst)) > int64(len(o)) {
		return fmt.Errorf("%s from %d: %w", name, at, ErrNotFound)
	}
	copy(dst, o[at:])
	return nil
}

// List gives the objects whose names begin so.
func (b *Memory) List(_ context.Context, prefix string) ([]Object, error) {
	if err := b.begin("list", prefix); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Object
	for name, o := range b.objects { // in any order
		if strings.HasPrefix(name, prefix) {
			out = append(out, Object{Name: name, Bytes: int64(len(o))})
		}
	}
	return out, nil
}

// Remove removes objects.
func (b *Memory) Remove(_ context.Context, names []string) error {
	for _, name := range names {
		if err := b.begin("remove", name); err != nil {
			return err
		}
		b.mu.Lock()
		delete(b.objects, name)
		b.mu.Unlock()
	}
	return nil
}

// Flip inverts a bit of an object, for tests of damage.
func (b *Memory) Flip(name string, at int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[name] = slices.Clone(b.objects[name])
	b.objects[name][at] ^= 1
}
