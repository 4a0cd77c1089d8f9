package socket

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/gangline/gangline/nodeagent/interval"
	"github.com/gangline/gangline/nodeagent/reconcile"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// maxMetrics and maxMetricName bound what a report carries for each worker, since it goes to the leader each second.
	maxMetrics    = 32
	maxMetricName = 64
	// shareBytes is what a rank gives to the secret of its gang.
	shareBytes = 32
	// nameAfter is how long a worker waits for its peers before it is told whom it lost: by then every one that is not stopped or cut
	// off has noticed that the ring broke, unless it computes, and asks too. Too short, and of two whose link broke one is stopped.
	nameAfter = 3 * time.Second
	// absentAfter is how long a worker waits, after its ring broke, for one whose process lives (see pulse.go) and that nobody names: longer than a rank
	// computes between two calls, at which it notices.
	absentAfter = time.Minute
	// namesAbsent stands for whoever does not come.
	namesAbsent = -1
	// maxText bounds a path, an address and a cause.
	maxText = 4096
	// maxSave is longer than any save takes.
	maxSave = 30 * 24 * time.Hour
)

// endpoint is one worker's socket and what the worker said on it.
type endpoint struct {
	agentv1.UnimplementedWorkerServiceServer
	server *Server
	key    reconcile.Key
	files  Files
	grpc   *grpc.Server // nil when not served; guarded by Server.mu
	pulse  pulse

	saveMu sync.Mutex // one writer of the notes file at a time; never taken with mu held

	mu      sync.Mutex
	notes   *agentv1.WorkerStatus
	pace    *interval.Pace
	dirty   bool // notes are newer than the file
	gang    Gang
	stop    *Stop
	changed chan struct{} // closed and replaced when gang or stop change
}

