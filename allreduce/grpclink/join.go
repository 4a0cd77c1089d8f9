package grpclink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/internal/point"
)

// DefaultJoinTimeout covers workers whose imports take long on a cold file system.
const DefaultJoinTimeout = 30 * time.Second

const (
	minFlowWindow = 2 << 20  // smaller ones were measurably slower
	maxFlowWindow = 64 << 20 // bounds what gRPC may hold for one link
	minSecret     = 16       // bytes
	messageRoom   = 64 << 10 // largest message beside its payload
)

// Config says which ring to join, where the others are and where to listen.
type Config struct {
	// Job, Epoch and Formation fence the ring; see allreduce.Config.
	Job, Epoch uint64
	Formation  uint32
	// Rank is this worker's place, 0..len(Peers)-1.
	Rank int
	// Peers are the addresses (host:port) of all ranks in their order, this
	// one's included. Its length is the world size.
	Peers []string
	// Secret is known to the ranks of this (job, epoch) and to nobody else: each side of a link proves to the other that it knows it before
	// anything else is said or heard. workerclient.Meet gives it; 16 bytes or more. Only a world of one needs none: without one whoever can reach a
	// rank's address could take the place of another.
	Secret []byte
	// Listener is where the previous rank connects: what Peers[Rank] leads to.
	// Join owns it from the call on and closes it, also on error. A world of
	// one needs none.
	Listener net.Listener
	// DetectTimeout, ChunkBytes and Window are those of allreduce.Config, with
	// the same defaults.
	DetectTimeout      time.Duration
	ChunkBytes, Window int
	// SmallBytes is that of allreduce.Config.
	SmallBytes int
	// Path is what frames travel on. All ranks must be given the same; the zero value is PathAuto.
	Path Path
	// Wire is that of allreduce.Config.
	Wire allreduce.Wire
	// Machine tells machines apart: ranks with equal texts are taken to share memory. Empty: found out. To be set where several machines are to be
	// played on one.
	Machine string
	// JoinTimeout bounds how long the others may take to come; ctx may end it
	// sooner. Zero means DefaultJoinTimeout.
	JoinTimeout time.Duration
	// ServerTLS and ClientTLS are used for the link from the previous rank and
	// to the next one. Nil means no TLS. Set both on all ranks or none.
	ServerTLS, ClientTLS *tls.Config
	// Logger receives refused links and the ring's end. Nil means none.
	Logger *slog.Logger
	// Probe is that of allreduce.Config, for tests; it is called at points of joining too.
	Probe func(point.Point)

	dial   func(ctx context.Context, d *dialer) (stream, error) // opens a stream to the next rank; nil: dialRPC. For tests of how releases mix.
	grpcgo bool                                                 // grpc-go serves all streams, as in earlier releases; for tests too
}

// at tells a test that this rank is at a point of its joining.
func (c *Config) at(p point.Point) {
	if c.Probe != nil {
		c.Probe(p)
	}
}

// Join connects this rank with its neighbours and returns once all ranks of the
// ring have joined. Close the group to leave.
//
// If a rank does not come in time, every rank that did gets a
// *allreduce.RankLostError that names one that did not, and the text names each
// that a neighbour of it missed. A ring of another (job, epoch, formation) at a peer's
// address counts as not there, unless it is of a later epoch or formation of the same job:
// then the error is a *allreduce.FencedError, at once, as this worker is the late one.
func Join(ctx context.Context, cfg Config) (*allreduce.Group, error) {
	ring := allreduce.Config{
		Job: cfg.Job, Epoch: cfg.Epoch, Formation: cfg.Formation, Rank: cfg.Rank, WorldSize: len(cfg.Peers),
		DetectTimeout: cfg.DetectTimeout, JoinTimeout: cfg.JoinTimeout,
		ChunkBytes: cfg.ChunkBytes, Window: cfg.Window, Wire: cfg.Wire, SmallBytes: cfg.SmallBytes, Logger: cfg.Logger, Probe: cfg.Probe,
	}
	if ring.JoinTimeout == 0 {
		ring.JoinTimeout = DefaultJoinTimeout
	}
	ring = ring.WithDefaults()
	cfg.ChunkBytes, cfg.Window, cfg.SmallBytes, cfg.Logger = ring.ChunkBytes, ring.Window, max(ring.SmallBytes, 0), ring.Logger
	if err := errors.Join(ring.Validate(), cfg.validate()); err != nil {
		closeListener(cfg.Listener)
		return nil, err
	}
	if len(cfg.Peers) == 1 {
		closeListener(cfg.Listener)
		return allreduce.New(ring, nil, nil)
	}
	return connect(ctx, cfg, ring)
}

