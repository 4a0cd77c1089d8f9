package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

func (a *app) ckptCommit(t *ckptTarget) *cobra.Command {
	var step int64
	var metrics, meta map[string]string
	cmd := &cobra.Command{
		Use: "commit DIR --step N", Short: "Make a checkpoint of files that the job has written, in whatever format", Args: exactArgs(1, "the directory that holds the files"),
		Long: `Make a checkpoint of a directory of files, in whatever format the program writes.
DIR lies in the job's checkpoint directory, such as
$GANGLINE_CHECKPOINT_FILES_DIR/tmp-500; all its files are written and closed, by all
ranks. It is moved to its place, its files are made durable and summed, the commit
is one rename, and the scheduler learns of it: the next start finds its path in
GANGLINE_RESUME_FROM. Prints that path.

One process of the job calls it, or one of each node, after a barrier. Where the
job's nodes write on their own disks it waits until all nodes have their part of
the directory, which has the same name everywhere. After it was killed, or failed,
call it again with the same arguments. With checkpoint.keep of the job its agent then removes
older checkpoints. Outside of jobs, --dir names the directory.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if step < 0 || !cmd.Flags().Changed("step") {
				return usage("--step is needed: the training step that the files hold")
			}
			t.keyed = true                                                                                                  // what lists the files is authenticated, if the job has a key
			r := checkpoint.FilesCommit{Step: uint64(step), Meta: meta, SavedAt: time.Now(), Metrics: map[string]float64{}} //nolint:gosec // not negative
			for name, s := range metrics {
				v, err := strconv.ParseFloat(s, 64)
				if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
					return usage("--metric %s=%s: not a number", name, s)
				}
				r.Metrics[name] = v
			}
			return a.commitFiles(cmd.Context(), t, args[0], r)
		},
	}
	cmd.Flags().Int64Var(&step, "step", 0, "the training step that the files hold")
	cmd.Flags().StringToStringVar(&metrics, "metric", nil, "a number to keep the best by, such as loss=0.31; may be repeated")
	cmd.Flags().StringToStringVar(&meta, "meta", nil, "words to keep with it; may be repeated")
	return cmd
}

func (a *app) commitFiles(ctx context.Context, t *ckptTarget, from string, r checkpoint.FilesCommit) error {
	env, err := workerclient.FromEnv()
	if err != nil {
		return usage("%w", err)
	}
	inJob := env.Socket != "" && t.dir == "" && t.job == ""
	if inJob && writesParts(&env, from) {
		return a.commitPart(ctx, t, &env, from, r)
	}
	if inJob && liesIn(from, env.CheckpointFiles) {
		t = &ckptTarget{dir: env.CheckpointFiles, key: t.key, keyed: t.keyed} // on the node's own disk
	}
	d, err := a.openCheckpoints(ctx, t)
	if err != nil {
		return err
	}
	if r.From, err = d.inside(from); err != nil {
		return err
	}
	if inJob {
		r.Epoch = env.Epoch
		err = d.store.Fence(ctx, r.Epoch)
	} else {
		r.Epoch, err = d.epochNow(ctx)
	}
	if err != nil {
		return err
	}
	bytes := checkpoint.TreeBytes(filepath.Join(d.path, r.From))
	if inJob {
		if err := a.admitted(ctx, int64(r.Step), bytes); err != nil { //nolint:gosec // came from an int64
			return err
		}
	}
	var m checkpoint.Manifest
	err = a.watch(d, "commit", bytes, func() (err error) {
		m, err = d.store.CommitFiles(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	path := filepath.Join(d.path, m.Dir)
	if inJob {
		a.afterCommit(ctx, d, &m)
	}
	if a.json {
		return json.NewEncoder(a.out).Encode(map[string]any{"path": path, "step": m.Step, "epoch": m.Epoch, "bytes": m.Bytes(), "files": len(m.Files)})
	}
	_, err = fmt.Fprintln(a.out, path)
	return err
}

// afterCommit tells the agent, which tells the scheduler and removes what need not stay. The checkpoint is safe whatever becomes of that.
func (a *app) afterCommit(ctx context.Context, d *ckptDir, m *checkpoint.Manifest) {
	err := a.withAgent(ctx, func(ctx context.Context, c *workerclient.Client) error {
		return c.ReportCheckpoint(ctx, workerclient.Checkpoint{Step: int64(m.Step), Path: filepath.Join(d.path, m.Dir), Bytes: m.Bytes()}) //nolint:gosec // came from an int64
	})
	if err != nil {
		fmt.Fprintf(a.err, "gangline: the checkpoint is committed, but the agent does not know: %v\n", err)
	}
}

// liesIn says whether a path is of something directly in a directory.
func liesIn(path, dir string) bool {
	abs, err := filepath.Abs(path)
	if err != nil || dir == "" {
		return false
	}
	here, err1 := os.Stat(dir)
	there, err2 := os.Stat(filepath.Dir(abs))
	return err1 == nil && err2 == nil && os.SameFile(here, there)
}

// inside gives the name in the job's directory of a directory that a person names in any way.
func (d *ckptDir) inside(from string) (string, error) {
	abs, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	parent, base := filepath.Split(abs)
	// The two paths may lead there by different links.
	here, err1 := os.Stat(d.path)
	there, err2 := os.Stat(parent)
	if err := errors.Join(err1, err2); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err1 != nil || err2 != nil || !os.SameFile(here, there) {
		return "", usage("%s does not lie in the job's checkpoint directory %s: write there, so that a rename is all that a commit needs", from, d.path)
	}
	return base, nil
}
