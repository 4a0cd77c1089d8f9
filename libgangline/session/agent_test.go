package session

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/socket"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// worker is a rank of a job: its session, and its node's agent socket.
type worker struct {
	Session
	agent   *socket.Server
	key     reconcile.Key
	changes chan struct{}
	address string // that it told last
}

// workers makes the ranks of a job, each with an agent of its own.
func workers(t *testing.T, world int, dir string) []*worker {
	t.Helper()
	var all []*worker
	for rank := range world {
		w := &worker{key: reconcile.Key{Job: 5, Epoch: 2, Rank: rank}, changes: make(chan struct{}, 100)}
		state := t.TempDir()
		path, err := socket.Path(state, w.key)
		if err != nil {
			t.Fatal(err)
		}
		w.agent = socket.New(socket.Config{Host: "127.0.0.1", Changed: func() { w.changes <- struct{}{} }})
		w.agent.Track(w.key, socket.Files{Socket: path, Notes: filepath.Join(state, "notes.json")})
		if err := w.agent.Serve(w.key); err != nil {
			t.Fatal(err)
		}
		w.Env = func() (workerclient.Environment, error) {
			return workerclient.Environment{JobID: 5, Epoch: 2, Rank: rank, WorldSize: world, NumNodes: 1, Socket: path, CheckpointDir: dir}, nil
		}
		t.Cleanup(func() {
			_ = w.CloseAgent()
			w.agent.Shutdown()
		})
		all = append(all, w)
	}
	return all
}

// introduce does what the leader does: it waits for all addresses and gives them to all.
func introduce(t *testing.T, all []*worker, formation int32) {
	t.Helper()
	var peers []string
	var ranks []int32
	for _, w := range all {
		for before := w.address; w.address == before; w.address = w.agent.Notes(w.key).GetRendezvousAddress() {
			select {
			case <-w.changes:
			case <-time.After(30 * time.Second):
				t.Errorf("rank %d told no address", w.key.Rank)
				return
			}
		}
		ranks = append(ranks, int32(w.key.Rank)) //nolint:gosec // small
		peers = append(peers, w.address)
	}
	for _, w := range all {
		w.agent.SetGang(w.key, socket.Gang{Formation: formation, Members: ranks, Peers: peers, Secret: []byte("a secret of thirty-two bytes ....")})
	}
}

// each runs a function for all ranks at once.
func each(t *testing.T, all []*worker, do func(*worker) error) {
	t.Helper()
	var wait sync.WaitGroup
	for _, w := range all {
		wait.Go(func() {
			if err := do(w); err != nil {
				t.Errorf("rank %d: %v", w.key.Rank, err)
			}
		})
	}
	wait.Wait()
}

// TestJobThroughItsAgents: ranks find each other, add up, save a checkpoint that the agent hears of, and report.
func TestJobThroughItsAgents(t *testing.T) {
	t.Parallel()
	all := workers(t, 3, t.TempDir())
	met := make(chan struct{})
	go func() {
		defer close(met)
		introduce(t, all, 1)
	}()
	each(t, all, func(w *worker) error {
		handle, err := w.Join(JoinRequest{DetectTimeout: time.Minute})
		if err != nil {
			return err
		}
		g, err := w.Group(handle)
		if err != nil {
			return err
		}
		v := []float64{float64(w.key.Rank), 1}
		if err := g.Run(Call{Kind: AllReduce, Data: allreduce.Of(v), Op: allreduce.Sum}); err != nil || v[0] != 3 || v[1] != 3 {
			t.Errorf("rank %d has the sums %v, %v", w.key.Rank, v, err)
		}
		if err := saveStep(w, g, 7); err != nil {
			return err
		}
		return w.CloseGroup(handle)
	})
	<-met
	goOnWithout(t, all)
	lead := all[0]
	if err := lead.ReportProgress(workerclient.Progress{Step: 9, TotalSteps: 10, Metrics: map[string]float64{"loss": 0.5}}); err != nil {
		t.Fatal(err)
	}
	if err := lead.ReportPeerLost(2, "it is gone"); err != nil {
		t.Fatal(err)
	}
	if err := lead.CloseAgent(); err != nil { // sends the last progress
		t.Fatal(err)
	}
	said := lead.agent.Notes(lead.key)
	if p := said.GetProgress(); p.GetStep() != 9 || p.GetMetrics()["loss"] != 0.5 {
		t.Errorf("the agent heard of %v", p)
	}
	if c := said.GetCheckpoint(); c.GetStep() != 7 || c.GetPath() == "" {
		t.Errorf("the agent heard of the checkpoint %v", c)
	}
	if said.GetPeerLost() != true {
		t.Errorf("the agent did not hear of the lost peer: %v", said)
	}
}

