package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// Replica is one server's copy of the cluster's state. All methods but Close
// and Lead may be called concurrently.
type Replica struct {
	cfg     Config
	log     *slog.Logger
	dir     *directory // nil with other storage
	guard   *guard     // nil with another transport
	fsm     *fsm
	logs    raft.LogStore
	disk    *diskWatch
	peers   *peerTransport
	raft    *raft.Raft
	metrics *metrics

	ctx      context.Context // ends with failure or Close
	cancel   context.CancelFunc
	stopping chan struct{} // closed by Close
	raftDone chan struct{} // closed when Raft has stopped
	tasks    tasks         // all goroutines but runLeadership

	failOnce sync.Once
	failed   chan struct{} // closed by fail
	failure  error         // before failed is closed

	leading     atomic.Pointer[leadership] // nil while another leads
	leadChanged notifier
	leadDone    chan struct{} // runLeadership has returned

	proposals    chan *proposal
	slots        chan struct{} // one token for each entry in flight
	flight       chan *entry
	proposerDone chan struct{}
	readers      readers

	clusterMu sync.Mutex
	clusterID string // as soon as known

	closeOnce sync.Once
	closeErr  error
}

// Open starts this server's replica on the data in cfg.Dir, or on an empty one.
// Raft's connections come from and go through layer; Close closes it.
func Open(cfg Config, layer raft.StreamLayer) (*Replica, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, errors.Join(err, layer.Close())
	}
	dir, err := openDirectory(&cfg)
	if err != nil {
		return nil, errors.Join(err, layer.Close())
	}
	r := newReplica(cfg)
	r.dir, r.clusterID = dir, dir.clusterID
	r.guard = newGuard(r, layer)
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: r.guard, Logger: newRaftLogger(cfg.Logger, "transport"), Stream: r.guard,
		MaxPool: transportPool, MaxRPCsInFlight: transportInFlight, Timeout: transportTimeout,
	})
	storage := Storage{Logs: dir.wal, Stable: dir.wal, Snapshots: dir.snapshots}
	if err := r.start(storage, transport); err != nil {
		r.cancel()
		return nil, errors.Join(err, transport.Close(), dir.close())
	}
	return r, nil
}

// OpenWith starts a replica on other storage and another transport: for tests
// and for clusters within one process. cfg.Dir is not used. The transport's
// local address must be this server's in cfg.Servers. Close closes the
// transport if it can be closed.
func OpenWith(cfg Config, storage Storage, transport raft.Transport) (*Replica, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := newReplica(cfg)
	if err := r.start(storage, transport); err != nil {
		r.cancel()
		return nil, err
	}
	return r, nil
}

func newReplica(cfg Config) *Replica {
	r := &Replica{
		cfg: cfg, log: cfg.Logger.With("server", cfg.ID),
		stopping: make(chan struct{}), raftDone: make(chan struct{}), failed: make(chan struct{}), leadDone: make(chan struct{}),
		proposals: make(chan *proposal, proposalQueue), slots: make(chan struct{}, maxEntriesFlight),
		flight: make(chan *entry, maxEntriesFlight), proposerDone: make(chan struct{}),
		readers: readers{kick: make(chan struct{}, 1)},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.metrics = newMetrics()
	r.fsm = newFSM(cfg.Release, cfg.Events, r.fail, r.identified)
	return r
}

// start brings Raft up: (1) check what is stored, (2) bootstrap if nothing ever
// was, (3) start Raft, (4) check its members, (5) start our own goroutines.
func (r *Replica) start(s Storage, t raft.Transport) error {
	if err := checkStorage(s); err != nil {
		return err
	}
	r.disk = newDiskWatch(r.fail, r.metrics.stored)
	logs, err := raft.NewLogCache(logCacheEntries, &watchedLogs{s.Logs, r.disk})
	if err != nil {
		return err
	}
	r.logs = logs
	s.Logs, s.Stable, s.Snapshots = logs, &watchedStable{s.Stable, r.disk}, timedSnapshots{s.Snapshots, r.metrics}
	r.peers = newPeerTransport(t)
	notify := make(chan bool)
	conf := r.raftConfig(notify)
	if err := r.bootstrap(conf, s); err != nil {
		return err
	}
	go r.runLeadership(notify)
	if err := r.startRaft(conf, s); err != nil {
		close(r.raftDone)
		<-r.leadDone
		return err
	}
	r.disk.running.Store(true)
	if err := errors.Join(r.checkMembers(), r.metrics.register(r)); err != nil {
		return errors.Join(err, r.Close())
	}
	r.tasks.start(r.runProposer)
	r.tasks.start(r.runCompleter)
	r.tasks.start(r.runReader)
	r.tasks.start(r.runWatchdog)
	r.tasks.start(r.runFailure)
	return nil
}

func (r *Replica) raftConfig(notify chan<- bool) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(r.cfg.ID)
	conf.HeartbeatTimeout = r.cfg.Heartbeat
	conf.ElectionTimeout = r.cfg.Election
	conf.LeaderLeaseTimeout = r.cfg.LeaderLease
	conf.SnapshotThreshold = r.cfg.SnapshotEntries
	conf.TrailingLogs = r.cfg.TrailingLogs
	conf.SnapshotInterval = r.cfg.SnapshotInterval
	conf.NotifyCh = notify
	conf.NoLegacyTelemetry = true
	conf.Logger = newRaftLogger(r.log, "raft")
	return conf
}

