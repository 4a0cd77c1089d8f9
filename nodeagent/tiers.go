package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/drain"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/telemetry"
	"github.com/gangline/gangline/nodeagent/whole"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// shardPiece is the size of a piece of a shard on its way between agents: the contract allows 1 MiB.
	shardPiece = 1 << 20
	// maxPending bounds the local checkpoints of one worker that are remembered until they are on the shared storage.
	maxPending = 64
	// settleWithin bounds the completion of local checkpoints before a launch; what is left of verifyWithin is for the verification.
	settleWithin = 3 * time.Minute
	// announceWithin bounds how long the report of a checkpoint on the node's own disk waits for the shared storage, which only hears of it.
	announceWithin = 10 * time.Second
	// drainWithin bounds how long the success of a job waits for its last checkpoint to reach the shared storage, where what comes after
	// the job looks for it.
	drainWithin = 10 * time.Minute
)

// tiers is the agent's part in checkpoints that lie on the node's own disk first.
type tiers struct {
	drainer *drain.Drainer // nil without CheckpointLocal

	settling, resuming, preparing singleflight.Group // by job and epoch: its ranks here would all do the same
	wholes                        *whole.Copies

	grace time.Duration // of drain.Start; tests shorten it before any launch

	mu      sync.Mutex
	pending map[reconcile.Key][]*agentv1.Checkpoint // local ones by rank 0, the oldest first
	since   map[reconcile.Key]time.Time             // from when the success of a worker waits
	lost    map[reconcile.Key]int64                 // by rank 0: the step that was lost before its launch, until the launch has noted it
	older   map[reconcile.Key]*agentv1.OlderStart   // likewise: from what it begins instead of what was committed
}

// openTiers prepares the node's own disk, if the agent is to use it.
func (a *Agent) openTiers() error {
	a.tiers.pending, a.tiers.since = map[reconcile.Key][]*agentv1.Checkpoint{}, map[reconcile.Key]time.Time{}
	a.tiers.wholes = whole.New()
	a.tiers.lost, a.tiers.older = map[reconcile.Key]int64{}, map[reconcile.Key]*agentv1.OlderStart{}
	if a.cfg.CheckpointLocal == "" {
		return nil
	}
	var err error
	a.tiers.drainer, err = drain.New(drain.Config{
		Root: a.cfg.CheckpointLocal, Shared: a.cfg.CheckpointRoot, MaxBytes: a.cfg.CheckpointLocalBytes, Rate: a.cfg.CheckpointDrainRate,
		Node: a.NodeID(), Address: a.Address, Live: a.hasJob, Looked: a.tellDrained, Send: a.sendShard,
		Admit: a.admitPart, Problem: a.gangProblem, Joined: a.joined, Log: a.log,
	})
	if err != nil {
		return err
	}
	return telemetry.RegisterLocal(a.registry, a.cfg.Name, func() telemetry.Local { return telemetry.Local(a.tiers.drainer.Usage()) })
}

// hasJob says whether a job has a worker on this node whose end is not told yet.
func (a *Agent) hasJob(job uint64) bool {
	for _, st := range a.workers.Workers() {
		if st.Key.Job == job && !st.Acked {
			return true
		}
	}
	return false
}

// obeyed takes an order up, whose fence is on disk.
func (a *Agent) obeyed(d *agentv1.Desired) *order {
	if a.tiers.drainer != nil {
		a.tiers.drainer.SetPeer(d.GetCopiesTo())
	}
	return newOrder(d)
}

// runTiers drains until ctx ends.
func (a *Agent) runTiers(ctx context.Context) error {
	if a.tiers.drainer == nil {
		return nil
	}
	return a.tiers.drainer.Run(ctx)
}

// localDir gives the directory on the node's own disk for a job that is about to start, "" if it is to save on the shared storage.
func (a *Agent) localDir(as *agentv1.Assignment) string {
	job := as.GetJobId()
	if a.tiers.drainer == nil || as.GetEnv()[envLocal] == localNone {
		return ""
	}
	dir, err := a.tiers.drainer.JobDir(job)
	if err != nil {
		a.log.Warn("a job saves on the shared storage directly: the directory for local checkpoints cannot be used", "job", job, "err", err)
		return ""
	}
	return dir
}

// settle completes, before a launch, what the job's ranks have saved on their nodes' own disks.
func (a *Agent) settle(ctx context.Context, key reconcile.Key, as *agentv1.Assignment) (drain.Settled, error) {
	got, err, _ := a.tiers.settling.Do(fmt.Sprintf("%d-%d", key.Job, key.Epoch), func() (any, error) {
		return a.settleOnce(ctx, key, as)
	})
	return got.(drain.Settled), err
}

