package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/gangline/gangline/checkpoint/usage"
	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/gpu/nvml"
	"github.com/gangline/gangline/nodeagent/gpu/open"
	"github.com/gangline/gangline/nodeagent/keeper"
	"github.com/gangline/gangline/nodeagent/pusher"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/socket"
	"github.com/gangline/gangline/nodeagent/storage"
	"github.com/gangline/gangline/nodeagent/telemetry"
	"github.com/gangline/gangline/nodeagent/worker"
)

const (
	// pollGPUs is how often GPUs are read: as often as NVML itself samples.
	pollGPUs = time.Second
	// firstPoll bounds the reading before the first Hello if workers are alive: should the driver hang, the node's lease
	// must not run out meanwhile.
	firstPoll = time.Second
	// collectEvery is how often old output is removed. A worker can fill at most 4 segments meanwhile.
	collectEvery = 5 * time.Minute
	// maxFinished bounds the finished workers that are kept, since each look of the loop walks over all.
	maxFinished = 5000
)

// Agent is the agent of one node. Make it with New, run it once with Run.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	id       *identity
	workers  *worker.Manager
	sockets  *socket.Server
	keeper   *keeper.Keeper
	tiers    tiers
	pusher   *pusher.Pusher // nil: no object store
	meter    *usage.Meter
	room     chan struct{} // held by the one that makes room, or measures
	uses     uses
	storage  *storage.Monitor
	owners   sync.Map // owner by reconcile.Key
	gpus     gpu.Prober
	monitor  *gpu.Monitor
	metrics  *telemetry.Metrics
	registry *prometheus.Registry
	machine  machine

	listener        net.Listener
	metricsListener net.Listener // nil without MetricsListen
	transport       transport
	refusedWait     time.Duration
	closing         func() error // once

	orders *orderBox
	wake   chan struct{} // the loop is to look again
	news   chan struct{} // the leader should hear of a change

	heldGPUs atomic.Pointer[map[string]int] // written by the loop, never changed once stored

	mu        sync.Mutex
	connected bool
	declined  map[reconcile.Key]declinedWorker // written by the loop alone

	found map[reconcile.Key]bool // workers of a former agent; not written after open
}

// transport is how the agent dials and serves.
type transport struct {
	dial  grpc.DialOption
	serve []grpc.ServerOption
}

// declinedWorker is a worker that ended before there was a process.
type declinedWorker struct {
	gpus    []string
	message string
	// code and signal are reported as its end.
	code, signal int32
	// stopped: its stop came before its start; false: it could not be started.
	stopped bool
	acked   bool
}

// Run builds an agent and runs it until ctx ends. Workers outlive it. See New and Agent.Run.
func Run(ctx context.Context, cfg Config) error {
	a, err := New(ctx, cfg)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// New takes the state directory (worker.ErrInUse if another agent has it), adopts the workers found there, opens the
// GPUs and the listening ports. ctx bounds the opening alone. Call Run, or Close if the agent is not to run.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDerived()
	a := &Agent{
		cfg: cfg, log: cfg.Logger.With("node", cfg.Name),
		refusedWait: refusedWait, orders: newOrderBox(), wake: make(chan struct{}, 1), news: make(chan struct{}, 1),
		room: make(chan struct{}, 1), declined: map[reconcile.Key]declinedWorker{}, registry: prometheus.NewRegistry(),
	}
	a.closing = sync.OnceValue(a.closeAll)
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start agent %s: %w", cfg.Name, err), a.Close())
	}
	return a, nil
}

