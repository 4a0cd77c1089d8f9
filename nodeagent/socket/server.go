package socket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/gangline/gangline/internal/grpclisten"
	"github.com/gangline/gangline/nodeagent/reconcile"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// flushEvery is the pace at which progress reaches the disk: a worker may report each step.
	flushEvery = time.Second
	// maxMessage bounds a request: 32 metrics and a path fit many times.
	maxMessage = 64 << 10
	// maxStreams bounds the calls that one worker has open at once; a data loader that forks may use a few.
	maxStreams = 64
)

// Config holds what a Server needs.
type Config struct {
	// NameAfter is how long a worker that lost a rank waits for the others before the leader is told which. Zero means 3 s.
	NameAfter time.Duration
	// PulseTimeout is how long a worker's process may leave a ping unanswered. Zero means 1.5 s.
	PulseTimeout time.Duration
	// Host is the node's name or address for workers of other nodes; it stands in for a wildcard address.
	Host string
	// Changed is called, without a lock held, after a worker said something that its leader should hear soon. It must
	// not block. Progress does not call it: progress is picked up with the next report. Nil: nobody is told.
	Changed func()
	// Reported is called, without a lock held, after a worker has reported a checkpoint of its own. It must not block. Nil: nobody is told.
	Reported func(reconcile.Key)
	// IsLocal says of the path of a checkpoint that a worker reports whether it is on nodes' own disks so far, and where it will be once it is on the
	// shared storage. Local is called in the place of Reported then, with what is kept of it. Nil: none is.
	IsLocal func(path string) (place string, local bool)
	Local   func(reconcile.Key, *agentv1.Checkpoint)
	// Admit makes room for a checkpoint of so many bytes, and says why it may not be committed. Nil: all may.
	Admit func(ctx context.Context, key reconcile.Key, bytes int64) error
	// Clock gives the wall clock, by which saves are due across restarts of the agent. Nil: time.Now.
	Clock func() time.Time
	// Logger takes what goes wrong; nil discards it.
	Logger *slog.Logger
}

// Stop is a stop in force, with deadlines of this process's clock.
type Stop struct {
	// Reason is a sentence for the worker.
	Reason string
	// Terminate is when SIGTERM comes, Kill when SIGKILL does.
	Terminate, Kill time.Time
}

// Files are the places of one worker.
type Files struct {
	// Socket is the path of its Unix socket; see Path.
	Socket string
	// Notes is the file that keeps what it said.
	Notes string
}

// Server is the agent's side of all agent sockets. All methods may be called concurrently.
type Server struct {
	cfg  Config
	log  *slog.Logger
	quit chan struct{}
	wg   sync.WaitGroup // the flusher and one goroutine for each socket

	mu        sync.Mutex
	closed    bool
	endpoints map[reconcile.Key]*endpoint
}

// New returns a server without sockets. Shutdown ends it.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, log: cfg.Logger, quit: make(chan struct{}), endpoints: map[reconcile.Key]*endpoint{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.cfg.Changed == nil {
		s.cfg.Changed = func() {}
	}
	if s.cfg.Reported == nil {
		s.cfg.Reported = func(reconcile.Key) {}
	}
	if s.cfg.IsLocal == nil || s.cfg.Local == nil {
		s.cfg.IsLocal, s.cfg.Local = func(path string) (string, bool) { return path, false }, func(reconcile.Key, *agentv1.Checkpoint) {}
	}
	if s.cfg.Admit == nil {
		s.cfg.Admit = func(context.Context, reconcile.Key, int64) error { return nil }
	}
	if s.cfg.Clock == nil {
		s.cfg.Clock = time.Now
	}
	s.wg.Add(1)
	go s.flushLoop()
	return s
}

