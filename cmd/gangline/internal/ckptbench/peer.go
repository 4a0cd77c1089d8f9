package ckptbench

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
)

//go:embed peer.py
var peerScript string

// torch is PyTorch: one process with the whole state, and as many as ranks with a part each.
type torch struct {
	whole *proc
	parts *ranks
	dir   string
	noDCP error // why its distributed checkpoint is not measured; nil: it is
}

// torchOrder is one line to peer.py.
type torchOrder struct {
	Op      string `json:"op"`
	Bytes   int64  `json:"bytes,omitempty"`
	Threads int    `json:"threads,omitempty"`
	Path    string `json:"path,omitempty"`
}

// findPython gives a program that has PyTorch.
func findPython(ctx context.Context, named string) (string, error) {
	tries := []string{"python3", "/usr/bin/python3"}
	if named != "" {
		tries = []string{named}
	}
	var err error
	for _, p := range tries {
		out, e := exec.CommandContext(ctx, p, "-c", "import torch").CombinedOutput()
		if e == nil {
			return p, nil
		}
		err = fmt.Errorf("%s has no PyTorch (%w: %.200s): install it (on Debian: apt-get install python3-torch python3-numpy), or name a program with --python", p, e, out)
	}
	return "", err
}

func startTorch(ctx context.Context, cfg Config, dir string) (*torch, error) {
	python, err := findPython(ctx, cfg.Python)
	if err != nil {
		return nil, err
	}
	start := func() (*proc, error) { return startProc(exec.CommandContext(ctx, python, "-c", peerScript)) }
	t := &torch{dir: dir, parts: &ranks{}}
	if t.whole, err = start(); err != nil {
		return nil, err
	}
	_, err = t.whole.ask(torchOrder{Op: "start", Bytes: cfg.Bytes, Threads: runtime.NumCPU()})
	for range cfg.Ranks {
		if err != nil {
			break
		}
		var p *proc
		if p, err = start(); err == nil {
			t.parts.procs = append(t.parts.procs, p)
			_, err = p.ask(torchOrder{Op: "start", Bytes: cfg.Bytes / int64(cfg.Ranks), Threads: 1})
		}
	}
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	t.noDCP = t.dcp()
	return t, nil
}

// dcp has all processes look for the distributed checkpoint.
func (t *torch) dcp() error {
	_, err := t.whole.ask(torchOrder{Op: "dcp"})
	for _, p := range t.parts.procs {
		if err == nil {
			_, err = p.ask(torchOrder{Op: "dcp"})
		}
	}
	if err != nil {
		return fmt.Errorf("this PyTorch has no distributed checkpoint that works here: %w", err)
	}
	return nil
}

// measures says whether a peer is measured.
func (t *torch) measures(p *peer) bool { return t != nil && (!p.dcp || t.noDCP == nil) }

// path is where a peer's process i saves.
func (t *torch) path(p *peer, i int) string {
	kind := "torch"
	if p.dcp {
		kind = "dcp"
	}
	if p.ranks {
		return filepath.Join(t.dir, fmt.Sprintf("%s-%d.pt", kind, i))
	}
	return filepath.Join(t.dir, kind+".pt")
}

// timed gives a measurement of a peer: of the process with the whole state, or of those with a part each, at once: the slowest counts.
func (t *torch) timed(p *peer, op string) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		if !t.measures(p) {
			return 0, errSkip
		}
		if p.dcp {
			op = "dcp " + op
		}
		procs := []*proc{t.whole}
		if p.ranks {
			procs = t.parts.procs
		}
		longest, err := t.all(ctx, p, procs, op)
		if op == "dcp hot" && err == nil { // the last; room for the next
			_, err = t.all(ctx, p, procs, "drop")
		}
		return longest, err
	}
}

// all has processes do the same at once.
func (t *torch) all(ctx context.Context, p *peer, procs []*proc, op string) (float64, error) {
	type result struct {
		seconds float64
		err     error
	}
	results := make(chan result, len(procs))
	for i, proc := range procs {
		go func() {
			s, err := proc.ask(torchOrder{Op: op, Path: t.path(p, i)})
			results <- result{s, err}
		}()
	}
	longest := 0.0
	errs := []error{ctx.Err()}
	for range procs {
		r := <-results
		longest = max(longest, r.seconds)
		errs = append(errs, r.err)
	}
	return longest, errors.Join(errs...)
}

func (t *torch) close() error {
	if t == nil {
		return nil
	}
	return errors.Join(t.whole.close(), t.parts.close())
}