func (a *Agent) settleOnce(ctx context.Context, key reconcile.Key, as *agentv1.Assignment) (drain.Settled, error) {
	bounded, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	start := drain.Start{
		Dir: checkpointDir(a.cfg.CheckpointRoot, key.Job), Epoch: key.Epoch, First: as.GetNodeRank() == 0, Node: a.NodeID(),
		Fetch: func(ctx context.Context, address, file string) (drain.Source, error) {
			return a.fetchShard(ctx, address, key.Job, file)
		},
		Grace: a.tiers.grace, Log: a.log, Args: keyArgs(key),
	}
	if d := a.tiers.drainer; d != nil {
		start.Own = func(file string) (drain.Source, error) { return d.Own(key.Job, file) }
	}
	got, err := drain.Settle(bounded, start)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		a.log.Error("checkpoints on nodes' own disks could not be completed in time: an older one is taken", keyArgs(key, "within", settleWithin)...)
		return got, nil
	}
	if got.Lost.Epoch > 0 {
		a.setLost(key, got.Lost)
	}
	return got, err
}

// setLost keeps which checkpoint could not be used by a start, until the launch of rank 0 has noted it.
func (a *Agent) setLost(key reconcile.Key, ref checkpoint.Ref) {
	a.tiers.mu.Lock()
	defer a.tiers.mu.Unlock()
	if len(a.tiers.lost) >= maxPending {
		clear(a.tiers.lost) // of launches that never came
	}
	first := reconcile.Key{Job: key.Job, Epoch: key.Epoch}
	a.tiers.lost[first] = max(a.tiers.lost[first], int64(ref.Step)) //nolint:gosec // at most 63 bits
}

// noteLost has the leader hear of a step that was lost before a worker's launch. The worker is tracked.
func (a *Agent) noteLost(key reconcile.Key) {
	a.tiers.mu.Lock()
	step, older := a.tiers.lost[key], a.tiers.older[key] // rank 0 has them
	delete(a.tiers.lost, key)
	delete(a.tiers.older, key)
	a.tiers.mu.Unlock()
	if older != nil {
		a.sockets.BeganOlder(key, older)
	}
	if step > 0 {
		a.sockets.Lost(key, step)
	}
}

// announceLocal says whether a checkpoint that is reported is on nodes' own disks so far, and where it will be on the shared storage. One of a program's own
// files is noted there first, so that a start on another node can know of it before the leader does.
func (a *Agent) announceLocal(path string) (place string, local bool) {
	if d := a.tiers.drainer; d != nil {
		if job, ref, shared, is := d.IsFiles(path); is {
			ctx, cancel := context.WithTimeout(context.Background(), announceWithin)
			defer cancel()
			if err := d.Announce(ctx, job, ref); err != nil {
				a.log.Warn("a checkpoint on the node's own disk is not noted on the shared storage yet, it is tried again", "job", job, "checkpoint", ref, "err", err)
			}
			return shared, true
		}
	}
	if _, err := os.Lstat(filepath.Join(path, "LOCAL.json")); err != nil {
		return path, false
	}
	_, err := os.Lstat(filepath.Join(path, "MANIFEST.json"))
	return path, err != nil
}

// reportedLocal takes up a checkpoint that is to be drained. c is as the notes have it.
func (a *Agent) reportedLocal(key reconcile.Key, c *agentv1.Checkpoint) {
	a.tiers.mu.Lock()
	all := append(a.tiers.pending[key], c)
	a.tiers.pending[key] = all[max(0, len(all)-maxPending):]
	a.tiers.mu.Unlock()
	if a.tiers.drainer != nil {
		a.tiers.drainer.Poke()
	}
}

// draining says whether the end of a worker waits for its last checkpoint to be drained. One that failed, or was stopped, starts again, and
// that start completes what is there; its GPUs need not wait.
func (a *Agent) draining(st worker.Status) bool {
	key := reconcile.Key(st.Key)
	if a.tiers.drainer == nil || key.Rank != 0 || st.State != worker.Exited || st.Acked || !st.Succeeded() || a.sockets.Notes(key).GetLocalCheckpoint() == nil {
		return false
	}
	a.tiers.mu.Lock()
	defer a.tiers.mu.Unlock()
	since, waits := a.tiers.since[key]
	if !waits {
		since = time.Now()
		a.tiers.since[key] = since
	}
	return time.Since(since) < drainWithin
}

// lateDrains has the loop look again once a success has waited for too long, and forgets workers whose ends are told.
func (a *Agent) lateDrains() {
	present := map[reconcile.Key]bool{}
	for _, st := range a.workers.Workers() {
		present[reconcile.Key(st.Key)] = !st.Acked
	}
	a.tiers.mu.Lock()
	defer a.tiers.mu.Unlock()
	gone := func(key reconcile.Key) bool { return !present[key] }
	maps.DeleteFunc(a.tiers.pending, func(key reconcile.Key, _ []*agentv1.Checkpoint) bool { return gone(key) })
	maps.DeleteFunc(a.tiers.since, func(key reconcile.Key, _ time.Time) bool { return gone(key) })
	for key, since := range a.tiers.since { // any order: each is looked at
		if !since.IsZero() && time.Since(since) >= drainWithin {
			a.log.Warn("a job's success is told though its last checkpoint is not on the shared storage yet: it is drained all the same", keyArgs(key, "within", drainWithin)...)
			a.tiers.since[key] = time.Time{} // told once
			a.look()
		}
	}
}