// Rendezvous notes the rank's address and waits until the leader knows those of all members of a formation that will do.
func (e *endpoint) Rendezvous(ctx context.Context, req *agentv1.RendezvousRequest) (*agentv1.RendezvousResponse, error) {
	address, err := reachable(req.GetAddress(), e.server.cfg.Host)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if e.awaits(address, req.GetFormation()) {
		e.save(e.server.log, false) // another share after a restart of the agent would make another secret than other ranks have
		e.server.cfg.Changed()
	}
	patience := time.NewTimer(cmp.Or(e.server.cfg.NameAfter, nameAfter))
	defer patience.Stop()
	absent := time.NewTimer(absentAfter)
	defer absent.Stop()
	for {
		g, place, changed, err := e.meets(ctx, address, req.GetFormation())
		if err != nil {
			return nil, err
		}
		if place >= 0 {
			return &agentv1.RendezvousResponse{
				JobId: e.key.Job, Epoch: e.key.Epoch, Rank: int32(place), Peers: g.Peers, Secret: g.Secret, //nolint:gosec // a rank came as int32
				Formation: g.Formation, Members: g.Members,
			}, nil
		}
		e.awaitsNext(ctx)
		select {
		case <-changed:
		case <-patience.C:
			e.names(ctx, req.GetLost())
		case <-absent.C:
			e.giveUp(ctx)
			absent.Reset(nameAfter)
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// meets looks whether the gang as it is now answers a call of Rendezvous, and gives the worker's place in it, or -1 and what is closed when it has
// changed. A call that was given up is answered no more, and notes nothing: the worker would not hear of it, and may have asked for more since.
func (e *endpoint) meets(ctx context.Context, address string, least int32) (g Gang, place int, changed <-chan struct{}, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return Gang{}, -1, nil, status.FromContextError(err).Err()
	}
	g = e.gang
	place = slices.Index(g.Members, int32(e.key.Rank)) //nolint:gosec // a rank came as int32
	// Peers that hold an older address of this rank are not the answer to this call.
	if g.Formation >= least && place >= 0 && place < len(g.Peers) && g.Peers[place] == address {
		if e.notes.GetRendezvousMet() != g.Formation {
			e.notes.RendezvousMet, e.dirty = g.Formation, true
		}
		return g, place, nil, nil
	}
	return g, -1, e.changed, nil
}

// awaitsNext notes that a worker which still waits awaits the formation that is newer than that in which it met the others: the answer that said so
// was lost, and with it what would have made it ask anew. Nobody else would tell the leader, and it would be given up with time.
func (e *endpoint) awaitsNext(ctx context.Context) {
	e.mu.Lock()
	n, formation := e.notes, e.gang.Formation
	news := ctx.Err() == nil && n.GetRendezvousMet() != 0 && n.GetRendezvousMet() < formation
	if news {
		n.RendezvousMet, n.RendezvousLeast, n.RendezvousLost, e.dirty = 0, formation, 0, true
	}
	e.mu.Unlock()
	if news {
		e.server.cfg.Changed()
	}
}

// names tells whom the worker lost, if it still waits.
func (e *endpoint) names(ctx context.Context, lost int32) {
	e.mu.Lock()
	news := ctx.Err() == nil && lost > 0 && e.notes.GetRendezvousMet() == 0 && e.notes.GetRendezvousLost() != lost
	if news {
		e.notes.RendezvousLost, e.dirty = lost, true
	}
	e.mu.Unlock()
	if news {
		e.server.cfg.Changed()
	}
}

// giveUp tells that the worker has waited too long for some member of its formation, and asks for the next; and when it has waited a little
// longer, by when all others have asked, that it wants to go on without who has not.
func (e *endpoint) giveUp(ctx context.Context) {
	e.mu.Lock()
	n := e.notes
	waits := ctx.Err() == nil && n.GetRendezvousMet() == 0 && n.GetRendezvousLeast() > 1 // at the start gangs are patient
	switch next := e.gang.Formation + 1; {
	case !waits:
	case n.GetRendezvousLeast() < next:
		n.RendezvousLeast, n.RendezvousLost, e.dirty = next, 0, true
	default:
		n.RendezvousLost, e.dirty = namesAbsent, true
	}
	e.mu.Unlock()
	if waits {
		e.server.cfg.Changed()
	}
}

// awaits notes that the worker awaits its peers, and reports whether that is news.
func (e *endpoint) awaits(address string, least int32) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.notes
	if len(n.GetRendezvousShare()) == 0 {
		n.RendezvousShare = make([]byte, shareBytes)
		_, _ = rand.Read(n.RendezvousShare) // never fails
	}
	met := n.GetRendezvousMet()
	if n.GetRendezvousAddress() == address && (met == 0 && n.GetRendezvousLeast() == least || met != 0 && met >= least) {
		return false // the same call again: its answer was lost
	}
	n.RendezvousAddress, n.RendezvousLeast, n.RendezvousMet, n.RendezvousLost = address, least, 0, 0
	e.dirty = true
	return true
}

// reachable puts the node's own host in the place of a wildcard or missing one.
func reachable(address, nodeHost string) (string, error) {
	if len(address) > maxText {
		return "", fmt.Errorf("rendezvous: the address has %d bytes, at most %d are allowed", len(address), maxText)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" || port == "0" {
		return "", fmt.Errorf("rendezvous: address %q is not host:port with the port on which this rank listens", address)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = nodeHost
	}
	return net.JoinHostPort(host, port), nil
}

// ReportProgress keeps the last progress.
func (e *endpoint) ReportProgress(_ context.Context, req *agentv1.ReportProgressRequest) (*agentv1.ReportProgressResponse, error) {
	p := req.GetProgress()
	if p == nil {
		return nil, status.Error(codes.InvalidArgument, "report progress: the progress is missing")
	}
	if n := len(p.GetMetrics()); n > maxMetrics {
		return nil, status.Errorf(codes.InvalidArgument, "report progress: %d metrics, at most %d are allowed: report the ones that people watch", n, maxMetrics)
	}
	for name := range p.GetMetrics() {
		if len(name) > maxMetricName {
			return nil, status.Errorf(codes.InvalidArgument, "report progress: metric name %q... has %d bytes, at most %d are allowed", name[:maxMetricName], len(name), maxMetricName)
		}
	}
	e.mu.Lock()
	e.notes.Progress = proto.CloneOf(p)
	e.dirty = true
	e.mu.Unlock()
	return &agentv1.ReportProgressResponse{}, nil
}

// ReportRing keeps what the worker's collective calls have come to.
func (e *endpoint) ReportRing(_ context.Context, req *agentv1.ReportRingRequest) (*agentv1.ReportRingResponse, error) {
	r := req.GetRing()
	if r == nil || r.GetCalls() < 0 || r.GetBytes() < 0 || r.GetBusyNs() < 0 {
		return nil, status.Error(codes.InvalidArgument, "report ring: calls, bytes and time are needed, none below 0")
	}
	e.mu.Lock()
	e.notes.Ring = proto.CloneOf(r)
	e.dirty = true
	e.mu.Unlock()
	return &agentv1.ReportRingResponse{}, nil
}

// ReportCheckpoint keeps the newest checkpoint, on disk before it answers: the worker may exit right after.
func (e *endpoint) ReportCheckpoint(_ context.Context, req *agentv1.ReportCheckpointRequest) (*agentv1.ReportCheckpointResponse, error) {
	c := req.GetCheckpoint()
	if c.GetPath() == "" || len(c.GetPath()) > maxText || c.GetStep() < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "report checkpoint: a step >= 0 and a path of at most %d bytes are needed, got step %d and %q", maxText, c.GetStep(), c.GetPath())
	}
	if place, is := e.server.cfg.IsLocal(c.GetPath()); is {
		c = proto.CloneOf(c)
		c.Path = place
		e.server.cfg.Local(e.key, e.local(c))
		return &agentv1.ReportCheckpointResponse{}, nil
	}
	e.committed(c)
	e.server.cfg.Reported(e.key)
	return &agentv1.ReportCheckpointResponse{}, nil
}