// open takes what the agent needs, the state directory's lock first.
func (a *Agent) open(ctx context.Context) error {
	cfg := a.cfg
	var err error
	if err = os.MkdirAll(filepath.Join(cfg.StateDir, runDir), 0o700); err != nil {
		return err
	}
	if a.transport, err = newTransport(cfg.TLS); err != nil {
		return err
	}
	a.workers, err = worker.Open(cfg.StateDir, worker.Config{Supervisor: cfg.Supervisor, Logger: a.log})
	if err != nil {
		return err
	}
	a.found = map[reconcile.Key]bool{}
	for _, st := range a.workers.Workers() {
		a.found[reconcile.Key(st.Key)] = true
	}
	if a.id, err = openIdentity(cfg.StateDir); err != nil {
		return err
	}
	if a.machine, err = readMachine(cfg); err != nil {
		return err
	}
	a.keeper = keeper.New(keeper.Config{Committed: a.committed, Changed: a.look, Metrics: a.metricsOf, Admit: a.admit, Problem: a.problem, Clock: cfg.Clock, Log: a.log})
	a.sockets = socket.New(socket.Config{Host: cfg.AdvertiseHost, Changed: a.notify, Reported: a.reported, Admit: a.admit, IsLocal: a.announceLocal, Local: a.reportedLocal, Clock: cfg.Clock, Logger: a.log})
	a.recallNotes()
	alive := slices.ContainsFunc(a.workers.Workers(), func(st worker.Status) bool { return st.State != worker.Exited })
	a.gpus, err = open.Prober(ctx, cfg.GPUs, open.Config{
		Node: cfg.Name, Busy: a.holds, Now: cfg.Clock, NVML: nvml.Config{Command: cfg.GPUProbe}, Log: a.log,
		Patient: alive,
	})
	if err != nil {
		return err
	}
	a.monitor = gpu.NewMonitor(a.gpus, pollGPUs, a.log)
	first, cancel := ctx, func() {}
	if alive {
		first, cancel = context.WithTimeout(ctx, firstPoll)
	}
	a.monitor.Poll(first) // so that the first Hello shows the GPUs
	cancel()
	if a.metrics, err = telemetry.New(a.registry, cfg.Name, a.snapshot); err != nil {
		return err
	}
	a.openStorage()
	if err = errors.Join(a.openPusher(), a.openTiers()); err != nil {
		return err
	}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if a.listener, err = listen("agent", cfg.Listen); err != nil {
		return err
	}
	if cfg.MetricsListen != "" {
		a.metricsListener, err = listen("metrics", cfg.MetricsListen)
	}
	return err
}

// recallNotes reads what the adopted workers said to a former agent, before the first report can go out: an end told
// without the checkpoint before it would cost that work.
func (a *Agent) recallNotes() {
	for _, st := range a.workers.Workers() {
		a.sockets.Track(reconcile.Key(st.Key), a.files(st))
	}
}

// listen explains a taken port.
func listen(what, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s for %s: %w: stop what uses the port, or choose another", address, what, err)
	}
	return l, nil
}

// Close gives back what New took; Run does it by itself. Workers go on. Calling it again is no error.
func (a *Agent) Close() error { return a.closing() }

func (a *Agent) closeAll() error {
	var errs []error
	for _, l := range []net.Listener{a.listener, a.metricsListener} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if a.sockets != nil {
		if a.keeper != nil {
			a.keeper.Close() // it tells the sockets of what it has committed
		}
		if a.pusher != nil {
			a.pusher.Close()
		}
		a.sockets.Shutdown()
	}
	if a.gpus != nil {
		errs = append(errs, a.gpus.Close())
	}
	if a.id != nil && a.id.fence != nil {
		errs = append(errs, a.id.close())
	}
	if a.workers != nil {
		errs = append(errs, a.workers.Close()) // last: it holds the lock of the state directory
	}
	return errors.Join(errs...)
}

// Address returns where the agent's NodeService is reached, host:port.
func (a *Agent) Address() string { return advertised(a.listener, a.cfg.AdvertiseHost) }

// MetricsAddress returns where /metrics listens, or "".
func (a *Agent) MetricsAddress() string {
	if a.metricsListener == nil {
		return ""
	}
	return a.metricsListener.Addr().String()
}

// NodeID returns the id that is kept in the state directory.
func (a *Agent) NodeID() string { return a.id.get().NodeID }

func advertised(l net.Listener, host string) string {
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return l.Addr().String()
	}
	return net.JoinHostPort(host, port)
}

