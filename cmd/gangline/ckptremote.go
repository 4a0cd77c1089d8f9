package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
)

// remoteHelp is what push and pull have to say of object stores.
const remoteHelp = `
The server is --endpoint, or AWS_ENDPOINT_URL, or Amazon's. Keys come from
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from ~/.aws/credentials, or from the
machine's role; the region from AWS_REGION. The bucket must be there.`

func (a *app) ckptPush(t *ckptTarget) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "push [CHECKPOINT...] --to s3://BUCKET/PREFIX", Short: "Copy checkpoints to an object store, verified on the way", Args: cobra.ArbitraryArgs,
		Long: `Copy complete checkpoints to an object store, verified on the way. Without a name:
the latest. One that is there already is left as it is; one that was cut short
leaves nothing that a pull sees. What it refers to of earlier checkpoints goes with
it, once for all that refer to it.
` + remoteHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			b, err := remote.OpenS3(to, t.endpoint)
			if err != nil {
				return usage("--to: %w", err)
			}
			d, refs, err := a.openPicked(ctx, t, args, false)
			if err != nil {
				return err
			}
			for _, ref := range refs {
				if err := a.pushOne(ctx, d, b, ref, to); err != nil {
					return err
				}
				a.statef("%s is in %s", ref, to)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "bucket and prefix, such as s3://checkpoints/cluster-a")
	return cmd
}

func (a *app) pushOne(ctx context.Context, d *ckptDir, b remote.Bucket, ref checkpoint.Ref, to string) error {
	m, done, err := a.reading(ctx, d, ref)
	if err != nil {
		return err
	}
	defer done()
	err = a.watch(d, "push", m.ReadBytes(), func() error { return remote.Push(ctx, b, d.store, m) })
	if err != nil {
		return err
	}
	if d.bucket != nil {
		return nil // one bucket's copy of another's has nobody to note it for
	}
	if err := remote.Mark(d.path, ref, fmt.Sprintf("%s/%s/%s", strings.TrimSuffix(to, "/"), m.Job, ref)); err != nil {
		a.statef("(ls will not show the copy: %v)", err)
	}
	return nil
}

func (a *app) ckptPull(t *ckptTarget) *cobra.Command {
	var from string
	var list bool
	cmd := &cobra.Command{
		Use: "pull [CHECKPOINT] --from s3://BUCKET/PREFIX", Short: "Bring a checkpoint back from an object store, verified", Args: cobra.MaximumNArgs(1),
		Long: `Bring a checkpoint of the job back from an object store into its directory, which is
made if it is not there, every chunk verified. Without a name: the latest there.
Prints its path. With --list: print the names of those that are there.
` + remoteHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			b, err := remote.OpenS3(from, t.endpoint)
			if err != nil {
				return usage("--from: %w", err)
			}
			if err := t.notInBucket("pull"); err != nil {
				return err
			}
			if t.dir != "" {
				if err := os.MkdirAll(t.dir, 0o755); err != nil { //nolint:gosec // as agents make it
					return err
				}
			}
			d, err := a.openCheckpoints(ctx, t)
			if err != nil {
				return err
			}
			refs, err := remote.List(ctx, b, d.job)
			if err != nil {
				return err
			}
			if list {
				return a.printRefs(refs)
			}
			ref, err := pickRemote(refs, args, from, d.job)
			if err != nil {
				return err
			}
			var m checkpoint.Manifest
			err = a.watch(d, "pull", 0, func() (err error) {
				m, err = remote.Pull(ctx, b, d.store, d.job, ref)
				return err
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, d.path+"/"+m.Dir)
			return err
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "bucket and prefix, such as s3://checkpoints/cluster-a")
	cmd.Flags().BoolVar(&list, "list", false, "print what is there, and bring nothing")
	return cmd
}

func (a *app) printRefs(refs []checkpoint.Ref) error {
	for _, r := range refs {
		if a.json {
			if err := json.NewEncoder(a.out).Encode(map[string]any{"name": r.String(), "step": r.Step, "epoch": r.Epoch}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(a.out, r)
	}
	return nil
}

// pickRemote finds the one that a person names among those in the bucket.
func pickRemote(refs []checkpoint.Ref, args []string, from, job string) (checkpoint.Ref, error) {
	if len(refs) == 0 {
		return checkpoint.Ref{}, &exitError{exitNotFound, fmt.Errorf("%s holds no complete checkpoint of %s", from, job)}
	}
	if len(args) == 0 || args[0] == "latest" {
		return refs[0], nil
	}
	want, err := checkpoint.ParseRef(args[0])
	step, serr := strconv.ParseUint(args[0], 10, 64)
	for _, r := range refs {
		if err == nil && r == want || serr == nil && r.Step == step {
			return r, nil
		}
	}
	return want, &exitError{exitNotFound, fmt.Errorf("%s holds no complete checkpoint %s of %s: the newest is %s", from, args[0], job, refs[0])}
}

// openCopies opens a job's copies in an object store, which s3://BUCKET/PREFIX/JOB names.
func openCopies(ctx context.Context, t *ckptTarget, address string) (*ckptDir, error) {
	address = strings.TrimRight(address, "/")
	at := strings.LastIndexByte(address, '/')
	prefix, job := address[:at], address[at+1:]
	if !strings.HasPrefix(prefix, "s3://") || len(prefix) == len("s3://") {
		return nil, usage("--dir: %q is not like s3://BUCKET/PREFIX/JOB, such as s3://checkpoints/cluster-a/job-17", address)
	}
	b, err := remote.OpenS3(prefix, t.endpoint)
	if err != nil {
		return nil, usage("--dir: %w", err)
	}
	dir, err := remote.View(ctx, b, job)
	if err != nil {
		return nil, err
	}
	d := &ckptDir{path: address, job: job, bucket: b}
	return d, d.open(ctx, t, dir)
}

// notInBucket refuses a verb that writes what only a directory can take.
func (t *ckptTarget) notInBucket(verb string) error {
	if strings.HasPrefix(t.dir, "s3://") {
		return usage("--dir: %s needs a directory; copies get into an object store by push", verb)
	}
	return nil
}

// removeCopy removes a copy as rm removes a checkpoint.
func (d *ckptDir) removeCopy(ctx context.Context, ref checkpoint.Ref, force bool) error {
	refs, err := remote.List(ctx, d.bucket, d.job)
	if err != nil {
		return err
	}
	if !force && len(refs) > 0 && refs[0] == ref {
		return fmt.Errorf("remove %s of %s: %w", ref, d.path, checkpoint.ErrNewest)
	}
	return remote.Remove(ctx, d.bucket, d.job, ref, force)
}
