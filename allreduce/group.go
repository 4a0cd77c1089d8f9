package allreduce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gangline/gangline/allreduce/internal/point"
	"github.com/gangline/gangline/allreduce/shm"
)

// Defaults and limits of Config.
const (
	// DefaultDetectTimeout is long enough for a busy machine's pauses and short
	// beside any training step worth saving.
	DefaultDetectTimeout = 2 * time.Second
	// DefaultChunkBytes is as much as a core's level 2 cache keeps between arrival, addition and departure. Of processor time for each byte
	// 256 KiB cost an eighth more, as each chunk wakes several goroutines, and 2 MiB nothing less.
	DefaultChunkBytes = 1 << 20
	// DefaultWindow is 4 MiB on the way at the default chunk: enough for a
	// 10 Gb/s link with 3.2 ms of round trip. More only leaves the caches.
	DefaultWindow = 4

	maxChunkBytes = 4 << 20 // above, a heartbeat waits too long behind a chunk on a slow link
	maxWindow     = 1024    // bounds the inbox
	maxWorldSize  = 1 << 16 // bounds the arithmetic of ranks

	beatsPerTimeout  = 4 // two may be late before a rank counts as lost
	checksPerTimeout = 8 // the watch finds out at most an eighth too late
	maxLinger        = time.Second
)

// Config says which ring a Group belongs to and how it behaves. All ranks of a
// ring must have the same ChunkBytes, Window and WorldSize.
type Config struct {
	// Job, Epoch and Formation fence the ring: frames of any other are refused.
	Job, Epoch uint64
	// Formation numbers the rings of one epoch, whose set of ranks changes when some are lost or join: up to 2^24-1, the later the larger.
	Formation uint32
	// Rank is this worker's place in the ring, 0..WorldSize-1.
	Rank int
	// WorldSize is the number of ranks, 1..65536.
	WorldSize int
	// DetectTimeout is how long a neighbour may be silent, or leave our
	// heartbeats unread, before it is lost. Zero means DefaultDetectTimeout.
	// Too small, and a pause of a busy machine costs an epoch; too large, and
	// the GPUs of all other ranks wait that long for nothing.
	DetectTimeout time.Duration
	// JoinTimeout is how long after New a neighbour may take to say its first
	// word. Zero means DetectTimeout.
	JoinTimeout time.Duration
	// ChunkBytes is the largest payload of a frame: a multiple of 8, up to
	// 4 MiB. Zero means DefaultChunkBytes.
	ChunkBytes int
	// Window is how many frames may be on their way to a rank that has not
	// taken them: 2..1024. Zero means DefaultWindow. Each costs ChunkBytes of
	// memory at the receiver.
	Window int
	// SmallBytes is up to where an all-reduce goes by recursive doubling, where there are links to ranks beyond the neighbours; at most ChunkBytes.
	// Zero means DefaultSmallBytes; below zero: never. Too large, and elements cross the network log2 of WorldSize times instead of twice.
	SmallBytes int
	// Wire is the form in which float32 travels in sums and means whose vectors name none; the zero value is WireExact. All ranks give the same.
	Wire Wire
	// Logger receives one line when the ring breaks. Nil means none.
	Logger *slog.Logger
	// Probe is for tests of losses: it is called at each point of this rank's work that others could notice. Nil, always but there, means that nobody is.
	Probe func(point.Point)
}

