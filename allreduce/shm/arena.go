package shm

import (
	"fmt"
	"slices"
	"sync"
	"unsafe"
)

// ArenaBytes is the room of addresses that each member has for vectors that all can see. It costs nothing until memory is allocated.
const ArenaBytes = 1 << 36

// Equal places of all members' vectors are read and written at once. Where their addresses differ in high bits alone, they fall into the same few places of
// a core's first cache and of what predicts where in it they lie (AMD's takes bits 12 to 27), and put each other out: 3 times the time was measured. So rooms are
// moved apart by pages, and vectors within a page.
const (
	roomSkew = 2 * pageSize
	shift    = 512
	shifts   = pageSize / shift
)

// arena is what of a member's own room is in use. The room itself lies behind the stages of all members.
type arena struct {
	mu   sync.Mutex
	used []span // in order
}

// span is a stretch of a member's room, in bytes.
type span struct{ at, size int }

// fileSize is the length of the memory of n members: heads and stages first, then each member's room.
func fileSize(n int) (int, error) {
	fixed, err := sizeFor(n)
	return fixed + n*(ArenaBytes+roomSkew), err
}

// room returns where a member's room begins.
func (t *Team) room(member int) int { return t.n*memberSize + member*(ArenaBytes+roomSkew) }

// shift returns how far behind the beginning of a page this member's vectors begin.
func (t *Team) shift() int { return t.me % shifts * shift }

// Alloc returns memory of this member that all members can see, zeroed, aligned to 512 bytes. Give it back with Free. It is safe for
// concurrent use.
func (t *Team) Alloc(bytes int) ([]byte, error) {
	t.arena.mu.Lock()
	defer t.arena.mu.Unlock()
	size := (t.shift() + max(bytes, 1) + pageSize - 1) &^ (pageSize - 1)
	at, i := 0, 0
	for ; i < len(t.arena.used) && t.arena.used[i].at-at < size; i++ { // the first gap that is large enough
		at = t.arena.used[i].at + t.arena.used[i].size
	}
	if at+size > ArenaBytes || t.memory == nil {
		return nil, fmt.Errorf("shared memory: no room for %d bytes: a rank has %d in all", bytes, ArenaBytes)
	}
	if err := t.fill(t.room(t.me)+at, size); err != nil {
		return nil, err
	}
	t.arena.used = slices.Insert(t.arena.used, i, span{at, size})
	from := t.room(t.me) + at + t.shift()
	return t.memory[from : from+bytes : from+bytes], nil
}

// Free gives memory of Alloc back; what else it is given it leaves alone. The memory must not be used afterwards, by no member.
func (t *Team) Free(b []byte) {
	at, ok := t.Find(b)
	if !ok {
		return
	}
	t.arena.mu.Lock()
	defer t.arena.mu.Unlock()
	i, found := slices.BinarySearchFunc(t.arena.used, at, func(s span, at int) int { return s.at + t.shift() - at })
	if !found {
		return
	}
	s := t.arena.used[i]
	t.arena.used = slices.Delete(t.arena.used, i, i+1)
	t.empty(t.room(t.me)+s.at, s.size)
}

// Find returns where in this member's room some memory lies.
func (t *Team) Find(b []byte) (at int, ok bool) {
	if len(b) == 0 || t.memory == nil {
		return 0, false
	}
	base := uintptr(unsafe.Pointer(unsafe.SliceData(t.memory))) + uintptr(t.room(t.me))
	p := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if p < base || p+uintptr(len(b)) > base+ArenaBytes {
		return 0, false
	}
	return int(p - base), true
}

// Seen returns memory of a member's room, as this member sees it.
func (t *Team) Seen(member, at, size int) ([]byte, error) {
	if at < 0 || size < 0 || at > ArenaBytes-size {
		return nil, fmt.Errorf("shared memory: member %d names %d bytes at %d, its room has %d", member, size, at, ArenaBytes)
	}
	at += t.room(member)
	return t.memory[at : at+size : at+size], nil
}
