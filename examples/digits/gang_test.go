package main

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/memlink"
	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/examples/digits/model"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// smallConfig trains for 5 data epochs of 15 steps; the last batch of each is smaller.
func smallConfig() config {
	return config{
		epochs: 5, batch: 100, hidden: 12, slices: 8, seed: 4, rate: 0.1, momentum: 0.9,
		checkpointEvery: 10, keep: 3,
	}
}

// output is what a gang printed. It is safe for concurrent use.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// gang is an in-process gang over memory links.
type gang struct {
	world int
	epoch uint64
	fs    func(rank int) checkpoint.FS // nil: no checkpoints
	known string                       // the checkpoint that the scheduler knows of
	stop  map[int]*stopper             // by rank; none: nobody asks
	out   output
	diag  output
}

// each runs one function per rank, each with a trainer of its own, and gives their errors.
func (g *gang) each(t *testing.T, cfg config, life func(context.Context, *trainer) error) []error {
	t.Helper()
	data, err := model.Parse(zippedDigits)
	if err != nil {
		t.Fatal(err)
	}
	links := make([]memlink.Ends, 1)
	if g.world > 1 {
		links = memlink.Ring(g.world)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	errs := make([]error, g.world)
	var wait sync.WaitGroup
	for rank := range g.world {
		wait.Go(func() { errs[rank] = g.one(ctx, rank, cfg, data, links[rank], life) })
	}
	wait.Wait()
	return errs
}

func (g *gang) one(ctx context.Context, rank int, cfg config, data *model.Dataset, ends memlink.Ends,
	life func(context.Context, *trainer) error,
) error {
	var next, prev allreduce.Link
	if ends.Next != nil {
		next, prev = ends.Next, ends.Prev
	}
	group, err := allreduce.New(allreduce.Config{Job: 1, Epoch: g.epoch, Rank: rank, WorldSize: g.world, DetectTimeout: 20 * time.Second}, next, prev)
	if err != nil {
		return err
	}
	defer group.Close()
	client, err := workerclient.New(workerclient.Environment{Rank: rank, WorldSize: g.world})
	if err != nil {
		return err
	}
	defer client.Close()
	var s *saver
	if g.fs != nil {
		s = &saver{path: "job", epoch: g.epoch, keep: cfg.keep, recipe: cfg.recipe()}
		if s.store, err = checkpoint.Open(checkpoint.Config{FS: g.fs(rank), Job: "job-1"}); err != nil {
			return err
		}
		if err := s.store.Fence(ctx, g.epoch); err != nil {
			return err
		}
	}
	stop := g.stop[rank]
	if stop == nil {
		stop = newStopper()
	}
	tr := newTrainer(cfg, data, &ring{Group: group, formation: 1}, s, client, stop, &g.out, &g.diag)
	if err := tr.resume(ctx, g.known); err != nil {
		return err
	}
	return life(ctx, tr)
}

// train trains to the end and gives the last line, which holds the model's hash. All ranks must have the same model.
func (g *gang) train(t *testing.T, cfg config) string {
	t.Helper()
	var mu sync.Mutex
	hashes := map[uint64]bool{}
	errs := g.each(t, cfg, func(ctx context.Context, tr *trainer) error {
		err := tr.train(ctx)
		mu.Lock()
		defer mu.Unlock()
		hashes[tr.net.Hash()] = true
		return err
	})
	for _, err := range errs {
		if err != nil && (g.stop == nil || !errors.Is(err, errStopped)) {
			t.Fatalf("%d ranks, epoch %d: %v\n%s", g.world, g.epoch, errors.Join(errs...), g.diag.String())
		}
	}
	if len(hashes) != 1 {
		t.Fatalf("the %d ranks have %d different models", g.world, len(hashes))
	}
	return lastLine([]byte(g.out.String()))
}

func shared(t *testing.T, path string) func(int) checkpoint.FS {
	t.Helper()
	dir, err := checkpoint.NewDir(path)
	if err != nil {
		t.Fatal(err)
	}
	return func(int) checkpoint.FS { return dir }
}
