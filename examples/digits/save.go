package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

const (
	defaultKeep  = 3
	defaultEvery = 50 // steps
)

// Names of what a checkpoint holds.
const (
	tensorParams   = "params"
	tensorVelocity = "velocity"
	metaRecipe     = "recipe"
	metaLossSum    = "epoch_loss_sum"
)

// saver is where checkpoints go.
type saver struct {
	store  *checkpoint.Store
	path   string
	epoch  uint64
	keep   int
	recipe string
	agent  bool // the agent removes old checkpoints, by the job's policy
	every  uint64
	best   []checkpoint.Best
}

// Answers of rank 0 to "what do we resume from?".
const (
	pastBroken = iota // 0, so that a rank 0 which says nothing cannot pass for a fresh start
	pastNone
	pastFound
)

// resume puts the trainer where the newest good checkpoint left it. Rank 0 chooses, the others are told, so that all
// agree even while a disk fails. known is the checkpoint that the scheduler knows of, or "".
func (t *trainer) resume(ctx context.Context, known string) error {
	if t.saver == nil {
		t.printf("no checkpoint directory: starting from nothing, and saving nothing")
		return nil
	}
	var m checkpoint.Manifest
	var mine error
	answer := pastBroken
	if t.group.Rank() == 0 {
		m, answer, mine = t.choosePast(ctx, known)
	}
	ref, answer, err := t.shareRef(ctx, m.Ref(), answer)
	switch {
	case err != nil || mine != nil:
		return errors.Join(mine, err)
	case answer == pastNone:
		t.printf("no checkpoint in %s: starting from nothing", t.saver.path)
		return nil
	case answer != pastFound:
		return errors.New("rank 0 can not tell what to resume from: its own message says why")
	}
	if t.group.Rank() != 0 {
		if m, err = t.saver.store.Load(ctx, ref); err != nil {
			return fmt.Errorf("load checkpoint %s from %s: %w", ref, t.saver.path, err)
		}
	}
	if err := t.restore(ctx, m); err != nil {
		return fmt.Errorf("resume from checkpoint %s in %s: %w", ref, t.saver.path, err)
	}
	t.printf("resumed from step %d: checkpoint %s, written by %d ranks", t.step, ref, m.WorldSize)
	return nil
}

// choosePast looks for the newest checkpoint that verifies.
func (t *trainer) choosePast(ctx context.Context, known string) (checkpoint.Manifest, int, error) {
	m, skipped, err := t.saver.store.Latest(ctx)
	for _, s := range skipped {
		t.warnf("checkpoint %s is damaged, taking an older one: %v", s.Ref, s.Err)
	}
	switch {
	case errors.Is(err, checkpoint.ErrNone) && known != "":
		return m, pastBroken, fmt.Errorf("the scheduler knows of checkpoint %s, but %s holds none: "+
			"is this the same shared storage? Starting from nothing would throw that work away: %w", known, t.saver.path, err)
	case errors.Is(err, checkpoint.ErrNone):
		return m, pastNone, nil
	case err != nil:
		return m, pastBroken, fmt.Errorf("find the checkpoint to resume from in %s: %w", t.saver.path, err)
	}
	return m, pastFound, nil
}

const (
	digitBits = 16 // of a number that travels as a float32, which holds 24 bits exactly
	numDigits = 64 / digitBits
)

// shareRef tells rank 0's choice to all ranks. The ring only adds, and all but rank 0 add zeros.
func (t *trainer) shareRef(ctx context.Context, ref checkpoint.Ref, answer int) (checkpoint.Ref, int, error) {
	words := make([]float32, 1+2*numDigits)
	if t.group.Rank() == 0 {
		words[0] = float32(answer)
		for i := range numDigits {
			words[1+i] = float32(ref.Epoch >> (i * digitBits) & math.MaxUint16)
			words[1+numDigits+i] = float32(ref.Step >> (i * digitBits) & math.MaxUint16)
		}
	}
	if err := t.allReduce(ctx, words); err != nil {
		return checkpoint.Ref{}, pastBroken, err
	}
	var got checkpoint.Ref
	for i := range numDigits {
		got.Epoch |= uint64(words[1+i]) << (i * digitBits)
		got.Step |= uint64(words[1+numDigits+i]) << (i * digitBits)
	}
	return got, int(words[0]), nil
}

// restore reads the whole state, whatever number of ranks wrote it.
func (t *trainer) restore(ctx context.Context, m checkpoint.Manifest) error {
	if got := m.Meta[metaRecipe]; got != t.saver.recipe {
		return fmt.Errorf("it was trained with %s, this training is %s: use the same flags, or a new job", got, t.saver.recipe)
	}
	lossSum, err := strconv.ParseFloat(m.Meta[metaLossSum], 64)
	if err != nil {
		return fmt.Errorf("its loss: %w", err)
	}
	r := t.saver.store.NewReader(m)
	defer r.Close()
	if err := checkpoint.Read(ctx, r, tensorParams, t.net.Params); err != nil {
		return err
	}
	if err := checkpoint.Read(ctx, r, tensorVelocity, t.velocity); err != nil {
		return err
	}
	t.step, t.lossSum = int(m.Step), lossSum //nolint:gosec // steps come from an int
	t.startStep, t.savedStep = t.step, t.step
	return nil
}

