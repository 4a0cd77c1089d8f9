package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// TestLeaderKill: kill -9 of the leader kills no worker, the next submit is
// accepted, and the killed server comes back as a follower.
func TestLeaderKill(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 3, agents: 2, gpus: 2})
	script, release := c.waiting("gang", "exit 0")
	id := c.submit("--gpus", "4", "--", "sh", "-c", script)
	workers := c.workers("gang", 1, 4)
	before := c.awaitState(id, "Running")

	leader := c.leader()
	leader.signal(t, syscall.SIGKILL)
	next := c.submit("--", "true")
	if next <= id {
		t.Errorf("the new leader gave number %d after %d", next, id)
	}
	if now := c.leader(); now == leader {
		t.Errorf("%s leads after its death", now.name)
	}
	c.awaitNodes(2)
	allAlive(t, "the leader's death", workers)
	c.start(leader)
	release.raise(t)
	after := c.awaitState(id, "Succeeded")
	if after.GetEpoch() != before.GetEpoch() || after.GetRequeues() != 0 {
		t.Errorf("the job was started again: epoch %d, %d restarts", after.GetEpoch(), after.GetRequeues())
	}
	c.awaitState(next, "Succeeded")
	poll(t, "the killed server follows", func() bool { return strings.Count(leader.log(), "msg=serves") == 2 })
}

// TestNoSubmitLostOrDoubled: clients submit with retries of the same request
// ids while leaders are killed; at the end each acknowledged job is there once
// and ran once.
func TestNoSubmitLostOrDoubled(t *testing.T) {
	t.Parallel()
	const clients, each, kills = 4, 12, 3
	c := newTestCluster(t, shape{servers: 3, agents: 1, gpus: 8})
	ran := filepath.Join(c.dir, "ran")
	if err := os.Mkdir(ran, 0o755); err != nil {
		t.Fatal(err)
	}
	acked := make([]map[string]uint64, clients)
	progress := make(chan struct{}, clients*each)
	var wg sync.WaitGroup
	for i := range clients {
		acked[i] = map[string]uint64{}
		wg.Go(func() {
			for k := range each {
				name := fmt.Sprintf("c%d-%d", i, k)
				acked[i][name] = c.submitUntilAccepted(name, fmt.Sprintf("echo $GANGLINE_JOB_ID >> %s/%s", ran, name))
				progress <- struct{}{}
			}
		})
	}
	for range kills {
		for range clients * each / (kills + 1) {
			<-progress
		}
		victim := c.leader()
		victim.signal(t, syscall.SIGKILL)
		c.start(victim)
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	byName := map[string]uint64{}
	for _, m := range acked {
		for name, id := range m {
			byName[name] = id
			c.awaitState(id, "Succeeded")
		}
	}
	list := decode[struct {
		Jobs []struct {
			ID   string
			Spec struct{ Name string }
		}
	}](t, c.must("jobs", "--all", "--json"))
	if len(list.Jobs) != clients*each || len(byName) != clients*each {
		t.Errorf("%d jobs in the cluster, %d acknowledged, want %d", len(list.Jobs), len(byName), clients*each)
	}
	for _, j := range list.Jobs {
		if want := fmt.Sprint(byName[j.Spec.Name]); j.ID != want {
			t.Errorf("job %s %q: acknowledged was %s", j.ID, j.Spec.Name, want)
		}
		b, err := os.ReadFile(filepath.Join(ran, j.Spec.Name))
		if err != nil || string(b) != j.ID+"\n" {
			t.Errorf("job %s %q ran as %q, %v: want exactly once", j.ID, j.Spec.Name, b, err)
		}
	}
}

// submitUntilAccepted is a client that retries with one request id. It goes
// away during its first try, so that this may or may not have made the job, and
// asks once more when it has the answer. It may run beside the test's own
// goroutine.
func (c *testCluster) submitUntilAccepted(name, script string) uint64 {
	a := c.client(3 * time.Second)
	req := &schedulerv1.SubmitJobRequest{
		RequestId: "request-" + name, User: "tester",
		Spec: &schedulerv1.JobSpec{Name: name, Gpus: 1, Command: []string{"sh", "-c", script}},
	}
	deadline := time.Now().Add(patience)
	var first uint64
	for try := 0; ; try++ {
		ctx, cancel := context.WithCancel(context.Background())
		if try == 0 {
			time.AfterFunc(5*time.Millisecond, cancel) // about when the entry is written
		}
		var id uint64
		err := a.call(ctx, func(ctx context.Context, s schedulerv1.SchedulerServiceClient) error {
			resp, err := s.SubmitJob(ctx, req)
			id = resp.GetJob().GetId()
			return err
		})
		cancel()
		code, words := exitCode(err)
		switch {
		case err == nil && first == 0:
			first = id
		case err == nil:
			if id != first {
				c.t.Errorf("submit %s: job %d, then job %d for one request id", name, first, id)
			}
			return first
		case code != exitUnavailable && code != exitInterrupted:
			c.t.Errorf("submit %s: code %d: %s: want only errors that say: try again", name, code, words)
			return 0
		case time.Now().After(deadline):
			c.t.Errorf("submit %s: not accepted within %s: %s", name, patience, words)
			return 0
		}
	}
}

// TestAgentRestart: restarting every agent, politely or not, kills no worker;
// the new agents report how they end.
func TestAgentRestart(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1, agents: 2, gpus: 3})
	good, releaseGood := c.waiting("good", "exit 0")
	bad, releaseBad := c.waiting("bad", "exit $((40 + RANK))")
	goodID := c.submit("--gpus", "4", "--gpus-per-node", "2", "--", "sh", "-c", good)
	badID := c.submit("--gpus", "1", "--", "sh", "-c", bad)
	workers := append(c.workers("good", 1, 4), c.workers("bad", 1, 1)...)
	c.awaitState(goodID, "Running")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, a := range c.agents {
			a.signal(t, sig)
		}
		allAlive(t, sig.String()+" of all agents", workers)
		for _, a := range c.agents {
			c.start(a)
		}
		for _, a := range c.agents {
			restarts := map[syscall.Signal]int{syscall.SIGTERM: 2, syscall.SIGKILL: 3}[sig]
			poll(t, a.name+" is connected again", func() bool { return strings.Count(a.log(), "connected to the leader") == restarts })
		}
		c.awaitNodes(2)
		allAlive(t, "the agents' return after "+sig.String(), workers)
	}
	releaseBad.raise(t)
	if j := c.awaitState(badID, "Failed"); j.GetWorkers()[0].GetExitCode() != 40 || j.GetEpoch() != 1 {
		t.Errorf("got %v, want exit code 40 in epoch 1", j)
	}
	releaseGood.raise(t)
	if j := c.awaitState(goodID, "Succeeded"); j.GetEpoch() != 1 || j.GetRequeues() != 0 {
		t.Errorf("the job was started again: %v", j)
	}
}

