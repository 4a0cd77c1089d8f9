package shm

import (
	"sync/atomic"
	"testing"
)

// two returns both members' views of a team.
func two(t *testing.T) (a, b *Team) {
	t.Helper()
	a, name, err := Create(2)
	if err != nil {
		t.Skip(err)
	}
	defer Forget(name)
	if b, err = Join(name, 1, 2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.Close() // a test's memory
		_ = b.Close()
	})
	return a, b
}

// TestWatchGivesUpOnWhoAwaits: to look for a member that itself waits without a core is of no use, and may keep the core from it. It hangs if that
// is not seen.
func TestWatchGivesUpOnWhoAwaits(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	a.Reach()
	atomic.StoreUint32(b.word(1, awaitsAt), 1)
	if a.watch(1, 1<<62) {
		t.Error("a member that has not come has been seen")
	}
	b.Reach()
	if !a.watch(1, 1) {
		t.Error("a member that has come is not seen, though it awaits already")
	}
}

// TestAwaitTellsThatItAwaits while it is about to sleep, and no longer when it is done, however that ends.
func TestAwaitTellsThatItAwaits(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	a.Reach()
	var told, asked uint32
	come := func() bool {
		told = atomic.LoadUint32(b.word(0, awaitsAt))
		asked++
		b.Reach()
		return false
	}
	if !a.Await(come) || told != 1 || asked != 1 {
		t.Errorf("while it awaits, asked %d times, the word is %d, want 1", asked, told)
	}
	if now := atomic.LoadUint32(b.word(0, awaitsAt)); now != 0 {
		t.Error("it has come and is still said to await")
	}
	a.Reach()
	if a.Await(func() bool { return true }) {
		t.Error("it was told to stop and says that all have come")
	}
	if now := atomic.LoadUint32(b.word(0, awaitsAt)); now != 0 {
		t.Error("it has stopped and is still said to await")
	}
}
