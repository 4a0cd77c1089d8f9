package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) checkpointCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "List, verify, compare, export and remove checkpoints; commit files from inside a job",
		Long: `Work with the checkpoints of one job. Which one: --dir names its directory; --job
names a job, and the cluster is asked where its checkpoints are; inside a job it
is the job's own. The directory must be reachable from this machine. Copies in an
object store are a directory too, s3://BUCKET/PREFIX/JOB: see push --help for its
server and keys.

A checkpoint is named by its step ("500"; of several epochs the newest), by its
full name ("step-0000000500.epoch-3"), or as "latest".

Reading tensors of an encrypted one (diff, export) needs its key: --key, or GANGLINE_CHECKPOINT_KEY
as in the job, says where it is: file:PATH, env:NAME or command:COMMAND. With --key all verbs
refuse what no holder of the key has written, such as "verify --all --key file:PATH".`,
	}
	onlyVerbs(cmd)
	t := &ckptTarget{}
	cmd.PersistentFlags().StringVar(&t.dir, "dir", "", "the job's checkpoint directory, or s3://BUCKET/PREFIX/JOB")
	cmd.PersistentFlags().StringVar(&t.endpoint, "endpoint", "", "URL of the S3 server (default: AWS_ENDPOINT_URL, else Amazon's)")
	cmd.PersistentFlags().StringVar(&t.job, "job", "", "the job's number: the cluster knows its directory")
	cmd.PersistentFlags().StringVar(&t.key, "key", "", "where the key of checkpoints is that are encrypted and authenticated: file:PATH, env:NAME or command:COMMAND")
	cmd.AddCommand(a.ckptList(t), a.ckptShow(t), a.ckptVerify(t), a.ckptDiff(t), a.ckptExport(t), a.ckptImport(t))
	cmd.AddCommand(a.ckptRemove(t), a.ckptCollect(t), a.ckptPin(t), a.ckptCommit(t), a.ckptPush(t), a.ckptPull(t), a.ckptInterval(), a.ckptUsage())
	hintAtPermission(cmd)
	return cmd
}

// hintAtPermission has the verbs say what to do where the storage refuses this user.
func hintAtPermission(cmd *cobra.Command) {
	for _, verb := range cmd.Commands() {
		run := verb.RunE
		verb.RunE = func(cmd *cobra.Command, args []string) error {
			err := run(cmd, args)
			if errors.Is(err, fs.ErrPermission) {
				err = fmt.Errorf("%w: run it as the user that the job runs as, or as one of its group to read", err)
			}
			return err
		}
	}
}

// ckptTarget says whose checkpoints are meant.
type ckptTarget struct {
	dir, job, key string
	endpoint      string // of the object store
	keyed         bool   // the verb reads or writes tensors' content, so it needs the key if there is one
}

// ckptDir is an opened directory of checkpoints.
type ckptDir struct {
	store *checkpoint.Store
	path  string
	job   string
	bar   *bar // counts what the store reads and writes; nil: nobody looks
	// bucket is the object store that holds it, as job's copies; nil: it is a directory.
	bucket remote.Bucket
}

// errNoDir tells how to name a directory.
var errNoDir = errors.New("whose checkpoints? Name a directory with --dir, or a job with --job")

