package nvml

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// reapWait bounds the wait for a process that has closed its output or was killed. A healthy kernel needs
// milliseconds; a process stuck in the driver may never end, and the agent must go on without it.
const reapWait = 2 * time.Second

// stderrKept bounds what is kept of the child's last words.
const stderrKept = 2048

// errStopped ends a call because the client is being closed.
var errStopped = errors.New("gpu-probe: the client is closed")

// child is one life of the probe process. The client's goroutine alone calls its methods.
type child struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	started time.Time
	lastID  uint64
	words   *tail

	lines    chan response // closed at the end of the child's output
	abandon  chan struct{} // closed by the owner: nobody reads lines any more
	garbled  bool          // the output was not our protocol, so it was killed; valid once lines is closed
	exited   chan struct{} // closed once the process is reaped; waitErr is valid then
	waitErr  error
	released time.Time // zero: it was not given up
}

// startChild runs the command with pipes for the protocol.
func startChild(command, env []string) (*child, error) {
	cmd := exec.Command(command[0], command[1:]...) // our own binary, named by the operator's config
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = reapWait / 4 // for a stderr that somebody else still holds open
	cmd.SysProcAttr = childAttributes()
	c := &child{
		cmd: cmd, words: &tail{}, started: time.Now(),
		lines: make(chan response), abandon: make(chan struct{}), exited: make(chan struct{}),
	}
	cmd.Stderr = c.words
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start gpu-probe: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start gpu-probe: %w", err)
	}
	c.stdin = stdin
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start gpu-probe %q: %w", strings.Join(command, " "), err)
	}
	go c.read(stdout)
	return c, nil
}

// read hands on the child's lines, then reaps the process. It ends when the process does.
func (c *child) read(stdout io.Reader) {
	defer close(c.exited)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for lines.Scan() {
		var r response
		if c.garbled = json.Unmarshal(lines.Bytes(), &r) != nil; c.garbled {
			break
		}
		select {
		case c.lines <- r:
			continue
		case <-c.abandon:
		}
		break
	}
	if c.garbled = c.garbled || lines.Err() != nil; c.garbled {
		_ = c.cmd.Process.Kill() // it may wait for somebody to read on; an error means that it is gone
	}
	close(c.lines)
	c.waitErr = c.cmd.Wait()
}

// call sends one request and waits for its answer at most timeout. Any error means that this child is of no
// more use. at is the last device that the child named.
func (c *child) call(req request, timeout time.Duration, stop <-chan struct{}) (resp response, err error) {
	c.lastID++
	req.Version, req.ID = protocolVersion, c.lastID
	line, err := json.Marshal(req)
	if err != nil {
		return response{}, fmt.Errorf("gpu-probe %s: %w", req.Op, err)
	}
	// The write cannot block: one short request is in flight at a time, and a pipe holds 64 KiB.
	if _, err := c.stdin.Write(append(line, '\n')); err != nil {
		return response{}, c.death(req.Op, "")
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	at := ""
	for {
		select {
		case r, open := <-c.lines:
			switch {
			case !open && c.garbled:
				return response{}, c.stranger(req.Op)
			case !open:
				return response{}, c.death(req.Op, at)
			case r.At != "":
				at = r.At
			case r.ID != req.ID:
				return response{}, fmt.Errorf("gpu-probe %s: answer %d to request %d: is the command another program?", req.Op, r.ID, req.ID)
			default:
				return r, nil
			}
		case <-deadline.C:
			return response{}, fmt.Errorf("NVML hangs: no answer to %q%s within %v (a GPU may have fallen off the bus: see the kernel log for Xid)", req.Op, atDevice(at), timeout)
		case <-stop:
			return response{}, errStopped
		}
	}
}

// stranger says that the process is not the probe.
func (c *child) stranger(o op) error {
	return fmt.Errorf("gpu-probe %s: the output is not the probe's protocol: is the command %q another program?", o, strings.Join(c.cmd.Args, " "))
}

// death says how the process ended, with its last words.
func (c *child) death(o op, at string) error {
	if !c.await(reapWait) {
		return fmt.Errorf("gpu-probe %s%s: process %d closed its output but has not ended", o, atDevice(at), c.cmd.Process.Pid)
	}
	if c.garbled { // it was killed for that, perhaps before it was asked anything
		return c.stranger(o)
	}
	how := "exit status 0"
	if c.waitErr != nil {
		how = c.waitErr.Error()
	}
	if words := c.words.String(); words != "" {
		how += ": " + words
	}
	return fmt.Errorf("gpu-probe died during %q%s: %s", o, atDevice(at), how)
}

// await tells whether the process is reaped within the time.
func (c *child) await(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.exited:
		return true
	case <-timer.C:
		return false
	}
}

// release gives the process up without waiting: its input ends, and it is killed. Repeating it does nothing.
func (c *child) release() {
	if !c.released.IsZero() {
		return
	}
	c.released = time.Now()
	close(c.abandon)
	_ = c.stdin.Close()      // the process may be gone already
	_ = c.cmd.Process.Kill() // likewise
}

// ended tells whether a process that was given up is reaped. It waits for that until reapWait has passed since: a busy
// machine needs a moment to end a process, which must not look like one that hangs in the driver. stop ends the wait.
func (c *child) ended(stop <-chan struct{}) bool {
	timer := time.NewTimer(reapWait - time.Since(c.released))
	defer timer.Stop()
	select {
	case <-c.exited:
		return true
	case <-timer.C:
	case <-stop:
	}
	select { // both may have been ready
	case <-c.exited:
		return true
	default:
		return false
	}
}

// stopped tells whether stop is closed.
func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

func atDevice(at string) string {
	if at == "" {
		return ""
	}
	return " for GPU " + at
}

// tail keeps the last bytes written to it, as one line.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

// Write keeps the end of what was written; it never fails.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if extra := len(t.kept) - stderrKept; extra > 0 {
		t.kept = append([]byte(nil), t.kept[extra:]...)
	}
	return len(b), nil
}

// String returns what was kept with line breaks as spaces.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(string(t.kept)), " ")
}
