package drain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/keeper"
)

// Gang is a job's gang on several nodes whose programs write files on their nodes' own disks, as one of these nodes sees it.
type Gang struct {
	Job, Epoch   uint64
	Index, Count int    // the node's number in the gang, and of how many
	Node         string // by which people know this one
	// Dir is where the programs of this node write: FilesDir, or, where the disk has no room, a directory of this node's in the job's own on the shared storage.
	Dir string
	// Open opens the job's checkpoints on the shared storage, with its keys.
	Open func(ctx context.Context) (*checkpoint.Store, error)
	// Metrics gives what rank 0 last said of its training; nil: nothing is known here.
	Metrics func() map[string]float64
}

const (
	// asideName begins the names under which files of an earlier epoch are kept that were never committed.
	asideName = "uncommitted-"
	// homePrefix begins the names of the directories that nodes without room have in the job's own.
	homePrefix = "node-"
	// partLate is how long other nodes' parts may take before people are told that they lack.
	partLate = 5 * time.Second
	// partRetry is the wait before what went wrong with a part is tried again.
	partRetry = 5 * time.Second
	// partsPoll is how often the end of a worker looks whether all parts are there.
	partsPoll = 100 * time.Millisecond
)

// gang is a Gang at work. Who has the turn looks, one at a time, and may use all but since, which Drainer.gangMu guards.
type gang struct {
	Gang
	since  time.Time
	turn   chan struct{}
	done   map[checkpoint.Ref]bool      // complete, or refused for good
	told   map[checkpoint.Ref]bool      // that it is joined
	drains map[checkpoint.Ref]bool      // its part is drained where it lies, or needs no draining
	begun  map[checkpoint.Ref]time.Time // when it was first seen
	failed map[string]time.Time         // what was tried in vain, by directory
}

// SetGang has the programs of a gang's node looked after until its job's next epoch, or until the job has left the node for a while. Setting it twice is no error.
func (d *Drainer) SetGang(g Gang) {
	d.gangMu.Lock()
	defer d.gangMu.Unlock()
	if old := d.gangs[g.Job]; old != nil && old.Epoch >= g.Epoch {
		return
	}
	d.gangs[g.Job] = &gang{
		Gang: g, since: time.Now(), turn: make(chan struct{}, 1), done: map[checkpoint.Ref]bool{}, told: map[checkpoint.Ref]bool{}, drains: map[checkpoint.Ref]bool{}, begun: map[checkpoint.Ref]time.Time{}, failed: map[string]time.Time{},
	}
}

// HasGang says whether a job's epoch is looked after.
func (d *Drainer) HasGang(job, epoch uint64) bool {
	d.gangMu.Lock()
	defer d.gangMu.Unlock()
	g := d.gangs[job]
	return g != nil && g.Epoch == epoch
}

// GangPlace gives where the programs of this node write in a job's epoch that is looked after.
func (d *Drainer) GangPlace(job, epoch uint64) (dir string, ok bool) {
	d.gangMu.Lock()
	defer d.gangMu.Unlock()
	g := d.gangs[job]
	if g == nil || g.Epoch != epoch {
		return "", false
	}
	return g.Dir, true
}

// HomeDir is where the programs of a node write whose disk has no room.
func (d *Drainer) HomeDir(job uint64, index, count int) string {
	return filepath.Join(d.cfg.Shared, jobName(job), fmt.Sprintf("%s%04d-of-%04d", homePrefix, index, count))
}

// MoveAside puts away what programs of earlier epochs have left in a directory and never committed, so that no later commit takes it for its own. It gives the new names.
func MoveAside(dir string, epoch uint64) ([]string, error) {
	names, err := programDirs(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var moved []string
	for _, name := range names {
		to := fmt.Sprintf("%s%s.before-epoch-%d", asideName, name, epoch)
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, to)); err != nil {
			return moved, fmt.Errorf("move files aside that an earlier epoch did not commit: %w", err)
		}
		moved = append(moved, to)
	}
	return moved, err
}

// programDirs lists the directories of programs' own that have anything in them.
func programDirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		_, rerr := checkpoint.ParseRef(strings.TrimSuffix(e.Name(), ".sealed"))
		_, _, _, part := checkpoint.ParsePartDir(strings.TrimSuffix(e.Name(), ".sealed"))
		if !e.IsDir() || rerr == nil || part || e.Name() == "fence" || strings.HasPrefix(e.Name(), asideName) || strings.HasPrefix(e.Name(), drainPrefix) {
			continue
		}
		if in, err := os.ReadDir(filepath.Join(dir, e.Name())); err == nil && len(in) > 0 {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// lookGangs looks once after all gangs of this node.
func (d *Drainer) lookGangs(ctx context.Context) {
	for _, g := range d.gangsNow() {
		d.takeTurn(ctx, g)
	}
}

// gangsNow lists the gangs, without those whose jobs have left the node for a while.
func (d *Drainer) gangsNow() []*gang {
	d.gangMu.Lock()
	all := slices.Collect(maps.Values(d.gangs))
	d.gangMu.Unlock()
	var out []*gang
	for _, g := range all {
		live := d.cfg.Live(g.Job)
		d.gangMu.Lock()
		if live {
			g.since = time.Now()
		}
		if live || time.Since(g.since) <= launchFor {
			out = append(out, g)
		} else if d.gangs[g.Job] == g {
			delete(d.gangs, g.Job)
		}
		d.gangMu.Unlock()
	}
	return out
}

// takeTurn looks once after a gang, and says whether anything is on its way to be joined.
func (d *Drainer) takeTurn(ctx context.Context, g *gang) (pending bool) {
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
		return d.lookGang(ctx, g)
	case <-ctx.Done():
		return true
	}
}