// tellDrained tells, of workers of rank 0, which of their checkpoints have come to the shared storage since, and which have copies.
func (a *Agent) tellDrained() {
	a.lateDrains()
	for _, st := range a.workers.Workers() {
		key := reconcile.Key(st.Key)
		if key.Rank != 0 || st.Acked {
			continue
		}
		notes := a.sockets.Notes(key).GetLocalCheckpoint()
		a.tiers.mu.Lock()
		waiting := a.tiers.pending[key]
		if len(waiting) == 0 && notes != nil { // of a former agent
			waiting = []*agentv1.Checkpoint{notes}
			a.tiers.pending[key] = waiting
		}
		a.tiers.mu.Unlock()
		for i := len(waiting) - 1; i >= 0; i-- {
			if _, err := os.Lstat(filepath.Join(waiting[i].GetPath(), "MANIFEST.json")); err == nil {
				a.drained(key, waiting[i])
				break
			}
		}
		if notes != nil && !notes.GetCopied() && a.tiers.drainer != nil && a.tiers.drainer.Copied(key.Job, notes.GetPath()) {
			a.sockets.LocalCopied(key, notes.GetStep())
		}
	}
}

// drained tells of one checkpoint that is on the shared storage now, as if the worker had saved it there.
func (a *Agent) drained(key reconcile.Key, c *agentv1.Checkpoint) {
	a.tiers.mu.Lock()
	var left []*agentv1.Checkpoint
	for _, p := range a.tiers.pending[key] {
		if p.GetStep() > c.GetStep() {
			left = append(left, p)
		}
	}
	if len(left) == 0 {
		delete(a.tiers.pending, key)
		delete(a.tiers.since, key)
	} else {
		a.tiers.pending[key] = left
	}
	a.tiers.mu.Unlock()
	c = proto.CloneOf(c)
	c.Copied = false
	a.sockets.Committed(key, c)
	a.reported(key)
	a.look()
}

// dialAgent opens a connection to another node's agent.
func (a *Agent) dialAgent(address string) (agentv1.NodeServiceClient, *grpc.ClientConn, error) {
	conn, err := grpc.NewClient(address, a.transport.dial)
	if err != nil {
		return nil, nil, fmt.Errorf("reach the agent at %s: %w", address, err)
	}
	return agentv1.NewNodeServiceClient(conn), conn, nil
}

// sendShard gives a copy of a shard to another node's agent.
func (a *Agent) sendShard(ctx context.Context, to string, job uint64, file string, content *os.File) (err error) {
	info, err := content.Stat()
	if err != nil {
		return err
	}
	client, conn, err := a.dialAgent(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.KeepShard(ctx)
	if err != nil {
		return err
	}
	msg := &agentv1.KeepShardRequest{JobId: job, File: file, Bytes: info.Size()}
	buf := make([]byte, shardPiece)
	for {
		n, rerr := io.ReadFull(content, buf)
		if rerr != nil && !errors.Is(rerr, io.EOF) && !errors.Is(rerr, io.ErrUnexpectedEOF) {
			return rerr
		}
		msg.Data = buf[:n]
		if err := stream.Send(msg); err != nil && !errors.Is(err, io.EOF) { // EOF: the answer says why
			return err
		} else if err != nil || rerr != nil {
			break
		}
		msg = &agentv1.KeepShardRequest{}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// fetchShard reads a shard from another node's agent. Closing what it gives ends the call.
func (a *Agent) fetchShard(ctx context.Context, address string, job uint64, file string) (drain.Source, error) {
	client, conn, err := a.dialAgent(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := client.ReadShard(ctx, &agentv1.ReadShardRequest{JobId: job, File: file})
	if err != nil {
		cancel()
		return nil, errors.Join(err, conn.Close())
	}
	return drain.NewSource(&pieces{next: func() ([]byte, error) {
		msg, err := stream.Recv()
		return msg.GetData(), err
	}}, func() error {
		cancel()
		return conn.Close()
	}), nil
}

// pieces reads messages as one stream of bytes.
type pieces struct {
	next func() ([]byte, error)
	left []byte
}

// Read gives the next bytes.
func (p *pieces) Read(buf []byte) (int, error) {
	for len(p.left) == 0 {
		var err error
		if p.left, err = p.next(); err != nil {
			return 0, err
		}
	}
	n := copy(buf, p.left)
	p.left = p.left[n:]
	return n, nil
}