// Run works until ctx ends, then returns nil and leaves the workers running. It returns an error if it cannot go on: a
// *WrongClusterError if the schedulers belong to another cluster, or what ended one of its listeners.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.loop(ctx) })
	g.Go(func() error { return a.connect(ctx) })
	g.Go(func() error { return a.monitor.Run(ctx) })
	g.Go(func() error { return a.storage.Run(ctx) })
	g.Go(func() error { return a.serve(ctx) })
	g.Go(func() error { return a.serveMetrics(ctx) })
	g.Go(func() error { return a.collect(ctx) })
	g.Go(func() error { return a.runTiers(ctx) })
	a.log.Info("agent started", "id", a.NodeID(), "incarnation", a.id.get().Incarnation, "address", a.Address(),
		"gpus", len(a.monitor.Latest().GPUs), "workers", len(a.workers.Workers()))
	err := g.Wait()
	a.log.Info("agent ends; its workers go on", "err", err)
	return errors.Join(err, a.Close())
}

// collect removes old output of finished workers.
func (a *Agent) collect(ctx context.Context) error {
	ticker := time.NewTicker(collectEvery)
	defer ticker.Stop()
	for {
		n, err := a.workers.Collect(a.keepFor(time.Now()), a.cfg.LogKeepBytes)
		if err != nil {
			a.log.Error("old output of workers cannot be removed", "err", err)
		} else if n > 0 {
			a.log.Info("removed output of old workers", "workers", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// keepFor is how long finished workers may stay: shorter than configured on a node that runs very many short ones.
func (a *Agent) keepFor(now time.Time) time.Duration {
	var exits []time.Time
	for _, st := range a.workers.Workers() {
		if st.Acked {
			exits = append(exits, st.ExitedAt)
		}
	}
	return keepNewest(exits, maxFinished, a.cfg.LogKeepFor, now)
}

// keepNewest returns a time to keep that leaves at most limit of the exits, and is at most keep.
func keepNewest(exits []time.Time, limit int, keep time.Duration, now time.Time) time.Duration {
	if len(exits) <= limit {
		return keep
	}
	slices.SortFunc(exits, func(x, y time.Time) int { return y.Compare(x) })
	return max(0, min(keep, now.Sub(exits[limit-1])))
}

// notify says that the leader should hear of a change.
func (a *Agent) notify() { poke(a.news) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// holds tells whether a living worker has the GPU or a share of it.
func (a *Agent) holds(uuid string) bool { return a.held()[uuid] > 0 }

// held has the thousandths of each GPU that living workers hold, as of the loop's last look. The map is shared: read,
// never write.
func (a *Agent) held() map[string]int {
	if held := a.heldGPUs.Load(); held != nil {
		return *held
	}
	return nil
}

// setHeld works out held anew.
func (a *Agent) setHeld(statuses []worker.Status) {
	held := map[string]int{}
	for _, st := range statuses {
		if st.State != worker.Exited {
			for _, uuid := range st.GPUs {
				held[uuid] += shareOf(st)
			}
		}
	}
	a.heldGPUs.Store(&held)
}

// snapshot is what a scrape shows.
func (a *Agent) snapshot() telemetry.Snapshot {
	reading := a.monitor.Latest()
	counts := map[telemetry.WorkerState]int{}
	var rings []telemetry.Ring
	for _, st := range a.workerStatuses() {
		if r := a.sockets.Notes(reconcile.Key(st.Key)).GetRing(); r != nil && st.State != worker.Exited {
			rings = append(rings, telemetry.Ring{Job: st.Key.Job, Rank: st.Key.Rank, Calls: r.GetCalls(), Bytes: r.GetBytes(), Busy: time.Duration(r.GetBusyNs())})
		}
		switch {
		case st.State == worker.Stopping || (st.Stopped() && st.State != worker.Exited):
			counts[telemetry.WorkerStopping]++
		case st.State != worker.Exited:
			counts[telemetry.WorkerRunning]++
		case st.Acked:
		case st.Lost:
			counts[telemetry.WorkerLost]++
		default:
			counts[telemetry.WorkerExited]++
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return telemetry.Snapshot{
		GPUs: reading.GPUs, Samples: reading.Samples, Held: a.held(), Workers: counts, Rings: rings, Connected: a.connected, Storage: a.storage.Status(time.Now()),
	}
}

// declinedNow returns a copy that the caller may keep.
func (a *Agent) declinedNow() map[reconcile.Key]declinedWorker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.declined)
}

func (a *Agent) setConnected(up bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected = up
}
