package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// process is a server or an agent.
type process struct {
	name string
	addr string // servers: where the API is
	dir  string // its state
	args []string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// processes is the demo's cluster, all on loopback.
type processes struct {
	gangline string // the binary
	dir      string // everything lies below
	servers  []*process
	agents   []*process
}

// newProcesses plans a cluster below dir; nothing runs yet.
func newProcesses(gangline, dir string, servers, agents, gpus int) (*processes, error) {
	p := &processes{gangline: gangline, dir: dir}
	ports, err := freePorts(servers + agents)
	if err != nil {
		return nil, err
	}
	var peers, addrs []string
	for i := range servers {
		s := &process{name: string(rune('a' + i)), addr: fmt.Sprintf("127.0.0.1:%d", ports[i])}
		s.dir = filepath.Join(dir, "server-"+s.name)
		p.servers = append(p.servers, s)
		peers = append(peers, s.name+"="+s.addr)
		addrs = append(addrs, s.addr)
	}
	for _, s := range p.servers {
		s.args = []string{"server", "--id", s.name, "--listen", s.addr, "--peers", strings.Join(peers, ","), "--data-dir", s.dir, "--metrics-listen", ""}
	}
	for i := range agents {
		n := &process{name: fmt.Sprintf("node%d", i+1)}
		n.dir = filepath.Join(dir, n.name)
		n.args = []string{
			"agent", "--name", n.name, "--server", strings.Join(addrs, ","), "--state-dir", n.dir,
			"--listen", fmt.Sprintf("127.0.0.1:%d", ports[servers+i]), "--metrics-listen", "",
			"--gpus", fmt.Sprintf("fake:%dxH100", gpus), "--checkpoint-root", filepath.Join(dir, "shared", "checkpoints"),
		}
		p.agents = append(p.agents, n)
	}
	return p, os.MkdirAll(filepath.Join(dir, "shared", "checkpoints"), 0o755)
}

// freePorts finds ports that nobody uses now.
func freePorts(n int) ([]int, error) {
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close() // it only held the port
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port on loopback: %w", err)
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// start runs a process, its output appended to a file beside its state.
func (p *processes) start(pr *process) error {
	log, err := os.OpenFile(pr.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	pr.cmd = exec.Command(p.gangline, pr.args...)
	pr.cmd.Stdout, pr.cmd.Stderr = log, log
	pr.cmd.Env = outsideGangline()
	// A terminal's interrupt is the demo's to handle, and a demo that is
	// killed takes its servers and agents along.
	pr.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := pr.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", pr.name, err)
	}
	pr.done = make(chan struct{})
	go func() {
		_ = pr.cmd.Wait() // how it ended is in its log
		close(pr.done)
	}()
	return nil
}

// outsideGangline is the environment without what a person or a job has set for Gangline.
func outsideGangline() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GANGLINE_") })
}

// kill sends SIGKILL and waits for the end.
func (pr *process) kill() {
	_ = pr.cmd.Process.Kill() // it may have ended
	<-pr.done
}

// stop asks politely, then kills.
func (pr *process) stop(ctx context.Context) {
	if pr.cmd == nil || pr.cmd.Process == nil {
		return
	}
	_ = pr.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-pr.done:
	case <-ctx.Done():
		pr.kill()
	}
}

// ended reports whether the process is gone although nobody asked it to.
func (pr *process) ended() bool {
	select {
	case <-pr.done:
		return true
	default:
		return false
	}
}

// killNode kills a whole node: its agent, and every supervisor and worker that
// belongs to it, as a power cut would.
func (p *processes) killNode(n *process) error {
	n.kill()
	deadline := time.Now().Add(10 * time.Second)
	for {
		pids, err := processesOf(n.dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of %s do not die", pids, n.name)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processesOf returns the processes whose command line or environment names
// the directory: a node's agent, supervisors and workers.
func processesOf(dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil || pid == os.Getpid() {
			continue
		}
		if names(pid, dir) && !zombie(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func names(pid int, dir string) bool {
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err == nil && strings.Contains(string(b), dir+"/") {
			return true
		}
	}
	return false
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	return ok && strings.HasPrefix(rest, "Z")
}

// stopAll ends everything and removes the directory. Nothing is left behind.
func (p *processes) stopAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, pr := range append(slices.Clone(p.agents), p.servers...) {
		pr.stop(ctx)
	}
	var errs []error
	for _, n := range p.agents {
		if n.cmd != nil {
			errs = append(errs, p.killNode(n))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}
