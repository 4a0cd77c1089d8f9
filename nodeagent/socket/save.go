package socket

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/gangline/gangline/nodeagent/interval"
	"github.com/gangline/gangline/nodeagent/reconcile"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// SetPolicy says when a worker is to save. It may change while the worker runs.
func (s *Server) SetPolicy(key reconcile.Key, policy interval.Policy) {
	if e := s.find(key); e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.pace.SetPolicy(policy)
	}
}

// newPace gives the pace of a worker that is tracked from now on, or goes on from its notes.
func newPace(notes *agentv1.WorkerStatus, now time.Time) *interval.Pace {
	pace := interval.New(now)
	if ms := notes.GetSaveDueUnixMs(); ms > 0 {
		pace.Resume(time.UnixMilli(ms), notes.GetSaveDueStep(), now)
	}
	return pace
}

// SaveDue answers by the job's policy, and notes when it has told that a save is due, so that an agent's restart puts none off.
func (e *endpoint) SaveDue(_ context.Context, req *agentv1.SaveDueRequest) (*agentv1.SaveDueResponse, error) {
	step := req.GetStep()
	if step < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "save due: step %d is negative: count the steps done since the start of the job", step)
	}
	now := e.server.cfg.Clock()
	e.mu.Lock()
	a := e.pace.Due(step, now)
	if a.Due {
		e.notes.SaveDueUnixMs, e.notes.SaveDueStep = now.UnixMilli(), step
		e.dirty = true
	}
	news := a.Auto != "" && a.Auto != e.notes.GetCheckpointPace()
	if news {
		e.notes.CheckpointPace, e.dirty = a.Auto, true
	}
	e.mu.Unlock()
	if news {
		e.server.cfg.Changed()
	}
	return &agentv1.SaveDueResponse{
		Due: a.Due, WaitMs: ceilMillis(a.Wait), WaitStep: a.WaitStep, IntervalMs: ceilMillis(a.Interval), IntervalSteps: a.Steps, Reason: a.Reason,
	}, nil
}

// ceilMillis rounds up: what is waited for must have passed then.
func ceilMillis(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// Copied keeps where the newest copy of the job's checkpoints is. A worker that is not tracked, or has no checkpoint, is left out.
func (s *Server) Copied(key reconcile.Key, address string, step int64) {
	e := s.find(key)
	if e == nil {
		return
	}
	e.mu.Lock()
	c := e.notes.GetCheckpoint()
	if c != nil {
		c = proto.CloneOf(c)
		c.Remote, c.RemoteStep = address, step
		e.notes.Checkpoint, e.dirty = c, true
	}
	e.mu.Unlock()
	if c != nil {
		s.cfg.Changed()
	}
}

// Local keeps a checkpoint that is on nodes' own disks so far, as if the worker had told it, and gives what is kept; nil: the worker is not tracked.
func (s *Server) Local(key reconcile.Key, c *agentv1.Checkpoint) *agentv1.Checkpoint {
	if e := s.find(key); e != nil {
		return e.local(c)
	}
	return nil
}

// local keeps a checkpoint that is on nodes' own disks so far, and gives what is kept.
func (e *endpoint) local(c *agentv1.Checkpoint) *agentv1.Checkpoint {
	c = proto.CloneOf(c)
	e.mu.Lock()
	if old := e.notes.GetLocalCheckpoint(); old == nil || c.GetStep() > old.GetStep() {
		cost, took := e.pace.Saved(fromMillis(c.GetCostMs()), fromMillis(c.GetTookMs()), e.server.cfg.Clock())
		c.CostMs, c.TookMs = ceilMillis(cost), ceilMillis(took)
		e.stamp(c)
		e.notes.LocalCheckpoint, e.dirty = c, true
	}
	e.mu.Unlock()
	e.save(e.server.log, true)
	e.server.cfg.Changed()
	return proto.CloneOf(c)
}

// Lost keeps which step was lost before the worker's launch.
func (s *Server) Lost(key reconcile.Key, step int64) {
	if e := s.find(key); e != nil {
		e.mu.Lock()
		e.notes.LostStep, e.dirty = step, true
		e.mu.Unlock()
	}
}

// BeganOlder keeps that the worker's job begins from an older checkpoint than it has committed.
func (s *Server) BeganOlder(key reconcile.Key, o *agentv1.OlderStart) {
	if e := s.find(key); e != nil {
		e.mu.Lock()
		e.notes.OlderStart, e.dirty = proto.CloneOf(o), true
		e.mu.Unlock()
	}
}

// LocalCopied keeps that each shard of a local checkpoint has a copy on another node.
func (s *Server) LocalCopied(key reconcile.Key, step int64) {
	e := s.find(key)
	if e == nil {
		return
	}
	e.mu.Lock()
	c := e.notes.GetLocalCheckpoint()
	news := c != nil && c.GetStep() == step && !c.GetCopied()
	if news {
		c = proto.CloneOf(c)
		c.Copied = true
		e.notes.LocalCheckpoint, e.dirty = c, true
	}
	e.mu.Unlock()
	if news {
		s.cfg.Changed()
	}
}

// AdmitCheckpoint asks whether a checkpoint may be committed. Why not is kept for the leader, too.
func (e *endpoint) AdmitCheckpoint(ctx context.Context, req *agentv1.AdmitCheckpointRequest) (*agentv1.AdmitCheckpointResponse, error) {
	if req.GetBytes() < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "admit checkpoint: %d bytes is negative", req.GetBytes())
	}
	err := e.server.cfg.Admit(ctx, e.key, req.GetBytes())
	if err != nil {
		e.setProblem(fmt.Sprintf("step %d is not saved: %v", req.GetStep(), err))
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	e.setProblem("")
	return &agentv1.AdmitCheckpointResponse{}, nil
}

// SetProblem keeps why what a worker saved last is no checkpoint; "": nothing is wrong. A worker that is not tracked is left out.
func (s *Server) SetProblem(key reconcile.Key, text string) {
	if e := s.find(key); e != nil {
		e.setProblem(text)
	}
}

func (e *endpoint) setProblem(text string) {
	text = strings.ToValidUTF8(text[:min(len(text), maxText)], "")
	e.mu.Lock()
	news := e.notes.GetCheckpointProblem() != text
	e.notes.CheckpointProblem = text
	e.dirty = e.dirty || news
	e.mu.Unlock()
	if news {
		e.server.cfg.Changed()
	}
}