// TestCompletionWithoutServers: what ends while no server and no agent is up
// is reported when they return.
func TestCompletionWithoutServers(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 4})
	script, release := c.waiting("early", "exit 7")
	second, releaseSecond := c.waiting("late", "exit 0")
	early, late := c.submit("--", "sh", "-c", script), c.submit("--", "sh", "-c", second)
	workers := append(c.workers("early", 1, 1), c.workers("late", 1, 1)...)
	c.awaitState(early, "Running")
	c.awaitState(late, "Running")

	c.servers[0].signal(t, syscall.SIGKILL)
	release.raise(t) // the agent is up and can tell nobody
	poll(t, "the first worker has ended", func() bool { return !workers[0].alive() })
	c.agents[0].signal(t, syscall.SIGKILL)
	releaseSecond.raise(t) // only the supervisor is up
	poll(t, "the second worker has ended", func() bool { return !workers[1].alive() })
	c.start(c.servers[0])
	c.start(c.agents[0])
	if j := c.awaitState(early, "Failed"); j.GetWorkers()[0].GetExitCode() != 7 || j.GetEpoch() != 1 {
		t.Errorf("got %v, want exit code 7 in epoch 1", j)
	}
	if j := c.awaitState(late, "Succeeded"); j.GetEpoch() != 1 {
		t.Errorf("the job was started again: %v", j)
	}
}

// TestNodeLoss: the job of a lost node runs on elsewhere, and what still runs
// on the node is stopped when its agent comes back.
func TestNodeLoss(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1, agents: 2, gpus: 1, serverArgs: []string{"--lease", "2s"}})
	script, release := c.waiting("lost", "exit 0")
	id := c.submit("--", "sh", "-c", script)
	stale := c.workers("lost", 1, 1)
	first := c.awaitState(id, "Running").GetWorkers()[0].GetNodeName()
	var node *testProc
	for _, a := range c.agents {
		if a.name == first {
			node = a
		}
	}
	node.signal(t, syscall.SIGKILL)
	moved := c.workers("lost", 2, 1)
	job := c.awaitState(id, "Running")
	if w := job.GetWorkers()[0]; w.GetNodeName() == first || job.GetEpoch() != 2 || job.GetRequeues() != 1 || job.GetFailures() != 0 {
		t.Fatalf("got %v, want epoch 2 on another node than %s, and no blame", job, first)
	}
	if n := c.nodes()[first]; n.GetState() != schedulerv1.NodeState_NODE_STATE_LOST {
		t.Errorf("node %s is %s", first, n.GetState())
	}
	if out := c.must("nodes"); !strings.Contains(out, "Lost") {
		t.Errorf("nodes does not show the loss:\n%s", out)
	}
	allAlive(t, "the loss of its agent", stale) // nobody could stop it
	c.start(node)
	poll(t, "the stale worker is stopped", func() bool { return !stale[0].alive() })
	c.awaitNodes(2)
	allAlive(t, "the end of the stale worker", moved)
	poll(t, "the node's GPU is free", func() bool { return c.nodes()[first].GetGpus()[0].GetJobId() == 0 })
	release.raise(t)
	if j := c.awaitState(id, "Succeeded"); j.GetEpoch() != 2 {
		t.Errorf("got %v, want the end of epoch 2", j)
	}
}