// FinishGang has the last look after a job's epoch, before the end of one of its workers is told: it waits until what was asked for is joined, or ctx ends.
func (d *Drainer) FinishGang(ctx context.Context, job, epoch uint64) {
	tick := time.NewTicker(partsPoll)
	defer tick.Stop()
	for {
		d.gangMu.Lock()
		g := d.gangs[job]
		d.gangMu.Unlock()
		if g == nil || g.Epoch != epoch || !d.takeTurn(ctx, g) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookGang commits this node's parts, joins them with the others', and says whether anything is on its way to that.
func (d *Drainer) lookGang(ctx context.Context, g *gang) (pending bool) {
	for _, name := range g.steps() {
		step, _ := keeper.Step(name)
		if !g.again(name) {
			pending = true
			continue
		}
		ref := checkpoint.Ref{Epoch: g.Epoch, Step: step}
		if err := d.commitPart(ctx, g, ref, name, true); err != nil {
			pending = d.partFailed(ctx, g, name, name, err) || pending
		}
	}
	entries, err := os.ReadDir(filepath.Join(d.cfg.Shared, jobName(g.Job), "parts"))
	if err != nil {
		return pending // none yet, or the storage is away: said by the draining
	}
	for _, e := range entries {
		ref, err := checkpoint.ParseRef(e.Name())
		if err != nil || ref.Epoch != g.Epoch || g.done[ref] {
			continue
		}
		if _, seen := g.begun[ref]; !seen {
			g.begun[ref] = time.Now()
		}
		waits, err := d.lookParts(ctx, g, ref)
		name := fmt.Sprintf("step-%d", ref.Step)
		if err != nil {
			waits = d.partFailed(ctx, g, ref.String(), name, err) && waits && !g.done[ref]
		}
		pending = pending || waits
	}
	return pending
}

// steps lists the directories that programs of this node have renamed for a commit.
func (g *gang) steps() []string {
	entries, err := os.ReadDir(g.Dir)
	if err != nil {
		return nil // the program's own writes fail loudly enough
	}
	var out []string
	for _, e := range entries {
		if _, ok := keeper.Step(e.Name()); ok && e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}

func (g *gang) again(what string) bool { return time.Since(g.failed[what]) >= partRetry }

// partFailed tells why there is no checkpoint yet, and says whether it is tried again.
func (d *Drainer) partFailed(ctx context.Context, g *gang, what, name string, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	g.failed[what] = time.Now()
	d.cfg.Log.Warn("files that a program has saved are not a checkpoint yet", "job", g.Job, "epoch", g.Epoch, "dir", name, "err", err)
	d.cfg.Problem(g.Job, g.Epoch, fmt.Sprintf("%s is no checkpoint yet: %v", name, err))
	return !errors.Is(err, checkpoint.ErrFenced)
}

// commitPart makes this node's part of a step of the directory from; "" with empty: there are no files here.
func (d *Drainer) commitPart(ctx context.Context, g *gang, ref checkpoint.Ref, from string, asked bool) error {
	store, err := g.Open(ctx)
	if err == nil {
		err = store.Fence(ctx, g.Epoch)
	}
	if err == nil && from != "" {
		err = d.cfg.Admit(ctx, g.Job, g.Epoch, checkpoint.TreeBytes(filepath.Join(g.Dir, from)))
	}
	if err != nil {
		return err
	}
	fsys, err := checkpoint.NewDir(g.Dir)
	if err != nil {
		return err
	}
	near, err := checkpoint.Open(checkpoint.Config{FS: fsys, Job: store.Job()})
	if err != nil {
		return err
	}
	r := checkpoint.PartCommit{
		FilesCommit: checkpoint.FilesCommit{Epoch: ref.Epoch, Step: ref.Step, From: from, SavedAt: time.Now()},
		Index:       g.Index, Count: g.Count, Node: g.Node, Asked: asked, Empty: from == "",
	}
	if g.Metrics != nil {
		r.Metrics = g.Metrics()
	}
	p, err := store.CommitPart(ctx, near, r)
	if err == nil {
		d.cfg.Log.Info("part of a checkpoint committed on this node", "job", g.Job, "epoch", g.Epoch, "step", ref.Step, "bytes", p.Bytes(), "files", len(p.Files))
		d.Poke()
	}
	return err
}

// lookParts does what is to be done of one step: this node's part, if another one has asked; the joining; and telling of it.
func (d *Drainer) lookParts(ctx context.Context, g *gang, ref checkpoint.Ref) (waits bool, err error) {
	store, err := d.store(g.Job)
	if err != nil {
		return true, err
	}
	parts, err := store.LookAtParts(ctx, ref)
	if err != nil {
		return true, err
	}
	if !parts.Joined && !parts.Complete {
		// What a node has refused for a while it refuses until its program does something: no end of a worker waits for that.
		waits := len(parts.Refused) == 0 || time.Since(g.begun[ref]) <= partLate
		if !g.again(ref.String()) {
			return waits, nil
		}
		if parts, err = d.answer(ctx, g, store, parts); err != nil || !parts.Joined {
			return waits, err
		}
	}
	if !g.told[ref] {
		m, err := store.LoadParts(ref)
		if errors.Is(err, fs.ErrNotExist) && parts.Complete {
			m, err = store.Load(ctx, ref) // swept already
		}
		if err != nil {
			return true, err
		}
		g.told[ref] = true
		d.cfg.Problem(g.Job, g.Epoch, "")
		d.cfg.Joined(g.Job, g.Epoch, m)
		d.Poke()
	}
	if parts.Complete {
		g.done[ref] = true
		return false, nil
	}
	if g.drains[ref] || slices.Contains(parts.Drained, g.Index) {
		return false, nil
	}
	p, err := store.LoadPart(ref, g.Index, g.Count)
	if err == nil && len(p.Files) == 0 { // it has no directory by which it would be found
		err = store.DrainPart(ctx, ref, g.Index, nil, nil)
	}
	g.drains[ref] = err == nil
	return false, err
}

// answer has this node's part follow another's, and joins all of them. One node's agent is enough for that, and whoever has asked.
func (d *Drainer) answer(ctx context.Context, g *gang, store *checkpoint.Store, parts checkpoint.Parts) (checkpoint.Parts, error) {
	if parts.Count != 0 && !slices.Contains(parts.Have, g.Index) {
		if err := d.follow(ctx, g, store, parts); err != nil {
			if rerr := store.RefusePart(parts.Ref, g.Index, g.Count, err.Error()); rerr != nil {
				return parts, errors.Join(err, rerr)
			}
			return parts, err
		}
		parts.Have = append(parts.Have, g.Index)
	}
	late := time.Since(g.begun[parts.Ref]) > partLate
	if len(parts.Missing()) > 0 && !late && len(parts.Refused) == 0 || g.Index != 0 && !late {
		return parts, nil
	}
	keyed, err := g.Open(ctx)
	if err != nil {
		return parts, err
	}
	_, err = keyed.JoinParts(ctx, parts.Ref)
	if errors.Is(err, checkpoint.ErrConflict) || errors.Is(err, checkpoint.ErrInvalid) {
		g.done[parts.Ref] = true // parts are final, and so is this
	}
	parts.Joined = err == nil
	return parts, err
}

// follow makes this node's part of a step for which another node was asked: of the directory of the same name, or of one that is named by the step.
func (d *Drainer) follow(ctx context.Context, g *gang, store *checkpoint.Store, parts checkpoint.Parts) error {
	asked, err := store.AskedPart(ctx, parts)
	if err != nil {
		return err
	}
	own := checkpoint.PartDir(parts.Ref, g.Index, g.Count)
	for _, name := range []string{asked.From, fmt.Sprintf("step-%d", parts.Ref.Step), fmt.Sprintf("tmp-%d", parts.Ref.Step), own} {
		if in, err := os.ReadDir(filepath.Join(g.Dir, name)); err != nil || len(in) == 0 {
			continue
		}
		if name == own { // of a try that was cut short: any name that is not there takes it up
			name = asked.From
		}
		return d.commitPart(ctx, g, parts.Ref, name, false)
	}
	others, err := programDirs(g.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range others {
		if !ofOtherStep(name) {
			return fmt.Errorf("%w: node %s has files in %s, and none in %s, step-%d or tmp-%d: whether they belong to step %d cannot be told: give the directory the same name on all nodes",
				checkpoint.ErrIncomplete, g.Node, name, asked.From, parts.Ref.Step, parts.Ref.Step, parts.Ref.Step)
		}
	}
	return d.commitPart(ctx, g, parts.Ref, "", false)
}

// ofOtherStep says of a directory's name whether it tells itself of which step it is.
func ofOtherStep(name string) bool {
	_, ok := keeper.Step("step-" + strings.TrimPrefix(strings.TrimPrefix(name, "tmp-"), "step-"))
	return ok
}