// goOnWithout lets rank 1 vanish; the others form a new group, in which rank 2 has its place.
func goOnWithout(t *testing.T, all []*worker) {
	t.Helper()
	left := []*worker{all[0], all[2]}
	met := make(chan struct{})
	go func() {
		defer close(met)
		introduce(t, left, 2)
	}()
	each(t, left, func(w *worker) error {
		handle, err := w.Join(JoinRequest{Formation: 2, DetectTimeout: time.Minute})
		if err != nil {
			return err
		}
		g, err := w.Group(handle)
		if err != nil {
			return err
		}
		if formation, members := g.Formation(); formation != 2 || !slices.Equal(members, []int{0, 2}) || g.WorldSize() != 2 || g.Rank() != w.key.Rank/2 {
			t.Errorf("rank %d has place %d of %d in formation %d of %v", w.key.Rank, g.Rank(), g.WorldSize(), formation, members)
		}
		return w.CloseGroup(handle)
	})
	<-met
}

// saveStep saves a vector of which each rank has a part, and reads it back.
func saveStep(w *worker, g *Group, step int64) error {
	handle, err := w.OpenCheckpoints(CheckpointsRequest{})
	if err != nil {
		return err
	}
	save, err := w.BeginSave(handle, step)
	if err != nil {
		return err
	}
	s, err := w.Save(save)
	if err != nil {
		return err
	}
	all := []float32{1, 2, 3, 4, 5}
	s.Add(checkpoint.Share("v", all, w.key.Rank, 3))
	if err := s.Write(); err != nil {
		return err
	}
	if err := g.Run(Call{Kind: Barrier}); err != nil {
		return err
	}
	if w.key.Rank == 0 {
		if err := s.Commit(); err != nil {
			return err
		}
	}
	if err := g.Run(Call{Kind: Barrier}); err != nil {
		return err
	}
	opened, err := w.OpenCheckpoint(handle, checkpoint.Ref{Epoch: 2, Step: uint64(step)})
	if err != nil {
		return err
	}
	c, err := w.Checkpoint(opened)
	if err != nil {
		return err
	}
	got := make([]byte, 20)
	if err := c.Read("v", nil, nil, got); err != nil {
		return err
	}
	if got[16] != 0 || got[19] != 0x40 { // 5 as a float32
		return fmt.Errorf("read back %x", got)
	}
	if err := w.CloseCheckpoint(opened); err != nil {
		return err
	}
	return w.CloseCheckpoints(handle)
}

// TestStopIsHeard: also by a rank whose peers never come.
func TestStopIsHeard(t *testing.T) {
	t.Parallel()
	w := workers(t, 2, "")[0]
	if stop, err := w.StopRequested(); err != nil || stop.Asked {
		t.Fatalf("asked before anybody asked: %+v, %v", stop, err)
	}
	joined := make(chan error, 1)
	go func() {
		_, err := w.Join(JoinRequest{})
		joined <- err
	}()
	<-w.changes // it has told its address
	now := time.Now()
	w.agent.SetStop(w.key, socket.Stop{Reason: "the node is drained", Terminate: now.Add(time.Minute), Kill: now.Add(time.Hour)})
	if err := <-joined; err == nil {
		t.Fatal("joined without its peers")
	}
	stop, err := w.StopRequested()
	if err != nil || !stop.Asked || stop.Reason != "the node is drained" || time.Until(stop.Kill) < 50*time.Minute {
		t.Errorf("heard %+v, %v", stop, err)
	}
}
