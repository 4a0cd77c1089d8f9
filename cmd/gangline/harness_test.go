package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// patience bounds every wait of these tests. It is long: a loaded machine is
// slow, and nobody waits for it when things work.
const patience = 40 * time.Second

// testProc is one server or agent, run by this test binary.
type testProc struct {
	name, addr, dir string // dir: its state; its output is in dir + ".log"
	args            []string
	cmd             *exec.Cmd
	done            chan struct{} // closed when it has ended
}

// shape is what a cluster is made of. The zero value has no process.
type shape struct {
	servers, agents int
	gpus            int      // emulated ones of each agent
	serverArgs      []string // more flags of the servers
	agentArgs       []string // and of the agents
	tls             tlsFlags // of every program, the client too
	local           bool     // agents keep checkpoints on a disk of their own first
}

// testCluster is servers and agents as real processes on loopback.
type testCluster struct {
	t               *testing.T
	shape           shape
	dir             string
	binary          string // a link to this test binary, named gangline
	servers, agents []*testProc
}

// newTestCluster starts servers s1.. and agents n1... When the test ends,
// nothing of it is left.
func newTestCluster(t *testing.T, sh shape) *testCluster {
	t.Helper()
	c := &testCluster{t: t, shape: sh, dir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.binary = filepath.Join(c.dir, "bin", "gangline")
	if err := os.MkdirAll(filepath.Dir(c.binary), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, c.binary); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	var peers []string
	for i := range sh.servers {
		name := fmt.Sprintf("s%d", i+1)
		s := &testProc{name: name, addr: freeAddress(t), dir: filepath.Join(c.dir, name)}
		c.servers = append(c.servers, s)
		peers = append(peers, s.name+"="+s.addr)
	}
	for _, s := range c.servers {
		s.args = slices.Concat([]string{
			"server", "--id", s.name, "--listen", s.addr, "--peers", strings.Join(peers, ","),
			"--data-dir", s.dir, "--metrics-listen", "",
		}, c.tlsArgs(), sh.serverArgs)
		c.start(s)
	}
	for i := range sh.agents {
		c.start(c.addAgent(fmt.Sprintf("n%d", i+1), sh.gpus))
	}
	if sh.servers > 0 {
		c.awaitNodes(sh.agents)
	}
	return c
}

// tlsArgs are the TLS flags of every program.
func (c *testCluster) tlsArgs() []string {
	f := c.shape.tls
	if f.ca == "" {
		return nil
	}
	return []string{"--tls-ca", f.ca, "--tls-cert", f.cert, "--tls-key", f.key}
}

// addAgent plans one more agent.
func (c *testCluster) addAgent(name string, gpus int) *testProc {
	a := &testProc{name: name, addr: freeAddress(c.t), dir: filepath.Join(c.dir, name)}
	a.args = append([]string{
		"agent", "--name", name, "--server", c.address(), "--state-dir", a.dir, "--listen", a.addr, "--metrics-listen", "",
		"--gpus", fmt.Sprintf("fake:%dxH100", gpus), "--checkpoint-root", filepath.Join(c.dir, "checkpoints"),
	}, c.tlsArgs()...)
	a.args = append(a.args, c.shape.agentArgs...)
	if c.shape.local {
		a.args = append(a.args, "--checkpoint-local", filepath.Join(c.dir, name+"-disk"))
	}
	c.agents = append(c.agents, a)
	return a
}

// address is the value of --server.
func (c *testCluster) address() string {
	var all []string
	for _, s := range c.servers {
		all = append(all, s.addr)
	}
	return strings.Join(all, ",")
}

// start runs a process, again perhaps.
func (c *testCluster) start(p *testProc) {
	c.t.Helper()
	log, err := os.OpenFile(p.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	p.cmd = exec.Command(c.binary, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(c.binary)+":"+os.Getenv("PATH"))
	// A test binary that dies takes its servers and agents along.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	p.done = make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
}

// signal sends a signal and waits for the end.
func (p *testProc) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	_ = p.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s does not end on %s; its log:\n%s", p.name, sig, p.log())
	}
}

