package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/examples/digits/model"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// trainer is one rank's training. One goroutine uses it.
type trainer struct {
	cfg    config
	plan   model.Plan
	total  int // steps of the whole training
	data   *model.Dataset
	group  *ring
	saver  *saver  // nil: no checkpoints
	behind *behind // nil: nothing has been saved while training went on
	client *workerclient.Client
	stop   *stopper
	out    io.Writer
	diag   io.Writer

	// The state: all of it is in a checkpoint, and equal on all ranks after each step.
	net      *model.Network
	velocity []float32
	step     int     // steps done
	lossSum  float64 // of the samples that this data epoch has seen

	rallied    bool  // it has the state after step
	order      []int // of the samples in data epoch orderOf
	orderOf    int
	vector     []float32 // what the ring adds up each step
	startStep  int       // what this launch began with
	savedStep  int       // of the newest checkpoint
	started    time.Time
	lastMetric map[string]float64
}

func newTrainer(cfg config, data *model.Dataset, group *ring, saver *saver, client *workerclient.Client,
	stop *stopper, out, diag io.Writer,
) *trainer {
	plan := cfg.plan(len(data.Train))
	params := model.ParamCount(cfg.hidden)
	return &trainer{
		cfg: cfg, plan: plan, total: cfg.epochs * plan.StepsPerEpoch(),
		data: data, group: group, saver: saver, client: client, stop: stop, out: out, diag: diag,
		net: model.NewNetwork(cfg.hidden, cfg.seed), velocity: make([]float32, params),
		orderOf: -1, vector: make([]float32, cfg.slices*params+cfg.slices+numFlags),
		lastMetric: map[string]float64{},
	}
}

// train runs from the present step to the last, or until some rank is asked to stop.
func (t *trainer) train(ctx context.Context) error {
	t.begin()
	defer t.leaveBehind()
	for first := t.step; t.step < t.total; {
		told, err := t.doStep(ctx)
		if err != nil {
			return err
		}
		if t.step == first+1 && t.saver != nil && t.group.Rank() == 0 {
			t.collect(ctx) // the step's sum proves that every rank has read what it resumes from
		}
		if t.step%t.plan.StepsPerEpoch() == 0 {
			t.endDataEpoch()
		}
		last := t.step == t.total
		if told.save && t.cfg.async && !told.stop && !last {
			if err := t.saveBehind(ctx); err != nil {
				return err
			}
		} else if told.save || told.stop || last {
			t.settleBehind(ctx)
			saved, err := t.save(ctx)
			if err != nil {
				return err
			}
			if !saved && t.saver != nil && (told.stop || last) {
				return fmt.Errorf("the state after step %d is not saved: the newest checkpoint is of step %d", t.step, t.savedStep)
			}
		}
		t.report()
		if told.stop && !last {
			reason, mine := t.stop.why()
			if !mine {
				reason = "another rank was asked"
			}
			t.printf("stopped after step %d/%d (%s); newest checkpoint: step %d", t.step, t.total, reason, t.savedStep)
			return errStopped
		}
		if told.reform && !last {
			t.settleBehind(ctx) // in the next ring each rank saves another part
			return errReform
		}
		if !last {
			t.pause(ctx)
		}
	}
	t.finish()
	return nil
}

// Flags at the end of the vector that the ring adds up.
const (
	flagStop   = iota // some rank was asked to stop
	flagSave          // rank 0 says that a checkpoint of this step is due
	flagReform        // some rank has heard that the set of ranks has changed
	numFlags
)

// told is what the flags of a step say, the same on all ranks.
type told struct{ stop, save, reform bool }

// saveDue says whether a checkpoint is due after so many steps: by the flag, by the job's policy, or by our own default. Rank 0 asks.
func (t *trainer) saveDue(ctx context.Context, step int) bool {
	every := t.cfg.checkpointEvery
	if every == 0 {
		if due, known := t.client.SaveDue(ctx, int64(step)); known {
			return due && t.admitted(ctx, step)
		}
		every = defaultEvery
	}
	return step%every == 0 && t.admitted(ctx, step)
}

// admitted asks whether a checkpoint may be saved, by the limit of the job's user. One that is not is told of; training goes on.
func (t *trainer) admitted(ctx context.Context, step int) bool {
	const float32Bytes = 4
	err := t.client.AdmitCheckpoint(ctx, int64(step), float32Bytes*int64(len(t.net.Params)+len(t.velocity)))
	if err != nil {
		t.warnf("%v", err)
	}
	return err == nil
}

