package worker

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// mainExit is the end of a worker's main process.
type mainExit struct {
	status syscall.WaitStatus
	others bool // processes that it started are still there
}

// reaper waits for the worker's main process and for every descendant that falls to the supervisor (the subreaper).
type reaper struct {
	main  int
	exits chan mainExit // one value, then closed when no child is left at all

	mu   sync.Mutex
	gone bool // main was reaped: its number may belong to a stranger
}

// startReaper owns wait4 for the whole process from now on. Its goroutine ends when the last child is gone.
func startReaper(pid int) *reaper {
	r := &reaper{main: pid, exits: make(chan mainExit, 1)}
	go r.run()
	return r
}

func (r *reaper) run() {
	defer close(r.exits)
	for {
		// Wait without reaping first, so that signalGroup can shut the moment between death and reaping.
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT|unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // ECHILD: nobody left
		}
		r.reap()
	}
}

// reap takes one dead child.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG|unix.WALL, nil)
	if err != nil || pid != r.main || r.gone {
		return
	}
	r.gone = true
	err = unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	r.exits <- mainExit{status: status, others: !errors.Is(err, unix.ECHILD)}
}

// signalMain signals the main process if it still exists.
func (r *reaper) signalMain(sig syscall.Signal) { r.signal(r.main, sig) }

// signalGroup signals the main process's group while its number is surely its own.
func (r *reaper) signalGroup(sig syscall.Signal) { r.signal(-r.main, sig) }

func (r *reaper) signal(pid int, sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.gone {
		_ = syscall.Kill(pid, sig) // ESRCH: just died, which is what we want
	}
}