// log is all that the process has said.
func (p *testProc) log() string {
	b, err := os.ReadFile(p.dir + ".log")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// end kills everything and shows the logs of a test that failed.
func (c *testCluster) end() {
	for _, p := range append(slices.Clone(c.agents), c.servers...) {
		if p.cmd != nil {
			_ = p.cmd.Process.Kill() // it may have ended
			<-p.done
		}
	}
	deadline := time.Now().Add(patience)
	for {
		pids := processesOf(c.dir)
		if len(pids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			c.t.Errorf("processes %v do not die", pids)
			break
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		time.Sleep(10 * time.Millisecond)
	}
	if c.t.Failed() {
		for _, p := range append(slices.Clone(c.servers), c.agents...) {
			text := p.log()
			c.t.Logf("log of %s (last part):\n%s", p.name, text[max(0, len(text)-6000):])
		}
	}
}

// poll waits until f is true.
func poll(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// result is how one command line ended.
type result struct {
	code     int
	out, err string
}

// cli runs one command line against the cluster, in this process.
func (c *testCluster) cli(args ...string) result {
	return runCLI(slices.Concat([]string{"--server", c.address()}, c.tlsArgs(), args)...)
}

// runCLI runs a command line by the program's own entry point.
func runCLI(args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errw bytes.Buffer
	code := execute(ctx, args, strings.NewReader(""), &out, &errw)
	return result{code, out.String(), errw.String()}
}

// must is cli for commands that have to work.
func (c *testCluster) must(args ...string) string {
	c.t.Helper()
	r := c.cli(args...)
	if r.code != 0 {
		c.t.Fatalf("gangline %q: exit code %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// submit submits and returns the job's number.
func (c *testCluster) submit(args ...string) uint64 {
	c.t.Helper()
	var id uint64
	if _, err := fmt.Sscan(c.must(append([]string{"submit", "--parsable"}, args...)...), &id); err != nil {
		c.t.Fatal(err)
	}
	return id
}

// client is for calls that the command line does not make.
func (c *testCluster) client(timeout time.Duration) *app {
	return &app{servers: strings.Split(c.address(), ","), timeout: timeout, tls: c.shape.tls}
}

// try makes one call, and reports false if no server could answer it.
func (c *testCluster) try(f func(context.Context, schedulerv1.SchedulerServiceClient) error) bool {
	c.t.Helper()
	err := c.client(5*time.Second).call(context.Background(), f)
	if code, words := exitCode(err); err != nil && code != exitUnavailable {
		c.t.Fatal(words)
	}
	return err == nil
}

// job reads one job.
func (c *testCluster) job(id uint64) *schedulerv1.Job {
	c.t.Helper()
	var job *schedulerv1.Job
	poll(c.t, fmt.Sprintf("job %d can be read", id), func() bool {
		return c.try(func(ctx context.Context, s schedulerv1.SchedulerServiceClient) error {
			resp, err := s.GetJob(ctx, &schedulerv1.GetJobRequest{Id: id})
			job = resp.GetJob()
			return err
		})
	})
	return job
}

// await waits until a job is as wanted, and fails early if it has ended otherwise.
func (c *testCluster) await(id uint64, what string, ok func(*schedulerv1.Job) bool) *schedulerv1.Job {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		job := c.job(id)
		if ok(job) {
			return job
		}
		if final(job.GetState()) || time.Now().After(deadline) {
			c.t.Fatalf("job %d is not %s: it is %s in epoch %d: %s", id, what, stateName(job.GetState()), job.GetEpoch(), job.GetReason())
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// awaitState waits for a state, by its name.
func (c *testCluster) awaitState(id uint64, state string) *schedulerv1.Job {
	c.t.Helper()
	return c.await(id, state, func(j *schedulerv1.Job) bool { return stateName(j.GetState()) == state })
}

// nodes reads all nodes by name.
func (c *testCluster) nodes() map[string]*schedulerv1.Node {
	c.t.Helper()
	out := map[string]*schedulerv1.Node{}
	c.try(func(ctx context.Context, s schedulerv1.SchedulerServiceClient) error {
		resp, err := s.ListNodes(ctx, &schedulerv1.ListNodesRequest{})
		for _, n := range resp.GetNodes() {
			out[n.GetName()] = n
		}
		return err
	})
	return out
}

// awaitNodes waits until so many nodes are ready.
func (c *testCluster) awaitNodes(want int) {
	c.t.Helper()
	poll(c.t, fmt.Sprintf("%d nodes are ready", want), func() bool {
		ready := 0
		for _, n := range c.nodes() {
			if n.GetState() == schedulerv1.NodeState_NODE_STATE_READY {
				ready++
			}
		}
		return ready == want
	})
}

// leader finds the server that leads.
func (c *testCluster) leader() *testProc {
	c.t.Helper()
	var found *testProc
	poll(c.t, "a server leads", func() bool {
		var id string
		c.try(func(ctx context.Context, s schedulerv1.SchedulerServiceClient) error {
			resp, err := s.GetCluster(ctx, &schedulerv1.GetClusterRequest{})
			id = resp.GetLeaderId()
			return err
		})
		for _, s := range c.servers {
			select {
			case <-s.done:
			default:
				if s.name == id {
					found = s
				}
			}
		}
		return found != nil
	})
	return found
}

// decode reads the JSON that a command printed.
func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}