// openCheckpoints finds and opens the directory that the flags, or the environment of a job, name.
func (a *app) openCheckpoints(ctx context.Context, t *ckptTarget) (*ckptDir, error) {
	path := t.dir
	switch {
	case t.dir != "" && t.job != "":
		return nil, usage("--dir and --job: give one of them")
	case t.job != "":
		var err error
		if path, err = a.jobsCheckpoints(ctx, t.job); err != nil {
			return nil, err
		}
	case t.dir == "":
		if path = os.Getenv("GANGLINE_CHECKPOINT_DIR"); path == "" {
			return nil, &exitError{exitUsage, errNoDir}
		}
	}
	if strings.HasPrefix(path, "s3://") {
		return openCopies(ctx, t, path)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		hint := ""
		if t.job != "" {
			hint = ": is the shared storage mounted on this machine?"
		}
		return nil, &exitError{exitNotFound, fmt.Errorf("%s is no directory%s", path, hint)}
	}
	dir, err := checkpoint.NewDir(path)
	if err != nil {
		return nil, err
	}
	job, err := checkpoint.JobOf(dir)
	if errors.Is(err, checkpoint.ErrNone) {
		job, err = filepath.Base(path), nil // as agents name a job's directory
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := &ckptDir{path: path, job: job}
	return d, d.open(ctx, t, dir)
}

// open opens the store.
func (d *ckptDir) open(ctx context.Context, t *ckptTarget, dir checkpoint.FS) error {
	cfg := checkpoint.Config{FS: dir, Job: d.job, Progress: d.progress}
	err := cfg.FromEnv(ctx, t.getenv)
	if err != nil {
		return usage("%w", err)
	}
	d.store, err = checkpoint.Open(cfg)
	return err
}

// getenv is the environment by which a directory is opened: with --key, and without keys where none is needed or asked for, so that nothing runs or fails for them.
func (t *ckptTarget) getenv(name string) string {
	switch {
	case !t.keyed && t.key == "" && (name == checkpoint.EnvKey || name == checkpoint.EnvOldKeys):
		return ""
	case name == checkpoint.EnvKey && t.key != "":
		return t.key
	}
	return os.Getenv(name)
}

// progress feeds the bar that is shown now.
func (d *ckptDir) progress(n int64) {
	if d.bar != nil {
		d.bar.add(n)
	}
}

// watch shows a bar while f runs.
func (a *app) watch(d *ckptDir, what string, total int64, f func() error) error {
	d.bar = a.startBar(what, total)
	defer func() { d.bar.end(); d.bar = nil }()
	return f()
}

// jobsCheckpoints asks the cluster where a job's checkpoints are.
func (a *app) jobsCheckpoints(ctx context.Context, job string) (string, error) {
	id, err := parseJobID(job)
	if err != nil {
		return "", err
	}
	var path string
	err = a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
		resp, err := c.GetJob(ctx, &schedulerv1.GetJobRequest{Id: id})
		path = resp.GetJob().GetCheckpoint().GetPath()
		return err
	})
	if err != nil {
		return "", err
	}
	if path == "" {
		return "", &exitError{exitNotFound, fmt.Errorf("job %d has reported no checkpoint, so the cluster does not know its directory: name it with --dir", id)}
	}
	return filepath.Dir(path), nil
}

// pick finds the complete checkpoint that a person names.
func (d *ckptDir) pick(ctx context.Context, name string) (checkpoint.Ref, error) {
	refs, err := d.store.List(ctx)
	if err != nil {
		return checkpoint.Ref{}, err
	}
	if len(refs) == 0 {
		return checkpoint.Ref{}, &exitError{exitNotFound, fmt.Errorf("%s holds no complete checkpoint", d.path)}
	}
	if name == "latest" {
		return refs[0], nil
	}
	want, err := checkpoint.ParseRef(filepath.Base(name))
	step, serr := strconv.ParseUint(name, 10, 64)
	if err != nil && serr != nil {
		return want, usage("%q names no checkpoint: give a step such as 500, a name such as %s, or latest", name, refs[0])
	}
	for _, r := range refs {
		if r == want || err != nil && r.Step == step {
			return r, nil
		}
	}
	return want, &exitError{exitNotFound, fmt.Errorf("%s holds no complete checkpoint %s: the newest is %s", d.path, name, refs[0])}
}

// readingFor is how long a lease of this command lasts; reading 10 TiB at 1 GB/s takes 3 hours.
const readingFor = 6 * time.Hour

func (d *ckptDir) lease(ctx context.Context, ref checkpoint.Ref) (release func() error, err error) {
	if d.bucket != nil {
		return remote.Lease(ctx, d.bucket, d.job, ref)
	}
	return d.store.Lease(ctx, ref, fmt.Sprintf("%s-%d", hostname(), os.Getpid()), time.Now().Add(readingFor))
}

// reading loads a checkpoint and keeps it from being removed until done is called. On storage that can only be read it goes
// on without.
func (a *app) reading(ctx context.Context, d *ckptDir, ref checkpoint.Ref) (m checkpoint.Manifest, done func(), err error) {
	release, err := d.lease(ctx, ref)
	if err != nil && errors.Is(err, checkpoint.ErrNone) {
		return m, nil, err
	}
	if err != nil {
		a.statef("(the checkpoint is not kept from being removed meanwhile: %v)", err)
		release = func() error { return nil }
	}
	done = func() {
		if err := release(); err != nil {
			a.statef("%v", err)
		}
	}
	if m, err = d.store.Load(ctx, ref); err != nil {
		done()
	}
	return m, done, err
}