// WithDefaults returns the config with every zero field that has a default set.
func (c Config) WithDefaults() Config {
	if c.DetectTimeout == 0 {
		c.DetectTimeout = DefaultDetectTimeout
	}
	if c.JoinTimeout == 0 {
		c.JoinTimeout = c.DetectTimeout
	}
	if c.ChunkBytes == 0 {
		c.ChunkBytes = DefaultChunkBytes
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.SmallBytes == 0 {
		c.SmallBytes = DefaultSmallBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate returns all problems of a config at once, or nil. Call it on the
// result of WithDefaults.
func (c Config) Validate() error {
	var problems []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	add(c.WorldSize < 1 || c.WorldSize > maxWorldSize, "world size is %d, must be 1..%d", c.WorldSize, maxWorldSize)
	add(c.Formation >= 1<<24, "formation is %d, must be below 2^24", c.Formation)
	add(c.Rank < 0 || c.Rank >= c.WorldSize, "rank is %d, must be 0..%d", c.Rank, c.WorldSize-1)
	add(c.DetectTimeout < checksPerTimeout, "detect timeout is %v, must be positive", c.DetectTimeout)
	add(c.JoinTimeout <= 0, "join timeout is %v, must be positive", c.JoinTimeout)
	add(c.ChunkBytes < wordBytes || c.ChunkBytes%wordBytes != 0 || c.ChunkBytes > maxChunkBytes,
		"chunk is %d bytes, must be a multiple of %d in %d..%d", c.ChunkBytes, wordBytes, wordBytes, maxChunkBytes)
	add(c.Window < 2 || c.Window > maxWindow, "window is %d frames, must be 2..%d", c.Window, maxWindow)
	add(c.Wire > WireInt8, "form on the wire is %d, must be WireExact, WireBFloat16 or WireInt8", c.Wire)
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("all-reduce of job %d epoch %d: bad config: %w", c.Job, c.Epoch, errors.Join(problems...))
}

// Group is one rank's membership of the ring of one (job, epoch). Make one call
// that waits at a time, on all ranks in the same order; calls that are started
// ([Group.StartAllReduce]) may be many. Close may be called at any time.
type Group struct {
	cfg   Config
	pool  *Pool
	start time.Time
	next  *edge // nil in a world of one
	prev  *edge

	busy  sync.Mutex    // held while a call is under way
	ended chan struct{} // closed when the group broke or was closed
	once  sync.Once     // guards err and farewell, both set before ended closes
	err   error
	bye   Header
	wait  sync.WaitGroup

	// The window to the next rank. acked is written by the reader of next,
	// sent by the call under way.
	acked  atomic.Uint64
	credit chan struct{} // holds a token when acked has grown
	sent   uint64

	// The window from the previous rank. inbox is filled by the reader of prev.
	inbox    chan *Frame
	taken    uint64
	credited uint64
	landing  landing

	sequence uint64        // the call under way
	underWay atomic.Uint64 // as sequence; 0: none
	short    atomic.Uint64 // that call, or the one before or after, in short

	// See agree.go.
	elsewhere atomic.Uint64           // the last call, by sequence, that did not go round the ring
	ringSeen  [ringSeen]atomic.Uint64 // the calls, by sequence, of which frames came round it lately

	deferred atomic.Pointer[abort] // heard while an earlier call was under way
	finished atomic.Uint64         // the last call that ended well
	doing    transfer
	queue    queue // calls that were started
	meter    meter
	ctx      attended // the context of the call that waits
	mesh     mesh
	life     context.Context //nolint:containedctx // ends with the group
	endLife  context.CancelFunc
	small    *Pool // frames without a payload

	team  *shm.Team // memory that all ranks share, or those of this machine; nil: they have none
	apart bool      // the team has not all ranks
	nodes nodes
	stage int // the large stage that the next block uses

	seen          [][]byte // the vectors of the call under way that lie in shared memory themselves
	given, taking [][]byte // what a block is combined from, and into
	room          []byte   // for what is between; made when needed
}

// New makes a group from links to the next and the previous rank, and starts to
// exchange heartbeats on them. The group owns the links and closes them. In a
// world of one both links are nil.
//
// New does not wait for other ranks: call Barrier to know that all are there.
func New(cfg Config, next, prev Link) (*Group, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Group{
		cfg:    cfg,
		pool:   NewPool(cfg.ChunkBytes),
		start:  time.Now(),
		ended:  make(chan struct{}),
		credit: make(chan struct{}, 1),
		inbox:  make(chan *Frame, cfg.Window),
		small:  NewPool(0),
	}
	g.queue.open()
	g.landing.init(g)
	g.mesh.nodes = make(chan Link, 1)
	g.life, g.endLife = context.WithCancel(context.Background())
	if cfg.WorldSize == 1 {
		g.wait.Go(g.serve)
		return g, nil
	}
	if next == nil || prev == nil {
		return nil, fmt.Errorf("all-reduce of job %d epoch %d: rank %d of %d needs a link to both neighbours",
			cfg.Job, cfg.Epoch, cfg.Rank, cfg.WorldSize)
	}
	g.next = newEdge(next, mod(cfg.Rank+1, cfg.WorldSize))
	g.prev = newEdge(prev, mod(cfg.Rank-1, cfg.WorldSize))
	for _, e := range g.edges() {
		g.wait.Go(func() { g.read(e) })
		g.wait.Go(func() { g.beat(e) })
		g.wait.Go(func() { g.closeEdge(e) })
	}
	g.wait.Go(g.watch)
	g.wait.Go(g.serve)
	g.wait.Go(g.closeWires)
	return g, nil
}

// Rank returns this rank's number.
func (g *Group) Rank() int { return g.cfg.Rank }

// WorldSize returns the number of ranks.
func (g *Group) WorldSize() int { return g.cfg.WorldSize }

// Lost returns the rank that the group broke for, or -1: it is whole, or was closed. It is safe for concurrent use.
func (g *Group) Lost() int {
	var lost *RankLostError
	if isClosed(g.ended) && errors.As(g.err, &lost) {
		return lost.Rank
	}
	return -1
}

// Close leaves the ring in good order and waits until all the group's
// goroutines have ended, at most about a second. A call under way returns
// ErrClosed; other ranks that still need this one get a RankLostError with the
// cause ErrLeft. It is safe to call more than once and after the group broke;
// it returns nil.
func (g *Group) Close() error {
	g.Leave()
	g.wait.Wait()
	g.ctx.forget()
	g.busy.Lock() // a call under way has seen the end, or will in a moment: its memory must not vanish beneath it
	defer g.busy.Unlock()
	if g.team != nil {
		_ = g.team.Close() // what could fail is to give back what the process's end gives back too
	}
	return nil
}

// depth is the number of chunks in a segment and of frames held for forwarding.
// The ring cannot lock up as long as Window >= depth + creditEvery - 1: see
// "Why it cannot lock up" in DESIGN.md.
func (g *Group) depth() int { return g.cfg.Window / 2 }

// creditEvery is how many frames are taken from the inbox for one credit frame.
func (g *Group) creditEvery() uint64 { return uint64(max(1, g.cfg.Window/4)) }

// fail breaks the group; only the first failure counts.
func (g *Group) fail(rank int, cause error) { g.failFrom(0, rank, cause) }

// failFrom breaks the group since a rank is missed from a call on; 0: at once.
func (g *Group) failFrom(call uint64, rank int, cause error) {
	lost := &RankLostError{Job: g.cfg.Job, Epoch: g.cfg.Epoch, Rank: rank, Cause: cause}
	if g.end(lost, Header{Kind: KindAbort, Rank: rank, Cause: cause.Error(), Sequence: call}) {
		g.cfg.Logger.Warn("all-reduce ring broke", "job", g.cfg.Job, "epoch", g.cfg.Epoch,
			"rank", g.cfg.Rank, "lost", rank, "cause", cause.Error())
	}
}

// end ends the group with this error and says bye to both neighbours. It
// reports whether it was the first to do so.
func (g *Group) end(err error, bye Header) bool {
	first := false
	g.once.Do(func() {
		first = true
		g.err, g.bye = err, bye
		close(g.ended)
		g.endLife()
		g.queue.wakeAll()
	})
	return first
}

// at tells a test that this rank is at a point of its work.
func (g *Group) at(p point.Point) {
	if g.cfg.Probe != nil {
		g.cfg.Probe(p)
	}
}

func (g *Group) edges() []*edge { return []*edge{g.next, g.prev} }

// stamp marks a header as belonging to this ring.
func (g *Group) stamp(h Header) Header {
	h.Job, h.Epoch, h.Formation = g.cfg.Job, g.cfg.Epoch, g.cfg.Formation
	return h
}

// control returns a frame without a payload.
func (g *Group) control(h Header) *Frame {
	f := g.small.Get(0)
	f.Header = g.stamp(h)
	return f
}

func (g *Group) linger() time.Duration { return min(g.cfg.DetectTimeout/2, maxLinger) }
