package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

const (
	// partsWithin bounds how long a commit waits for the parts of other nodes: their agents sum what may be large.
	partsWithin = 10 * time.Minute
	// refusedWithin is how long a refusal of another node may last until it is an answer: its program may be about to rename its directory.
	refusedWithin = 5 * time.Second
	partsPoll     = 200 * time.Millisecond
)

// writesParts says whether the ranks of this job write files on the disks of several nodes, and from is one of this node's.
func writesParts(env *workerclient.Environment, from string) bool {
	return env.NumNodes > 1 && env.CheckpointFiles != env.CheckpointDir && liesIn(from, env.CheckpointFiles)
}

// commitPart makes this node's part of a checkpoint, and waits until the parts of all nodes are there and agree. The agents bring them to the shared storage and tell the scheduler.
func (a *app) commitPart(ctx context.Context, t *ckptTarget, env *workerclient.Environment, from string, r checkpoint.FilesCommit) error {
	shared, err := a.openCheckpoints(ctx, &ckptTarget{dir: env.CheckpointDir, key: t.key, keyed: t.keyed})
	if err != nil {
		return err
	}
	near, err := a.openCheckpoints(ctx, &ckptTarget{dir: env.CheckpointFiles})
	if err != nil {
		return err
	}
	if r.From, err = near.inside(from); err != nil {
		return err
	}
	r.Epoch = env.Epoch
	if err := shared.store.Fence(ctx, r.Epoch); err != nil {
		return err
	}
	bytes := checkpoint.TreeBytes(filepath.Join(near.path, r.From))
	if err := a.admitted(ctx, int64(r.Step), bytes); err != nil { //nolint:gosec // came from an int64
		return err
	}
	node, err := os.Hostname()
	if err != nil {
		node = fmt.Sprintf("number %d", env.NodeRank)
	}
	var p checkpoint.FilesPart
	err = a.watch(near, "commit", bytes, func() (err error) {
		p, err = shared.store.CommitPart(ctx, near.store, checkpoint.PartCommit{FilesCommit: r, Index: env.NodeRank, Count: env.NumNodes, Node: node, Asked: true})
		return err
	})
	if err != nil {
		return err
	}
	ref := checkpoint.Ref{Epoch: r.Epoch, Step: r.Step}
	m, err := joinParts(ctx, shared.store, ref)
	if err != nil {
		return err
	}
	path := filepath.Join(shared.path, ref.String())
	if a.json {
		return json.NewEncoder(a.out).Encode(map[string]any{
			"path": path, "step": m.Step, "epoch": m.Epoch, "bytes": m.Bytes(), "files": len(m.Files), "own_bytes": p.Bytes(), "own_files": len(p.Files), "local": m.Local,
		})
	}
	_, err = fmt.Fprintln(a.out, path)
	return err
}

// joinParts waits for the other nodes' parts, and joins them.
func joinParts(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref) (checkpoint.Manifest, error) {
	within, cancel := context.WithTimeout(ctx, partsWithin)
	defer cancel()
	var refused time.Time
	for {
		m, err := store.JoinParts(within, ref)
		if !errors.Is(err, checkpoint.ErrIncomplete) {
			return m, err
		}
		parts, lerr := store.LookAtParts(within, ref)
		switch {
		case lerr != nil && within.Err() == nil:
			return m, lerr
		case len(parts.Refused) == 0 || len(parts.Missing()) == 0:
			refused = time.Time{}
		case refused.IsZero():
			refused = time.Now()
		}
		if !refused.IsZero() && time.Since(refused) > refusedWithin {
			return m, err
		}
		select {
		case <-time.After(partsPoll):
		case <-within.Done():
			if ctx.Err() != nil {
				return m, ctx.Err()
			}
			return m, fmt.Errorf("%w: waited %v: it becomes a checkpoint once all agents have their parts; is each node's agent alive?", err, partsWithin)
		}
	}
}

// admitted asks the agent whether there is room for a checkpoint. An agent that is away refuses nothing.
func (a *app) admitted(ctx context.Context, step, bytes int64) error {
	err := a.withAgent(ctx, func(ctx context.Context, c *workerclient.Client) error { return c.AdmitCheckpoint(ctx, step, bytes) })
	var refused *workerclient.RefusedError
	if errors.As(err, &refused) {
		return &exitError{exitRefused, refused}
	}
	return nil
}
