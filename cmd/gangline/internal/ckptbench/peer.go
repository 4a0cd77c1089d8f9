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
	return t, nil
}

// timed gives a measurement of the process with the whole state.
func (t *torch) timed(op string) func(context.Context) (float64, error) {
	return func(context.Context) (float64, error) {
		if t == nil {
			return 0, errSkip
		}
		return t.whole.ask(torchOrder{Op: op, Path: filepath.Join(t.dir, "torch.pt")})
	}
}

// timedRanks gives a measurement of the processes with a part each, at once: the slowest counts.
func (t *torch) timedRanks(op string) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		if t == nil {
			return 0, errSkip
		}
		type result struct {
			seconds float64
			err     error
		}
		results := make(chan result, len(t.parts.procs))
		for i, p := range t.parts.procs {
			go func() {
				s, err := p.ask(torchOrder{Op: op, Path: filepath.Join(t.dir, fmt.Sprintf("torch-%d.pt", i))})
				results <- result{s, err}
			}()
		}
		longest := 0.0
		errs := []error{ctx.Err()}
		for range t.parts.procs {
			r := <-results
			longest = max(longest, r.seconds)
			errs = append(errs, r.err)
		}
		return longest, errors.Join(errs...)
	}
}

func (t *torch) close() error {
	if t == nil {
		return nil
	}
	return errors.Join(t.whole.close(), t.parts.close())
}
