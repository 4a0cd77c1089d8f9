package worker

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const (
	superviseArg = "gangline-test-supervise"
	agentArg     = "gangline-test-agent"
	// patience is how long a real process may take on a loaded machine before a test calls it a failure.
	patience = 30 * time.Second
)

// TestMain lets the test binary be the supervisor and the agent of its own tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case superviseArg:
			os.Exit(Supervise(os.Args[2]))
		case agentArg:
			crashingAgent(os.Args[2], os.Args[3])
		}
	}
	goleak.VerifyTestMain(m)
}

// crashingAgent opens dir, launches one worker with the given script, and waits to be killed.
func crashingAgent(dir, script string) {
	m, err := Open(dir, Config{Supervisor: []string{"/proc/self/exe", superviseArg}})
	if err == nil {
		err = m.Launch(Spec{Key: Key{Job: 1, Epoch: 1}, Command: []string{"/bin/sh", "-c", script}, GPUs: []string{"GPU-a"}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

// node is a Manager under test.
type node struct {
	*Manager
	t testing.TB
}

func openNode(t testing.TB, dir string) *node {
	t.Helper()
	m, err := Open(dir, Config{Supervisor: []string{"/proc/self/exe", superviseArg}})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Manager: m, t: t}
	t.Cleanup(n.end)
	return n
}

func newNode(t testing.TB) *node {
	t.Helper()
	return openNode(t, t.TempDir())
}

// end kills all workers and waits for them, so that nothing outlives the test; a closed manager is left alone.
func (n *node) end() {
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if closed {
		return
	}
	for _, st := range n.Workers() {
		if st.State != Exited {
			if err := n.Stop(st.Key, Stop{Reason: "the test is over"}); err != nil {
				n.t.Error(err)
			}
		}
	}
	for _, st := range n.Workers() {
		n.exit(st.Key)
		<-n.workers[st.Key].exited
	}
	if err := n.Close(); err != nil {
		n.t.Error(err)
	}
}

// await returns the status of key as soon as cond holds.
func (n *node) await(key Key, what string, cond func(Status) bool) Status {
	n.t.Helper()
	deadline := time.After(patience)
	for {
		var last Status
		for _, st := range n.Workers() {
			if st.Key != key {
				continue
			}
			if cond(st) {
				return st
			}
			last = st
		}
		select {
		case <-n.Changed():
		case <-deadline:
			n.t.Fatalf("worker %v: still not %s: %+v", key, what, last)
		}
	}
}

func (n *node) exit(key Key) Status {
	n.t.Helper()
	return n.await(key, "exited", func(st Status) bool { return st.State == Exited && st.Durable })
}

func (n *node) launch(spec Spec) Key {
	n.t.Helper()
	if err := n.Launch(spec); err != nil {
		n.t.Fatal(err)
	}
	return spec.Key
}

// sh is a worker of job 1 that runs a script; $1, $2... are args.
func sh(rank int, script string, args ...string) Spec {
	return Spec{
		Key:     Key{Job: 1, Epoch: 1, Rank: rank},
		Command: append([]string{"/bin/sh", "-c", script, "sh"}, args...),
	}
}

// log returns what a stream of an exited worker holds.
func (n *node) log(key Key, stream Stream) string {
	n.t.Helper()
	r, err := n.ReadLog(n.t.Context(), key, stream, 0, false)
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	var b strings.Builder
	if _, err := bufio.NewReader(r).WriteTo(&b); err != nil {
		n.t.Fatal(err)
	}
	return b.String()
}

// fifo is a named pipe between test and worker; the test's end never blocks for ever.
type fifo struct {
	*os.File
	path  string
	t     testing.TB
	lines *bufio.Reader
}

func newFIFO(t testing.TB, name string) *fifo {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &fifo{File: f, path: path, t: t, lines: bufio.NewReader(f)}
}

// line waits for the worker to write a line.
func (f *fifo) line() string {
	f.t.Helper()
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		f.t.Fatal(err)
	}
	s, err := f.lines.ReadString('\n')
	if err != nil {
		f.t.Fatalf("wait for the worker to write to %s: %v", f.path, err)
	}
	return strings.TrimSpace(s)
}

// say sends a line to the worker.
func (f *fifo) say(s string) {
	f.t.Helper()
	if _, err := f.WriteString(s + "\n"); err != nil {
		f.t.Fatal(err)
	}
}

// gone fails unless process pid ends in time. It polls: a stranger's end can be noticed in no other way.
func gone(t testing.TB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		p, err := readProcess(pid)
		if err != nil || p.dead() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still alive: %+v", pid, p)
		}
	}
}
