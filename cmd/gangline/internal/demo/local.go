package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// Local is a cluster of real processes on this machine, for others than the demo.
type Local struct {
	p     *processes
	API   schedulerv1.SchedulerServiceClient
	Dir   string // that all of it sees
	close func()
}

// StartLocal starts servers and agents with emulated GPUs and waits until all have joined. Close ends them; after an
// error nothing is left.
func StartLocal(ctx context.Context, gangline string, servers, nodes, gpus int) (*Local, error) {
	dir, err := os.MkdirTemp("", "gangline-local-")
	if err != nil {
		return nil, err
	}
	p, err := newProcesses(gangline, dir, servers, nodes, gpus)
	if err != nil {
		return nil, err
	}
	l := &Local{p: p, Dir: filepath.Join(dir, "shared"), close: func() {}}
	if err := l.begin(ctx, nodes); err != nil {
		return nil, fmt.Errorf("start a cluster on this machine: %w", errors.Join(err, l.Close()))
	}
	return l, nil
}

func (l *Local) begin(ctx context.Context, nodes int) error {
	for _, pr := range append(append([]*process{}, l.p.servers...), l.p.agents...) {
		if err := l.p.start(pr); err != nil {
			return err
		}
	}
	conn, err := dial(l.p.servers)
	if err != nil {
		return err
	}
	l.close = func() { _ = conn.Close() } // nothing is lost
	l.API = schedulerv1.NewSchedulerServiceClient(conn)
	return poll(ctx, 100*time.Millisecond, "all agents to join", func() (bool, error) {
		for _, pr := range append(append([]*process{}, l.p.servers...), l.p.agents...) {
			if pr.ended() {
				return false, fmt.Errorf("%s has ended:\n%s", pr.name, tail(pr.dir+".log"))
			}
		}
		callCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		resp, err := l.API.ListNodes(callCtx, &schedulerv1.ListNodesRequest{})
		ready := 0
		for _, n := range resp.GetNodes() {
			if n.GetState() == schedulerv1.NodeState_NODE_STATE_READY {
				ready++
			}
		}
		return err == nil && ready == nodes, nil
	})
}

// Close ends all processes and removes what they wrote.
func (l *Local) Close() error {
	l.close()
	return l.p.stopAll()
}