// bootstrap writes the first configuration if there is neither a log nor a sign
// that there ever was one: doing it over an existing cluster forks it.
func (r *Replica) bootstrap(conf *raft.Config, s Storage) error {
	exists, err := raft.HasExistingState(s.Logs, s.Stable, s.Snapshots)
	if err != nil {
		return fmt.Errorf("read stored state: %w", err)
	}
	if exists {
		return nil
	}
	if r.clusterID != "" {
		return fmt.Errorf("data directory %s is of cluster %s but its log is gone: restore it; or, while a majority of the other servers is healthy, delete the file %s so that this one rejoins empty", r.cfg.Dir, r.clusterID, clusterIDFile)
	}
	var members raft.Configuration
	for _, m := range r.cfg.Servers {
		members.Servers = append(members.Servers, raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address)})
	}
	if err := raft.BootstrapCluster(conf, s.Logs, s.Stable, s.Snapshots, r.peers, members); err != nil {
		return fmt.Errorf("write the first configuration: %w", err)
	}
	return nil
}

// startRaft turns Raft's panics over unreadable data into errors.
func (r *Replica) startRaft(conf *raft.Config, s Storage) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("start from stored data: %v: move the data directory %s away and let this server rejoin empty while the others are healthy", p, r.cfg.Dir)
		}
	}()
	r.raft, err = raft.NewRaft(conf, r.fsm, s.Logs, s.Stable, s.Snapshots, r.peers)
	if failure := r.Err(); failure != nil {
		return errors.Join(failure, r.stopRaft())
	}
	if err != nil {
		return fmt.Errorf("start from stored data: %w: its snapshot may be damaged or of a newer release: run the newest release, or move the data directory %s away and let this server rejoin empty while the others are healthy", err, r.cfg.Dir)
	}
	return nil
}

func (r *Replica) stopRaft() error {
	if r.raft == nil {
		return nil
	}
	return r.raft.Shutdown().Error()
}

// checkMembers compares the stored members with the configured ones.
func (r *Replica) checkMembers() error {
	f := r.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	var stored []string
	for _, s := range f.Configuration().Servers {
		stored = append(stored, string(s.ID))
	}
	want := r.cfg.serverIDs()
	slices.Sort(stored)
	slices.Sort(want)
	if !slices.Equal(stored, want) {
		return fmt.Errorf("data directory %s is of a cluster of servers %v, but the configuration lists %v: this release does not change members; list the same ids (addresses may change), or use another directory", r.cfg.Dir, stored, want)
	}
	return nil
}

// identified is told the cluster's id by the FSM, once for each start.
func (r *Replica) identified(id string) error {
	r.clusterMu.Lock()
	known := r.clusterID
	r.clusterID = id
	r.clusterMu.Unlock()
	if known != "" && known != id {
		return &WrongClusterError{What: "the log or snapshot in " + r.cfg.Dir, Theirs: id, Ours: known, Advice: "files of two clusters are mixed there: restore the directory from a backup"}
	}
	if known == "" && r.dir != nil {
		if err := writeClusterID(r.dir.path, id); err != nil {
			return err
		}
	}
	if known == "" && r.guard != nil {
		r.guard.recheck(id)
	}
	return nil
}

func (r *Replica) knownCluster() string {
	r.clusterMu.Lock()
	defer r.clusterMu.Unlock()
	return r.clusterID
}

// Leader returns the leader's id and address, or "" while none is known.
func (r *Replica) Leader() (id, address string) {
	_, leader := r.raft.LeaderWithID()
	return string(leader), r.cfg.address(string(leader))
}
