package shm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// folder is where Linux keeps shared memory that has a name.
const folder = "/dev/shm"

const prefix = "gangline-ring-"

// napTime bounds one sleep, so that a waiter asks in time whether to stop.
const napTime = 20 * time.Millisecond

// Create makes the memory of a team of n as member 0 and returns its name, for the others' Join. The owner calls Forget once they have
// it. Only processes of the same user can open it.
func Create(n int) (t *Team, name string, err error) {
	size, err := fileSize(n)
	if err != nil {
		return nil, "", err
	}
	sweep(time.Now().Add(-sweepAge))
	name = prefix + strings.ToLower(rand.Text())
	file, err := os.OpenFile(filepath.Join(folder, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("shared memory: %w", err)
	}
	if err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil { // for sweep, as long as this process lives
		err = file.Truncate(int64(size))
	}
	if err == nil {
		t, err = mapped(file, 0, n, size)
	}
	if err == nil {
		err = t.fill(0, n*memberSize)
	}
	if err != nil {
		Forget(name)
		return nil, "", errors.Join(err, file.Close())
	}
	return t, name, nil
}

// Join opens the memory of a team of n as one of its members, 1..n-1.
func Join(name string, me, n int) (*Team, error) {
	size, err := fileSize(n)
	if err != nil {
		return nil, err
	}
	if me < 1 || me >= n || !strings.HasPrefix(name, prefix) || strings.ContainsRune(name, filepath.Separator) {
		return nil, fmt.Errorf("shared memory: %q as member %d of %d: no team has such a name or place", name, me, n)
	}
	file, err := os.OpenFile(filepath.Join(folder, name), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	t, err := mapped(file, me, n, size)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return t, nil
}

func mapped(file *os.File, me, n, size int) (*Team, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	if info.Size() != int64(size) {
		return nil, fmt.Errorf("shared memory: %s has %d bytes, want %d for %d ranks: are all of one release?", file.Name(), info.Size(), size, n)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() || info.Mode() != 0o600 {
		return nil, fmt.Errorf("shared memory: %s has mode %v and may be another user's: only this user may be able to open it", file.Name(), info.Mode())
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("shared memory: map %s: %w", file.Name(), err)
	}
	t := newTeam(memory, me, n, runtime.NumCPU())
	t.file = file
	return t, nil
}

// fill allocates pages now: one that is missing later would be a signal that kills the process, not an error.
func (t *Team) fill(at, size int) error {
	if err := unix.Fallocate(int(t.file.Fd()), 0, int64(at), int64(size)); err != nil {
		return fmt.Errorf("shared memory: %s has no %d bytes: %w", folder, size, err)
	}
	return nil
}

// empty gives pages back to the machine.
func (t *Team) empty(at, size int) {
	_ = unix.Fallocate(int(t.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(at), int64(size)) // the end of the team gives them back too
}

// sweepAge is far above what lies between a file's making and its lock.
const sweepAge = time.Minute

// sweep removes the names of teams whose owners died before they could call Forget: their memory would be taken until the machine starts anew. Files that
// came after the given time stay.
func sweep(before time.Time) {
	names, _ := filepath.Glob(filepath.Join(folder, prefix+"*")) // the pattern is right
	for _, name := range names {
		file, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW, 0) // another user's cannot be opened
		if err != nil {
			continue
		}
		info, err := file.Stat()
		if err == nil && info.ModTime().Before(before) && unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(name) // a later one tries again
		}
		_ = file.Close() // nothing was written
	}
}

// Forget removes the name; who has the memory keeps it, and it is gone when the last one has ended, however that ends.
func Forget(name string) { _ = os.Remove(filepath.Join(folder, name)) }

// Close gives the memory back. Nothing of the team may be used afterwards. It may be called more than once.
func (t *Team) Close() error {
	t.arena.mu.Lock()
	defer t.arena.mu.Unlock()
	memory := t.memory
	t.memory = nil
	if memory == nil {
		return nil
	}
	return errors.Join(unix.Munmap(memory), t.file.Close())
}

// Host tells machines apart, and users and places where shared memory is kept: ranks with equal texts can be of one team. Empty: there is no
// shared memory here.
func Host() string {
	var dev unix.Stat_t
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err = errors.Join(err, unix.Stat(folder, &dev)); err != nil {
		return ""
	}
	return fmt.Sprintf("%s/%d/%d", strings.TrimSpace(string(boot)), dev.Dev, os.Geteuid())
}

// The operations of futex(2), on memory that processes share.
const (
	futexWait = 0
	futexWake = 1
)

// nap sleeps until the word is no longer the value, or for napTime.
func nap(word *uint32, value uint32) {
	limit := unix.NsecToTimespec(int64(napTime))
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait, uintptr(value), //nolint:gosec // the kernel's interface
		uintptr(unsafe.Pointer(&limit)), 0, 0) // whatever ends it, the caller looks again
}

// wake ends all naps on a word.
func wake(word *uint32) {
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake, MaxMembers, 0, 0, 0) //nolint:gosec // the kernel's interface; it cannot fail
}

// yield cannot fail, and returns soon: Go's scheduler need not hear of it.
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
