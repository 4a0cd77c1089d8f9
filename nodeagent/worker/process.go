package worker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tokenEnv marks the processes of a worker, so that those which left its process group are found after the
// supervisor, their only other link, has vanished.
const tokenEnv = "GANGLINE_WORKER_TOKEN"

// process is one row of /proc. (pid, start) names a process for ever within one boot.
type process struct {
	pid, parent, group int
	state              byte
	start              uint64 // clock ticks since boot
}

// dead reports a zombie: it holds nothing any more but its number.
func (p process) dead() bool { return p.state == 'Z' || p.state == 'X' }

// readProcess reads /proc/PID/stat.
func readProcess(pid int) (process, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, err
	}
	// The name in parentheses may hold spaces and parentheses: fields count from the last ")".
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return process{}, fmt.Errorf("read /proc/%d/stat: no command name in %q", pid, data)
	}
	f := strings.Fields(string(data[end+1:]))
	if len(f) < 20 {
		return process{}, fmt.Errorf("read /proc/%d/stat: %d fields after the name, want 20 or more", pid, len(f))
	}
	parent, err1 := strconv.Atoi(f[1])
	group, err2 := strconv.Atoi(f[2])
	start, err3 := strconv.ParseUint(f[19], 10, 64)
	return process{pid: pid, state: f[0][0], parent: parent, group: group, start: start}, errors.Join(err1, err2, err3)
}

// listProcesses reads all of /proc; processes that end meanwhile are left out.
func listProcesses() ([]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // nothing was written
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := readProcess(pid); err == nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// descendants returns the living processes below root, at any depth.
func descendants(all []process, root int) []process {
	children := make(map[int][]process, len(all))
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []process
	seen := map[int]bool{root: true} // /proc is not read at one instant: a reused number could close a loop
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		for _, p := range children[queue[0]] {
			if seen[p.pid] {
				continue
			}
			seen[p.pid] = true
			queue = append(queue, p.pid)
			if !p.dead() {
				found = append(found, p)
			}
		}
	}
	return found
}

// handlers returns the topmost processes at and below root that handle sig. It does not look below one that does: what a
// program has forked, such as a data loader, has its handlers too and must not act on them.
func handlers(all []process, root int, sig syscall.Signal) []process {
	children, rows := make(map[int][]int, len(all)), make(map[int]process, len(all))
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p.pid)
		rows[p.pid] = p
	}
	var found []process
	seen := map[int]bool{root: true} // see descendants
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		if p, ok := rows[queue[0]]; ok && !p.dead() && handles(p.pid, sig) {
			found = append(found, p)
			continue
		}
		for _, child := range children[queue[0]] {
			if !seen[child] {
				seen[child] = true
				queue = append(queue, child)
			}
		}
	}
	return found
}

// handles reports whether the process has a handler for sig, by the mask in its /proc/PID/status.
func handles(pid int, sig syscall.Signal) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			return err == nil && mask>>(uint(sig)-1)&1 == 1
		}
	}
	return false
}

// leftovers returns the living processes of a worker whose supervisor is gone: its process group, if its leader is
// still the process that was recorded, and every process that carries its token.
func leftovers(all []process, pid int, start uint64, token string) []process {
	leader := false
	for _, p := range all {
		leader = leader || (pid > 0 && p.pid == pid && p.start == start)
	}
	mark := []byte(tokenEnv + "=" + token)
	var found []process
	for _, p := range all {
		if p.dead() {
			continue
		}
		if (leader && p.group == pid) || (token != "" && hasEnv(p.pid, mark)) {
			found = append(found, p)
		}
	}
	return found
}

// hasEnv reports whether the process was started with exactly this NAME=value in its environment.
func hasEnv(pid int, mark []byte) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false // gone, or another user's: not ours
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(entry, mark) {
			return true
		}
	}
	return false
}

// signal sends sig to exactly this process, never to a later one of the same number. A process that is gone is no error.
func (p process) signal(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // a pidfd holds no data
	// The number is pinned from here on: if it still has the start time we saw, it is the process we saw.
	now, err := readProcess(p.pid)
	if err != nil || now.start != p.start {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", sig, p.pid, err)
	}
	return nil
}

// signalAll sends sig to each process, with (pid, start) checked.
func signalAll(ps []process, sig syscall.Signal) error {
	var errs []error
	for _, p := range ps {
		errs = append(errs, p.signal(sig))
	}
	return errors.Join(errs...)
}

// bootID names this boot of the machine.
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}