// doStep makes one step, and returns what ranks have told each other with it.
//
// The vector has a row for each slice of the batch, and each row is filled by exactly one rank; the others leave it
// zero. x + 0 is x, so the ring's sum is each row as its maker computed it, whatever the order of the ring's additions;
// then every rank adds the rows in the order of slices. So neither the number of ranks nor who did what changes a bit.
// The plain way, one row that the ring sums, is slices times less to send, but rounds differently for each world size.
func (t *trainer) doStep(ctx context.Context) (told, error) {
	size, slices := len(t.net.Params), t.plan.Slices
	rows, losses, flags := t.vector[:slices*size], t.vector[slices*size:slices*size+slices], t.vector[slices*(size+1):]
	clear(t.vector)
	if epoch := t.plan.Epoch(t.step); epoch != t.orderOf {
		t.order, t.orderOf = model.Order(t.plan.Seed, uint64(epoch), t.plan.Samples), epoch //nolint:gosec // not negative
	}
	batch := t.plan.Indices(t.step, t.order)
	lo, hi := checkpoint.ShareRange(int64(slices), t.group.Rank(), t.group.WorldSize())
	for s := int(lo); s < int(hi); s++ {
		row := rows[s*size : (s+1)*size]
		losses[s] = float32(t.net.AddGradient(t.data.Train, t.plan.Slice(batch, s), row))
	}
	if _, asked := t.stop.why(); asked {
		flags[flagStop] = 1
	}
	if t.group.Rank() == 0 && t.saveDue(ctx, t.step+1) {
		flags[flagSave] = 1
	}
	if t.client.Formation() > t.group.formation {
		flags[flagReform] = 1
	}
	if err := t.allReduce(ctx, t.vector); err != nil {
		return told{}, err
	}
	if err := t.net.Descend(rows, t.velocity, len(batch), float32(t.cfg.rate), float32(t.cfg.momentum)); err != nil {
		return told{}, err
	}
	for _, loss := range losses {
		t.lossSum += float64(loss)
	}
	if math.IsNaN(t.lossSum) || math.IsInf(t.lossSum, 0) {
		return told{}, fmt.Errorf("step %d: the loss is %v: the training has diverged, lower -lr", t.step+1, t.lossSum)
	}
	t.step++
	return told{stop: flags[flagStop] > 0, save: flags[flagSave] > 0, reform: flags[flagReform] > 0}, nil
}

// allReduce adds up a vector over all ranks, in bounded time.
func (t *trainer) allReduce(ctx context.Context, vector []float32) error {
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	return t.group.AllReduce(ctx, allreduce.Of(vector), allreduce.Sum)
}

// pause keeps the pace that -step-delay asks for; a wish to stop ends it.
func (t *trainer) pause(ctx context.Context) {
	if t.cfg.stepDelay == 0 {
		return
	}
	timer := time.NewTimer(t.cfg.stepDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.stop.asked:
	case <-ctx.Done():
	}
}

// begin prints and reports where this launch starts.
func (t *trainer) begin() {
	t.started = time.Now()
	t.printf("training: %d ranks, %d parameters, %d samples, %d held out, steps %d to %d",
		t.group.WorldSize(), len(t.net.Params), len(t.data.Train), len(t.data.Test), t.step, t.total)
	if t.group.WorldSize() > t.plan.Slices {
		t.printf("only %d of the %d ranks have work: raise -slices", t.plan.Slices, t.group.WorldSize())
	}
	t.evaluate()
	t.report()
}

// endDataEpoch prints a line of progress.
func (t *trainer) endDataEpoch() {
	loss := t.lossSum / float64(t.plan.Samples)
	t.lossSum = 0
	t.lastMetric["loss"] = loss
	accuracy := t.evaluate()
	t.printf("epoch %d/%d  step %d/%d  loss %.4f  test accuracy %.4f",
		t.step/t.plan.StepsPerEpoch(), t.cfg.epochs, t.step, t.total, loss, accuracy)
}

// finish prints and reports the result.
func (t *trainer) finish() {
	accuracy, hash := t.evaluate(), t.net.Hash()
	t.lastMetric["model_hash32"] = float64(uint32(hash)) //nolint:gosec // its last 32 bits: a float64 holds 53
	t.report()
	t.printf("trained: step %d/%d  test accuracy %.4f  model %016x", t.step, t.total, accuracy, hash)
}

// evaluate measures the accuracy on the held-out samples, on rank 0 only.
func (t *trainer) evaluate() float64 {
	if t.group.Rank() != 0 {
		return 0
	}
	accuracy := t.net.Accuracy(t.data.Test)
	t.lastMetric["test_accuracy"] = accuracy
	return accuracy
}

// report tells the agent how far the training is, from rank 0 only.
func (t *trainer) report() {
	if t.group.Rank() != 0 {
		return
	}
	done := t.step - t.startStep
	t.lastMetric["start_step"] = float64(t.startStep)
	t.lastMetric["steps_done"] = float64(done)
	t.lastMetric["checkpoint_step"] = float64(t.newestSaved())
	if seconds := time.Since(t.started).Seconds(); seconds > 0 {
		t.lastMetric["steps_per_s"] = float64(done) / seconds
	}
	t.client.ReportProgress(workerclient.Progress{
		Step: int64(t.step), TotalSteps: int64(t.total),
		DataEpoch: float64(t.step) / float64(t.plan.StepsPerEpoch()), Metrics: t.lastMetric,
	})
}

// printf prints a line for people, on rank 0 only.
func (t *trainer) printf(format string, args ...any) {
	if t.group.Rank() == 0 {
		fmt.Fprintf(t.out, format+"\n", args...)
	}
}

// warnf prints a line about what went wrong, on any rank.
func (t *trainer) warnf(format string, args ...any) {
	fmt.Fprintf(t.diag, "digits: "+format+"\n", args...)
}