// committed keeps a checkpoint if it is the newest, with what is known of copies.
func (e *endpoint) committed(c *agentv1.Checkpoint) {
	c = proto.CloneOf(c)
	e.mu.Lock()
	old := e.notes.GetCheckpoint()
	if local := e.notes.GetLocalCheckpoint(); local != nil && c.GetStep() <= local.GetStep() {
		// What it cost was taken when it was saved; the way to the shared storage costs the training nothing.
		if c.GetStep() == local.GetStep() {
			e.notes.LocalCheckpoint = nil
		}
	} else if old == nil || c.GetStep() > old.GetStep() {
		e.notes.LocalCheckpoint = nil
		cost, took := e.pace.Saved(fromMillis(c.GetCostMs()), fromMillis(c.GetTookMs()), e.server.cfg.Clock())
		c.CostMs, c.TookMs = ceilMillis(cost), ceilMillis(took)
	}
	if old != nil && old.GetStep() == c.GetStep() && old.GetSavedUnixMs() > 0 {
		c.SavedUnixMs = old.GetSavedUnixMs()
	}
	e.stamp(c)
	if old == nil || c.GetStep() >= old.GetStep() {
		if c.GetRemote() == "" {
			c.Remote, c.RemoteStep = old.GetRemote(), old.GetRemoteStep()
		}
		if old.GetStep() == c.GetStep() && c.GetCostMs() == 0 {
			c.CostMs, c.TookMs = old.GetCostMs(), old.GetTookMs()
		}
		e.notes.Checkpoint = c
		e.dirty = true
	}
	e.mu.Unlock()
	// A full disk on the node must not cost the training: the leader hears of the checkpoint in any case.
	e.save(e.server.log, true)
	e.server.cfg.Changed()
}

// stamp says of a checkpoint that it was committed now, unless it is known to be older.
func (e *endpoint) stamp(c *agentv1.Checkpoint) {
	if now := e.server.cfg.Clock().UnixMilli(); c.GetSavedUnixMs() <= 0 || c.GetSavedUnixMs() > now {
		c.SavedUnixMs = now
	}
}