// Track makes a worker known, with what its notes file holds. Tracking twice is no error.
func (s *Server) Track(key reconcile.Key, files Files) {
	s.mu.Lock()
	_, known := s.endpoints[key]
	s.mu.Unlock()
	if known {
		return
	}
	notes, err := loadNotes(files.Notes)
	if err != nil {
		s.log.Warn("what a worker said before is lost", "job", key.Job, "epoch", key.Epoch, "rank", key.Rank, "err", err)
	}
	e := &endpoint{server: s, key: key, files: files, notes: notes, pace: newPace(notes, s.cfg.Clock()), changed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoints[key] == nil {
		s.endpoints[key] = e
	}
}

// Serve opens the socket of a tracked worker, in the place of one that a former agent left. Serving twice is no
// error. Call it before the worker starts.
func (s *Server) Serve(key reconcile.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoints[key]
	if e == nil || s.closed {
		return fmt.Errorf("serve agent socket of worker %v: the worker is not tracked, or the agent is stopping", key)
	}
	if e.grpc != nil {
		return nil
	}
	listener, err := listen(e.files.Socket)
	if err != nil {
		return fmt.Errorf("serve agent socket of worker %v: %w", key, err)
	}
	listener = &pulseListener{Listener: listener, e: e}
	e.grpc = grpc.NewServer(append(pinging(cmp.Or(s.cfg.PulseTimeout, pulseTimeout)),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams), grpc.WaitForHandlers(true))...)
	agentv1.RegisterWorkerServiceServer(e.grpc, e)
	s.wg.Add(1)
	go func(g *grpc.Server) {
		defer s.wg.Done()
		if err := g.Serve(grpclisten.Wrap(listener)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.log.Error("agent socket ended", "job", key.Job, "epoch", key.Epoch, "rank", key.Rank, "err", err)
		}
	}(e.grpc)
	return nil
}

// listen replaces whatever lies at path: the agent's lock on its state directory says that nobody serves it.
func listen(path string) (net.Listener, error) {
	if err := ownDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Its folder is 0700, so nobody got in before this.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Hush closes the socket of a worker that has exited; its notes stay readable.
func (s *Server) Hush(key reconcile.Key) {
	s.mu.Lock()
	e := s.endpoints[key]
	var g *grpc.Server
	if e != nil {
		g, e.grpc = e.grpc, nil
	}
	s.mu.Unlock()
	if g != nil {
		g.Stop() // closes the listener, which removes the socket
		e.flush(s.log)
	}
}

// Forget closes the socket of a worker and drops what it said from memory. Its files are the caller's to remove.
func (s *Server) Forget(key reconcile.Key) {
	s.Hush(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.endpoints, key)
}

// Notes returns what a worker said: of the status only the rendezvous address and share, checkpoint, progress and peer_lost are
// set, and message holds what was seen of a lost peer. The receiver may keep and change it. Nil: not tracked.
func (s *Server) Notes(key reconcile.Key) *agentv1.WorkerStatus {
	e := s.find(key)
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return proto.CloneOf(e.notes)
}

// Committed keeps a checkpoint that was committed for a worker, as ReportCheckpoint does. A worker that is not tracked is left out.
func (s *Server) Committed(key reconcile.Key, c *agentv1.Checkpoint) {
	if e := s.find(key); e != nil {
		e.committed(c)
	}
}

// Gang is who makes up the ring of a worker's epoch now.
type Gang struct {
	// Formation numbers such sets within the epoch, from 1.
	Formation int32
	// Members are their ranks, in the ring's order.
	Members []int32
	// Peers are their addresses in the same order; empty until all have asked for their rendezvous.
	Peers []string
	// Secret is what only they know.
	Secret []byte
}

// SetGang tells a worker who makes up its ring; its Rendezvous returns once there are peers, and watchers of notices hear of a formation
// after that in which the worker met.
func (s *Server) SetGang(key reconcile.Key, g Gang) {
	if e := s.find(key); e != nil {
		e.setGang(g)
	}
}

// SetStop tells a worker that it is to stop; every watcher of notices hears it, and hears again if it changes.
func (s *Server) SetStop(key reconcile.Key, stop Stop) {
	if e := s.find(key); e != nil {
		e.setStop(stop)
	}
}

// Shutdown closes all sockets, ends all calls, brings the notes to disk and waits for all of it.
func (s *Server) Shutdown() {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	var keys []reconcile.Key
	for key := range s.endpoints {
		keys = append(keys, key)
	}
	s.mu.Unlock()
	for _, key := range keys {
		s.Hush(key)
	}
	if !already {
		close(s.quit)
	}
	s.wg.Wait()
}

func (s *Server) find(key reconcile.Key) *endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endpoints[key]
}

// flushLoop brings progress to disk once a second.
func (s *Server) flushLoop() {
	defer s.wg.Done()
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		all := make([]*endpoint, 0, len(s.endpoints))
		for _, e := range s.endpoints {
			all = append(all, e)
		}
		s.mu.Unlock()
		for _, e := range all {
			e.flush(s.log)
		}
	}
}
