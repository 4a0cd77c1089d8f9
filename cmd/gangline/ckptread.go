package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/safetensors"
	"github.com/gangline/gangline/checkpoint/torchfile"
)

func (a *app) ckptVerify(t *ckptTarget) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "verify [CHECKPOINT...]", Short: "Read every byte of checkpoints and compare the checksums",
		Long: `Read every byte of checkpoints and compare the checksums. Without a name: the
latest. The exit code is 1 if one is damaged; all of them are looked at.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			d, refs, err := a.openPicked(ctx, t, args, all)
			if err != nil {
				return err
			}
			bad := 0
			for _, ref := range refs {
				ok, err := a.verifyOne(ctx, d, ref)
				if err != nil {
					return err
				}
				if !ok {
					bad++
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d of %s in %s can not be used", bad, plural(len(refs), "checkpoint"), d.path)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "verify all complete checkpoints")
	return cmd
}

// openPicked opens the directory and finds in it the checkpoints that are named.
func (a *app) openPicked(ctx context.Context, t *ckptTarget, names []string, all bool) (*ckptDir, []checkpoint.Ref, error) {
	d, err := a.openCheckpoints(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	refs, err := d.pickAll(ctx, names, all)
	return d, refs, err
}

// pickAll finds the checkpoints that are named: all, or the latest if no name is given.
func (d *ckptDir) pickAll(ctx context.Context, names []string, all bool) ([]checkpoint.Ref, error) {
	switch {
	case all && len(names) > 0:
		return nil, usage("--all: leave the names out")
	case all:
		refs, err := d.store.List(ctx)
		if err == nil && len(refs) == 0 {
			_, err = d.pick(ctx, "latest") // says that there is none
		}
		return refs, err
	case len(names) == 0:
		names = []string{"latest"}
	}
	var refs []checkpoint.Ref
	for _, name := range names {
		ref, err := d.pick(ctx, name)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// verifyOne says whether a checkpoint is good and prints it. An error means that it could not be looked at.
func (a *app) verifyOne(ctx context.Context, d *ckptDir, ref checkpoint.Ref) (bool, error) {
	start := time.Now()
	m, done, err := a.reading(ctx, d, ref)
	if err == nil {
		defer done()
		err = a.watch(d, ref.String(), m.ReadBytes(), func() error { return d.store.Verify(ctx, m) })
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	passed := time.Since(start).Seconds()
	if a.json {
		out := struct {
			Name     string  `json:"name"`
			Verified bool    `json:"verified"`
			Problem  string  `json:"problem,omitempty"`
			Bytes    int64   `json:"bytes"`
			Seconds  float64 `json:"seconds"`
		}{ref.String(), err == nil, "", m.ReadBytes(), passed}
		if err != nil {
			out.Problem = err.Error()
		}
		return err == nil, json.NewEncoder(a.out).Encode(out)
	}
	if err != nil {
		fmt.Fprintf(a.out, "%s: %v\n", ref, err)
		return false, nil
	}
	fmt.Fprintf(a.out, "%s: good, %s in %.1f s, %s/s\n", ref, checkpoint.BytesText(m.ReadBytes()), passed, checkpoint.BytesText(int64(float64(m.ReadBytes())/max(passed, 1e-9))))
	return true, nil
}

func (a *app) ckptDiff(t *ckptTarget) *cobra.Command {
	return &cobra.Command{
		Use: "diff CHECKPOINT CHECKPOINT", Short: "Say which tensors or files differ between two checkpoints, and by how much", Args: exactArgs(2, "two checkpoints"),
		Long: `Say which tensors or files differ between two checkpoints, and by how much. Tensors
are read and verified, whatever numbers of ranks wrote them. The exit code is 0
whether they differ or not.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			t.keyed = true
			ctx := cmd.Context()
			d, err := a.openCheckpoints(ctx, t)
			if err != nil {
				return err
			}
			var ms [2]checkpoint.Manifest
			for i, name := range args {
				ref, err := d.pick(ctx, name)
				if err != nil {
					return err
				}
				m, done, err := a.reading(ctx, d, ref)
				if err != nil {
					return err
				}
				defer done()
				ms[i] = m
			}
			var diffs []checkpoint.Difference
			var same int
			err = a.watch(d, "compare", ms[0].ReadBytes()+ms[1].ReadBytes(), func() (err error) {
				diffs, same, err = checkpoint.Compare(ctx, d.store, ms[0], ms[1])
				return err
			})
			if err != nil {
				return err
			}
			return a.printDiff(diffs, same)
		},
	}
}