// ReportPeerLost keeps why the worker is about to exit.
func (e *endpoint) ReportPeerLost(_ context.Context, req *agentv1.ReportPeerLostRequest) (*agentv1.ReportPeerLostResponse, error) {
	e.mu.Lock()
	e.notes.PeerLost = true
	// Cut characters are taken out, for the notes are kept in a form that can hold whole ones only.
	cause := strings.ToValidUTF8(req.GetCause()[:min(len(req.GetCause()), maxText)], "")
	e.notes.Message = fmt.Sprintf("lost its peer, rank %d: %s", req.GetRank(), cause)
	e.dirty = true
	e.mu.Unlock()
	e.save(e.server.log, true)
	e.server.cfg.Changed()
	return &agentv1.ReportPeerLostResponse{}, nil
}

// WatchNotices streams the stop in force, and again when it changes; and formations newer than that in which the worker met its peers.
func (e *endpoint) WatchNotices(_ *agentv1.WatchNoticesRequest, stream grpc.ServerStreamingServer[agentv1.WatchNoticesResponse]) error {
	var told *Stop
	formed := int32(0)
	for {
		e.mu.Lock()
		stop, formation, met, changed := e.stop, e.gang.Formation, e.notes.GetRendezvousMet(), e.changed
		e.mu.Unlock()
		if met != 0 && formation > max(met, formed) {
			formed = formation
			err := stream.Send(&agentv1.WatchNoticesResponse{Notice: &agentv1.WatchNoticesResponse_Reform{Reform: &agentv1.ReformNotice{Formation: formation}}})
			if err != nil {
				return err
			}
		}
		if stop != nil && (told == nil || *told != *stop) {
			told = stop
			notice := &agentv1.StopNotice{
				Reason:        stop.Reason,
				TerminateInMs: left(stop.Terminate),
				KillInMs:      left(stop.Kill),
			}
			err := stream.Send(&agentv1.WatchNoticesResponse{Notice: &agentv1.WatchNoticesResponse_Stop{Stop: notice}})
			if err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// fromMillis converts what a worker said; what cannot be is left out.
func fromMillis(ms int64) time.Duration {
	if ms <= 0 || ms > int64(maxSave/time.Millisecond) {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func left(deadline time.Time) int64 { return max(0, time.Until(deadline).Milliseconds()) }

func (e *endpoint) setGang(g Gang) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if g.Formation < e.gang.Formation || g.Formation == e.gang.Formation && len(g.Peers) == 0 {
		return // of a leader that does not know all yet
	}
	if g.Formation == e.gang.Formation && slices.Equal(e.gang.Peers, g.Peers) && bytes.Equal(e.gang.Secret, g.Secret) {
		return
	}
	e.gang = Gang{Formation: g.Formation, Members: slices.Clone(g.Members), Peers: slices.Clone(g.Peers), Secret: slices.Clone(g.Secret)}
	e.announce()
}

func (e *endpoint) setStop(stop Stop) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stop != nil && *e.stop == stop {
		return
	}
	e.stop = &stop
	e.announce()
}

// announce wakes every waiter; the caller holds mu.
func (e *endpoint) announce() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// flush brings changed notes to disk.
func (e *endpoint) flush(log *slog.Logger) { e.save(log, false) }

func (e *endpoint) save(log *slog.Logger, durable bool) {
	e.saveMu.Lock()
	defer e.saveMu.Unlock()
	e.mu.Lock()
	if !e.dirty && !durable {
		e.mu.Unlock()
		return
	}
	e.dirty = false
	notes := proto.CloneOf(e.notes)
	e.mu.Unlock()
	if err := saveNotes(e.files.Notes, notes, durable); err != nil {
		e.mu.Lock()
		e.dirty = true // the next flush tries again
		e.mu.Unlock()
		log.Warn("what a worker said is not on disk: an agent restart would lose it",
			"job", e.key.Job, "epoch", e.key.Epoch, "rank", e.key.Rank, "err", err)
	}
}