// save writes and commits a checkpoint of the state after t.step steps. It tells whether that is committed; all ranks
// get the same answer. A storage that fails costs this checkpoint, not the training: the reason goes to diag. An error
// means that this worker must end.
func (t *trainer) save(ctx context.Context) (bool, error) {
	if t.saver == nil {
		return false, nil
	}
	rank, world, began := t.group.Rank(), t.group.WorldSize(), time.Now()
	_, mine := t.saver.store.WriteShard(ctx, checkpoint.ShardWrite{
		Epoch: t.saver.epoch, Step: uint64(t.step), Rank: rank, WorldSize: world, //nolint:gosec // a step is not negative
		Tensors: t.tensors(),
	})
	if failed, err := t.agree(ctx, "write its shard", mine); failed > 0 || err != nil {
		if rank == 0 && err == nil {
			t.makeRoom(ctx) // perhaps the disk is full
		}
		return false, err
	}
	if rank == 0 {
		mine = t.commit(ctx, began)
	}
	if failed, err := t.agree(ctx, "commit", mine); failed > 0 || err != nil {
		return false, err
	}
	t.savedStep = t.step
	return true, nil
}

// agree tells all ranks how many of them could not do something. An error means that the ring broke, or that a newer
// epoch of the job has begun.
func (t *trainer) agree(ctx context.Context, what string, mine error) (failed int, err error) {
	votes := make([]float32, 2)
	if mine != nil {
		votes[0] = 1
		t.warnf("rank %d can not %s for the checkpoint of step %d: %v", t.group.Rank(), what, t.step, mine)
	}
	if errors.Is(mine, checkpoint.ErrFenced) {
		votes[1] = 1
	}
	if err := t.allReduce(ctx, votes); err != nil {
		return 0, err
	}
	switch failed = int(votes[0]); {
	case votes[1] > 0:
		return failed, fmt.Errorf("checkpoint of step %d: a newer epoch of this job has begun, this worker is late: %w", t.step, checkpoint.ErrFenced)
	case failed > 0 && t.group.Rank() == 0:
		t.warnf("the checkpoint of step %d is not committed: %d of %d ranks could not %s; the last one is of step %d",
			t.step, failed, t.group.WorldSize(), what, t.savedStep)
	}
	return failed, nil
}

// commit makes the checkpoint count, reports it and removes old ones. Rank 0 calls it. The save began, and the training has stood still, since then.
func (t *trainer) commit(ctx context.Context, began time.Time) error {
	m, err := t.saver.store.Commit(ctx, checkpoint.CommitRequest{
		Epoch: t.saver.epoch, Step: uint64(t.step), WorldSize: t.group.WorldSize(), //nolint:gosec // a step is not negative
		Meta: t.meta(), Metrics: t.metrics(), SavedAt: time.Now(),
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	t.announce(ctx, &m, took, took)
	return nil
}

// tensors are this rank's part of the state: all ranks hold all of it, and write it once together.
func (t *trainer) tensors() []checkpoint.Tensor {
	rank, world := t.group.Rank(), t.group.WorldSize()
	return []checkpoint.Tensor{
		checkpoint.Share(tensorParams, t.net.Params, rank, world),
		checkpoint.Share(tensorVelocity, t.velocity, rank, world),
	}
}

// meta is what a checkpoint says beside its tensors.
func (t *trainer) meta() map[string]string {
	return map[string]string{metaRecipe: t.saver.recipe, metaLossSum: strconv.FormatFloat(t.lossSum, 'g', -1, 64)}
}

// metrics are what the best checkpoints may be kept by: of the last pass over the data.
func (t *trainer) metrics() map[string]float64 {
	out := map[string]float64{}
	for _, name := range []string{"loss", "test_accuracy"} {
		if v, ok := t.lastMetric[name]; ok {
			out[name] = v
		}
	}
	return out
}

// announce reports a committed checkpoint, how long the save held up the training and how long it took in all, and removes old ones. Rank 0 calls it.
func (t *trainer) announce(ctx context.Context, m *checkpoint.Manifest, cost, took time.Duration) {
	reportCtx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	report := workerclient.Checkpoint{
		Step: int64(m.Step), Path: filepath.Join(t.saver.path, m.Dir), Bytes: m.Bytes(), Cost: cost, Took: took, //nolint:gosec // came from an int
	}
	if err := t.client.ReportCheckpoint(reportCtx, report); err != nil {
		t.warnf("the checkpoint is committed, but the agent does not know: %v", err)
	}
	t.collect(ctx)
}

// collect removes checkpoints beyond those to keep, and what earlier epochs
// left half-written, where the agent does not. Rank 0 calls it: after a commit;
// and when the training begins, all ranks having read what they resume from.
func (t *trainer) collect(ctx context.Context) {
	if !t.saver.agent {
		t.makeRoom(ctx)
	}
}

// makeRoom does that whoever else does: when a disk is full nothing is
// committed, so that the agent would never look again.
func (t *trainer) makeRoom(ctx context.Context) {
	collected, err := t.saver.store.Collect(ctx, checkpoint.CollectRequest{
		Epoch: t.saver.epoch, Keep: t.saver.keep, Every: t.saver.every, Best: t.saver.best, Now: time.Now(),
	})
	if err != nil {
		t.warnf("remove old checkpoints from %s: %v", t.saver.path, err)
	}
	for _, s := range collected.Skipped {
		t.warnf("checkpoint %s is damaged: %v", s.Ref, s.Err)
	}
}