func (a *app) printDiff(diffs []checkpoint.Difference, same int) error {
	rows := [][]string{{"NAME", "DIFFERENCE", "CHANGED", "LARGEST"}}
	for _, d := range diffs {
		changed, largest := "-", "-"
		if d.Kind == checkpoint.DiffContent {
			changed = fmt.Sprintf("%d of %d", d.Changed, d.Of)
			if d.MaxAbs != 0 {
				largest = fmt.Sprintf("%.4g", d.MaxAbs)
			}
		}
		if a.json {
			err := json.NewEncoder(a.out).Encode(map[string]any{
				"name": d.Name, "difference": d.Kind, "changed": d.Changed, "of": d.Of, "max_abs": fmt.Sprint(d.MaxAbs), // may be NaN
			})
			if err != nil {
				return err
			}
		}
		rows = append(rows, []string{printable(d.Name), string(d.Kind), changed, largest})
	}
	if a.json {
		return nil
	}
	if len(diffs) > 0 {
		if err := table(a.out, rows); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(a.out, "%d differ, %d are the same\n", len(diffs), same)
	return err
}

func (a *app) ckptExport(t *ckptTarget) *cobra.Command {
	var to, format string
	cmd := &cobra.Command{
		Use: "export [CHECKPOINT] --to PATH", Short: "Write a checkpoint's tensors to a safetensors or PyTorch file, or its files to a directory", Args: cobra.MaximumNArgs(1),
		Long: `Write a checkpoint for other programs, verified on the way: tensors to one file,
whatever number of ranks wrote them; a program's own files to a new directory. The
default is the latest. PATH must not exist.

The file is what torch.load reads (a dictionary of tensors by name) if PATH ends in
.pt or .pth, else safetensors; --format says otherwise.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			t.keyed = true
			ctx := cmd.Context()
			if to == "" {
				return usage("--to is needed: the file or directory to write")
			}
			export := safetensors.Export
			switch {
			case format == "torch" || format == "" && torchfile.Named(to):
				export = torchfile.Export
			case format != "" && format != "safetensors":
				return usage("--format %s: want safetensors or torch", format)
			}
			d, refs, err := a.openPicked(ctx, t, args, false)
			if err != nil {
				return err
			}
			m, done, err := a.reading(ctx, d, refs[0])
			if err != nil {
				return err
			}
			defer done()
			if _, err := os.Lstat(to); err == nil {
				return usage("--to: %s exists: remove it, or name another", to)
			}
			err = a.watch(d, "export", m.ReadBytes(), func() error {
				if m.WorldSize == 0 {
					return exportFiles(ctx, d, &m, to)
				}
				return exportTensors(ctx, d, m, to, export)
			})
			if err != nil {
				return fmt.Errorf("export %s to %s: %w", m.Ref(), to, err)
			}
			a.statef("%s: %s of %s", to, checkpoint.BytesText(m.ReadBytes()), m.Ref())
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "file (for tensors) or directory (for files) to write")
	cmd.Flags().StringVar(&format, "format", "", "of the file: safetensors or torch (default: by the name)")
	return cmd
}

// exportTensors writes a file of tensors, under another name until it is whole.
func exportTensors(ctx context.Context, d *ckptDir, m checkpoint.Manifest, to string, export func(context.Context, *checkpoint.Store, checkpoint.Manifest, io.Writer) error) error {
	return writeWhole(to, func(w io.Writer) error {
		buffered := bufio.NewWriterSize(w, 1<<20)
		if err := export(ctx, d.store, m, buffered); err != nil {
			return err
		}
		return buffered.Flush()
	})
}

// writeWhole writes a file so that it is there whole or not at all.
func writeWhole(path string, write func(io.Writer) error) error {
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) //nolint:gosec // the user's own file: the umask decides
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// exportFiles copies a program's files, each chunk verified, into a directory that has its name once it is whole.
func exportFiles(ctx context.Context, d *ckptDir, m *checkpoint.Manifest, to string) error {
	temp := strings.TrimSuffix(to, "/") + ".tmp"
	if err := os.Mkdir(temp, 0o777); err != nil { //nolint:gosec // the user's own directory: the umask decides
		return err
	}
	err := d.store.CopyFiles(ctx, *m, func(name string, read io.Reader) error {
		path := filepath.Join(temp, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil { //nolint:gosec // as above
			return err
		}
		return writeWhole(path, func(w io.Writer) error {
			_, err := io.Copy(w, read)
			return err
		})
	})
	if err == nil {
		err = os.Rename(temp, to)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return nil
}
