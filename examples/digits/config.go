package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/gangline/gangline/examples/digits/model"
)

// Limits of the flags. They keep a mistyped number from asking for all the memory of a machine.
const (
	maxEpochs = 1_000_000
	maxHidden = 1024
	maxSlices = 256
	maxKeep   = 1000
	maxDelay  = time.Minute
)

// config is what the flags say.
type config struct {
	epochs, batch, hidden, slices int
	seed                          uint64
	rate, momentum                float64
	checkpointEvery, keep         int
	async                         bool // -checkpoint-async
	stepDelay                     time.Duration
	dir, listen                   string
}

// parseFlags reads the command line. A flag.ErrHelp means that help was asked for and printed to out.
func parseFlags(args []string, out io.Writer) (config, error) {
	var c config
	f := flag.NewFlagSet("digits", flag.ContinueOnError)
	f.SetOutput(out)
	f.IntVar(&c.epochs, "epochs", 60, "passes over the training data")
	f.IntVar(&c.batch, "batch", 64, "samples of a step, over all workers together")
	f.IntVar(&c.hidden, "hidden", 64, "units of the hidden layer")
	f.IntVar(&c.slices, "slices", 8, "parts of a batch whose gradients are added in a fixed order; more workers than this get no work")
	f.Uint64Var(&c.seed, "seed", 1, "seed of the first weights and of the order of the samples")
	f.Float64Var(&c.rate, "lr", 0.1, "learning rate")
	f.Float64Var(&c.momentum, "momentum", 0.9, "share of the last step's direction that is kept, 0 to below 1")
	f.IntVar(&c.checkpointEvery, "checkpoint-every", 0, "steps between two checkpoints; 0: what the job says, or 50")
	f.BoolVar(&c.async, "checkpoint-async", false, "save while the training goes on: a checkpoint holds it up for one copy in memory")
	f.IntVar(&c.keep, "checkpoint-keep", 0, "checkpoints to keep; 0: what the job says, or 3")
	f.DurationVar(&c.stepDelay, "step-delay", 0, "pause after each step: only slows the training down, so that a person can watch it")
	f.StringVar(&c.dir, "dir", "", "checkpoint directory when run outside Gangline; empty: no checkpoints")
	f.StringVar(&c.listen, "listen", ":0", "address at which the previous rank of the ring connects; no host: all of the node's")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("%q is not a flag: see digits -help", f.Arg(0))
	}
	return c, c.validate()
}

// validate returns all problems at once.
func (c config) validate() error {
	var problems []error
	in := func(name string, got, low, high int) {
		if got < low || got > high {
			problems = append(problems, fmt.Errorf("-%s is %d, must be %d..%d", name, got, low, high))
		}
	}
	in("epochs", c.epochs, 1, maxEpochs)
	in("batch", c.batch, 1, maxEpochs)
	in("hidden", c.hidden, 1, maxHidden)
	in("slices", c.slices, 1, maxSlices)
	in("checkpoint-every", c.checkpointEvery, 0, maxEpochs)
	in("checkpoint-keep", c.keep, 0, maxKeep)
	if !(c.rate > 0 && c.rate <= 100) {
		problems = append(problems, fmt.Errorf("-lr is %v, must be above 0 and at most 100", c.rate))
	}
	if !(c.momentum >= 0 && c.momentum < 1) {
		problems = append(problems, fmt.Errorf("-momentum is %v, must be at least 0 and below 1", c.momentum))
	}
	if c.stepDelay < 0 || c.stepDelay > maxDelay {
		problems = append(problems, fmt.Errorf("-step-delay is %v, must be 0s..%v", c.stepDelay, maxDelay))
	}
	return errors.Join(problems...)
}

// plan says which samples each step uses.
func (c config) plan(samples int) model.Plan {
	return model.Plan{Samples: samples, Batch: min(c.batch, samples), Slices: c.slices, Seed: c.seed}
}

// recipe is what decides on the model, but for how long it trains. A checkpoint of another recipe is another training.
func (c config) recipe() string {
	return fmt.Sprintf("hidden=%d batch=%d slices=%d seed=%d lr=%v momentum=%v", c.hidden, c.batch, c.slices, c.seed, c.rate, c.momentum)
}
