package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
	"github.com/gangline/gangline/checkpoint/safetensors"
)

func (a *app) ckptImport(t *ckptTarget) *cobra.Command {
	var step uint64
	cmd := &cobra.Command{
		Use: "import FILE --step N", Short: "Make a checkpoint of a safetensors file, for a job to start from", Args: exactArgs(1, "one safetensors file"),
		Long: `Make a checkpoint of a safetensors file. It is of the job's newest epoch, so that the
job resumes from it unless that epoch has a later step; the directory is made if
it is not there. Compressed and encrypted as GANGLINE_CHECKPOINT_COMPRESS and --key,
or GANGLINE_CHECKPOINT_KEY, say.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			t.keyed = true
			ctx := cmd.Context()
			if err := t.notInBucket("import"); err != nil {
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
			data, unmap, err := mapFile(args[0])
			if err != nil {
				return err
			}
			defer unmap()
			epoch, err := d.epochNow(ctx)
			if err != nil {
				return err
			}
			var m checkpoint.Manifest
			err = a.watch(d, "import", int64(len(data)), func() (err error) {
				m, err = safetensors.Import(ctx, d.store, data, safetensors.ImportRequest{Epoch: epoch, Step: step, SavedAt: time.Now()})
				return err
			})
			if err != nil {
				return fmt.Errorf("import %s: %w", args[0], err)
			}
			_, err = fmt.Fprintln(a.out, d.path+"/"+m.Dir)
			return err
		},
	}
	cmd.Flags().Uint64Var(&step, "step", 0, "the training step that it holds")
	return cmd
}

// epochNow gives the epoch that has begun, and begins the first one where none has.
func (d *ckptDir) epochNow(ctx context.Context) (uint64, error) {
	epoch, err := d.store.Epoch(ctx)
	if err != nil || epoch > 0 {
		return epoch, err
	}
	return 1, d.store.Fence(ctx, 1)
}

func (a *app) ckptRemove(t *ckptTarget) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm CHECKPOINT...", Short: "Remove checkpoints", Args: cobra.MinimumNArgs(1),
		Long: `Remove complete checkpoints. The newest one and pinned ones are refused without
--force, and one that is being read, or to which another one refers, always.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			d, refs, err := a.openPicked(ctx, t, args, false)
			if err != nil {
				return err
			}
			for _, ref := range refs {
				err := d.remove(ctx, ref, force)
				if errors.Is(err, checkpoint.ErrInUse) || errors.Is(err, checkpoint.ErrNewest) {
					return &exitError{exitRefused, fmt.Errorf("%w (--force removes the newest and pinned ones)", err)}
				}
				if err != nil {
					return err
				}
				a.statef("%s removed", ref)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also the newest, or a pinned one")
	return cmd
}

func (d *ckptDir) remove(ctx context.Context, ref checkpoint.Ref, force bool) error {
	if d.bucket != nil {
		return d.removeCopy(ctx, ref, force)
	}
	return d.store.Remove(ctx, checkpoint.RemoveRequest{Ref: ref, Force: force, Now: time.Now()})
}

func (a *app) ckptCollect(t *ckptTarget) *cobra.Command {
	var r checkpoint.CollectRequest
	var best []string
	cmd := &cobra.Command{
		Use: "gc [JOB] --keep N", Short: "Remove all checkpoints but those to keep, and what half-written ones left", Args: cobra.MaximumNArgs(1),
		Long: `Remove complete checkpoints beyond the newest N, once one of those that stay has been
read and verified; and what half-written ones of epochs that are over left. What is
pinned or being read stays, also what one that stays refers to, and the newest that
verifies always does. Of copies in an object store (--dir s3://...) one counts as
good if its manifest is and all its files are there in full.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			d, err := a.openCheckpoints(ctx, t.orJob(args))
			if err != nil {
				return err
			}
			if r.Best, err = parseBest(best); err != nil {
				return err
			}
			if r.Keep < 1 {
				return usage("--keep: %d checkpoints, want at least 1", r.Keep)
			}
			r.Now = time.Now()
			var out checkpoint.Collected
			err = a.watch(d, "gc", 0, func() (err error) {
				out, err = d.collect(ctx, r)
				return err
			})
			return errors.Join(a.printCollected(out, r.DryRun), err)
		},
	}
	cmd.Flags().IntVar(&r.Keep, "keep", 3, "how many of the newest to keep")
	cmd.Flags().Uint64Var(&r.Every, "every", 0, "also keep those whose step is a multiple of this")
	cmd.Flags().StringSliceVar(&best, "best", nil, "also keep the best by a metric: loss:min, accuracy:max, or loss:min:3 for three")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "say which would go, and remove nothing")
	return cmd
}

func (d *ckptDir) collect(ctx context.Context, r checkpoint.CollectRequest) (out checkpoint.Collected, err error) {
	if d.bucket != nil {
		return remote.Collect(ctx, d.bucket, d.job, r, nil)
	}
	if r.Epoch, err = d.epochNow(ctx); err != nil {
		return out, err
	}
	return d.store.Collect(ctx, r)
}

// parseBest reads what --best names.
func parseBest(list []string) ([]checkpoint.Best, error) {
	var out []checkpoint.Best
	for _, s := range list {
		b, err := checkpoint.ParseBest(s)
		if err != nil {
			return nil, usage("--best: %w", err)
		}
		out = append(out, b)
	}
	return out, nil
}

func (a *app) printCollected(out checkpoint.Collected, dry bool) error {
	if a.json {
		kept := make([]string, 0, len(out.Kept))
		for _, r := range out.Kept {
			kept = append(kept, r.String())
		}
		bad := map[string]string{}
		for _, s := range out.Skipped {
			bad[s.Dir] = s.Err.Error()
		}
		return json.NewEncoder(a.out).Encode(map[string]any{"kept": kept, "removed": append([]string{}, out.Removed...), "damaged": bad, "dry_run": dry})
	}
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	for _, name := range out.Removed {
		fmt.Fprintf(a.out, "%s %s\n", verb, name)
	}
	for _, s := range out.Skipped {
		fmt.Fprintf(a.out, "damaged: %s: %v\n", s.Dir, s.Err)
	}
	_, err := fmt.Fprintf(a.out, "%s, %d stay\n", verb+" "+strconv.Itoa(len(out.Removed)), len(out.Kept))
	return err
}

func (a *app) ckptPin(t *ckptTarget) *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use: "pin CHECKPOINT...", Short: "Keep checkpoints from being removed, until --off", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			d, refs, err := a.openPicked(ctx, t, args, false)
			if err != nil {
				return err
			}
			change, words := d.pin, "is pinned"
			if off {
				change, words = d.unpin, "is pinned no more"
			}
			for _, ref := range refs {
				if err := change(ctx, ref); err != nil {
					return err
				}
				a.statef("%s %s", ref, words)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&off, "off", false, "take the pin away")
	return cmd
}

func (d *ckptDir) pin(ctx context.Context, ref checkpoint.Ref) error {
	if d.bucket != nil {
		return remote.Pin(ctx, d.bucket, d.job, ref)
	}
	return d.store.Pin(ctx, ref)
}

func (d *ckptDir) unpin(ctx context.Context, ref checkpoint.Ref) error {
	if d.bucket != nil {
		return remote.Unpin(ctx, d.bucket, d.job, ref)
	}
	return d.store.Unpin(ctx, ref)
}
