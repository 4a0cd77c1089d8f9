package shm

import (
	"fmt"
	"os"
	"unsafe"
)

// The layout of the memory, in bytes. Each member writes its own lines only, so no two cores fight for one.
const (
	line     = 64
	pageSize = 4096

	// CardBytes is the room for what a member says of its call.
	CardBytes = line
	// SealBytes is the room for what proves who made the memory.
	SealBytes = line
	// SmallBytes is the room for a whole vector that each member combines by itself: beyond it, sharing the work pays for waiting twice.
	SmallBytes = 32 << 10
	// StageBytes is the room of one large stage: two of them, and the part of another member's, lie in a core's second cache.
	StageBytes = 512 << 10

	reachedAt  = 0        // uint32: phases that the member has reached
	awaitsAt   = 4        // uint32: 1 while the member waits without a core, or is about to
	sleepersAt = line     // uint32: members that sleep until it reaches the next
	cardsAt    = 2 * line // two cards, used in turn
	sealAt     = 8 * line // of member 0
	headBytes  = pageSize // all of the above
	smallAt    = headBytes
	stagesAt   = smallAt + 2*SmallBytes
	memberSize = stagesAt + 2*StageBytes

	// MaxMembers bounds the memory of a team: 256 members take 300 MiB.
	MaxMembers = 256
)

// Team is one member's view of the shared memory. One goroutine of the member at a time uses it, but Alloc and Free, which any may call.
type Team struct {
	memory []byte
	me, n  int
	phase  uint32 // that this member has reached
	spin   bool   // each member has a core of its own: waiting awake costs nobody anything
	arena  arena
	file   *os.File
}

func newTeam(memory []byte, me, n, cores int) *Team {
	return &Team{memory: memory, me: me, n: n, spin: n <= cores}
}

func sizeFor(n int) (int, error) {
	if n < 1 || n > MaxMembers {
		return 0, fmt.Errorf("a team of %d ranks in shared memory: at most %d", n, MaxMembers)
	}
	return n * memberSize, nil
}

// Me returns this member's number.
func (t *Team) Me() int { return t.me }

// Members returns how many there are.
func (t *Team) Members() int { return t.n }

// Card returns where a member says what it does in a phase; only the member itself writes it, before it reaches the phase, and
// others read it before they reach the next but one.
func (t *Team) Card(member int, phase uint32) []byte {
	return t.part(member, cardsAt+int(phase&1)*CardBytes, CardBytes)
}

// Small returns a member's small stage for a phase, under the same rule.
func (t *Team) Small(member int, phase uint32) []byte {
	return t.part(member, smallAt+int(phase&1)*SmallBytes, SmallBytes)
}

// Stage returns one of a member's two large stages, 0 or 1.
func (t *Team) Stage(member, which int) []byte {
	return t.part(member, stagesAt+which*StageBytes, StageBytes)
}

// Seal returns where member 0 says, before it tells others the name, what only it and they know.
func (t *Team) Seal() []byte { return t.part(0, sealAt, SealBytes) }

func (t *Team) part(member, at, size int) []byte {
	at += member * memberSize
	return t.memory[at : at+size : at+size]
}

func (t *Team) word(member, at int) *uint32 {
	return (*uint32)(unsafe.Pointer(&t.memory[member*memberSize+at]))
}