// connect starts both links, makes the group and waits for all ranks.
func connect(ctx context.Context, cfg Config, ring allreduce.Config) (*allreduce.Group, error) {
	pool := allreduce.NewPool(cfg.ChunkBytes)
	d, next := newDialer(ctx, cfg, (cfg.Rank+1)%len(cfg.Peers), pool)
	s := newServer(cfg, pool)
	go s.run(cfg.Listener) // ends in s.finish
	go d.run(next)         // ends in d.finish
	group, err := allreduce.New(ring, next, s.prev)
	if err != nil {
		return nil, errors.Join(err, next.Close(), s.prev.Close())
	}
	group.Connect(func(ctx context.Context, rank int, lane allreduce.Lane) (allreduce.Link, error) {
		return dialWire(ctx, cfg, rank, lane, pool)
	})
	s.serve(group)
	if err := group.Barrier(ctx); err != nil {
		_ = group.Close() // returns nil
		if last := d.lastError(); last != nil {
			return nil, fmt.Errorf("joining the ring: %w (last try to reach rank %d at %s: %w)", err, d.rank, d.addr, last)
		}
		return nil, fmt.Errorf("joining the ring: %w", err)
	}
	if err := share(ctx, cfg, group); err != nil {
		_ = group.Close() // returns nil
		return nil, fmt.Errorf("joining the ring: %w", err)
	}
	return group, nil
}

func newDialer(ctx context.Context, cfg Config, rank int, pool *allreduce.Pool) (*dialer, *link) {
	d := &dialer{cfg: cfg, rank: rank, addr: cfg.Peers[rank], pool: pool, done: make(chan struct{})}
	// The stream outlives ctx, which is only Join's.
	d.ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return d, newLink(pool, d.finish)
}

func (c Config) validate() error {
	if len(c.Peers) > 1 && c.Listener == nil {
		return fmt.Errorf("ring of job %d epoch %d: rank %d has no listener for rank %d to connect to",
			c.Job, c.Epoch, c.Rank, c.previous())
	}
	if (c.ServerTLS == nil) != (c.ClientTLS == nil) {
		return fmt.Errorf("ring of job %d epoch %d: TLS is set for one direction only: set both or none", c.Job, c.Epoch)
	}
	switch n := len(c.Secret); {
	case len(c.Peers) <= 1 || n >= minSecret:
	case n == 0:
		return fmt.Errorf("ring of job %d epoch %d: rank %d has no secret, so that whoever reaches an address of the ring could take part: give all ranks "+
			"the same %d random bytes or more (the agent does, if all nodes' agents are of a release that knows secrets)", c.Job, c.Epoch, c.Rank, minSecret)
	default:
		return fmt.Errorf("ring of job %d epoch %d: a secret of %d bytes can be guessed: give %d or more", c.Job, c.Epoch, n, minSecret)
	}
	if _, err := ParsePath(string(c.Path)); err != nil {
		return fmt.Errorf("ring of job %d epoch %d: %w", c.Job, c.Epoch, err)
	}
	return nil
}

// hello is this rank's greeting.
func (c Config) hello() allreduce.Header {
	return allreduce.Header{
		Kind: allreduce.KindHello, Job: c.Job, Epoch: c.Epoch, Formation: c.Formation, Rank: c.Rank,
		WorldSize: len(c.Peers), Window: c.Window, ChunkBytes: c.ChunkBytes, Length: uint64(c.SmallBytes), //nolint:gosec // not negative
	}
}

// fenced says that a ring refuses a rank of another.
func (c Config) fenced(ring, rank allreduce.Header) *allreduce.FencedError {
	return &allreduce.FencedError{
		Job: ring.Job, Epoch: ring.Epoch, Formation: ring.Formation,
		OtherJob: rank.Job, OtherEpoch: rank.Epoch, OtherFormation: rank.Formation, OtherRank: rank.Rank,
	}
}

func (c Config) previous() int { return (c.Rank + len(c.Peers) - 1) % len(c.Peers) }

// flowWindow lets a whole window of chunks be on its way.
func (c Config) flowWindow() int32 {
	return int32(min(max(minFlowWindow, c.Window*c.ChunkBytes), maxFlowWindow)) //nolint:gosec // bounded
}

func (c Config) serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.StaticStreamWindowSize(c.flowWindow()),
		grpc.StaticConnWindowSize(c.flowWindow()),
		grpc.MaxRecvMsgSize(c.ChunkBytes + messageRoom),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.WaitForHandlers(true),
		experimental.BufferPool(&readPool{}),
	}
}

func closeListener(l net.Listener) {
	if l != nil {
		_ = l.Close() // nothing was accepted from it
	}
}
