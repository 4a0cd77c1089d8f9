package workerclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// Waits between two tries to reach an agent: a restart takes a second or so, and an agent that is down for an
	// hour costs each worker two tries a second.
	retryMin = 20 * time.Millisecond
	retryMax = 500 * time.Millisecond
	// progressEvery limits reports of progress, whatever the length of a step.
	progressEvery = 100 * time.Millisecond
	// callTimeout bounds one report of progress: a newer one waits behind it.
	callTimeout = 5 * time.Second
	// closeWait bounds the last report of progress in Close.
	closeWait = time.Second
	// maxNotices bounds the notices that nobody has taken; the oldest goes first.
	maxNotices = 16
	// sameNotice is how far the deadlines of a repeated notice may differ from the first telling.
	sameNotice = time.Second
)

// ErrClosed is returned by calls on a closed Client.
var ErrClosed = errors.New("worker client is closed")

// Progress is how far the program is. It is a plain value.
type Progress struct {
	// Step is the training step; TotalSteps the number of all, 0 if unknown.
	Step, TotalSteps int64
	// DataEpoch counts passes over the data set.
	DataEpoch float64
	// Metrics by name, at most 32 with names of at most 64 bytes; the agent refuses more.
	Metrics map[string]float64
}

// Ring is what a worker's collective calls have come to since its group was made: what allreduce.Stats tells, of whatever library makes
// the calls. All ranks make the same ones, so who spends the least time in them comes last. It is a plain value.
type Ring struct {
	// Calls that ended well; Bytes of their vectors.
	Calls, Bytes int64
	// Busy is the time within them: waiting for other ranks, and moving and adding data.
	Busy time.Duration
}

// Checkpoint is a committed checkpoint.
type Checkpoint struct {
	// Step is its training step.
	Step int64
	// Path is its directory on the shared storage.
	Path string
	// Bytes is the size of all shards.
	Bytes int64
	// Cost is how long the save held up the training, Took how long it was until it was durable; 0: not known. The interval that a job
	// with interval auto saves by is worked out from them.
	Cost, Took time.Duration
}

// Notice asks the program to commit a checkpoint and exit. A later notice replaces an earlier one.
type Notice struct {
	// Reason is a sentence for people.
	Reason string
	// Terminate is when SIGTERM comes, Kill when SIGKILL does, by this process's clock.
	Terminate, Kill time.Time
}

// Client talks to the agent. All methods may be called concurrently. Without a socket it is a world of one.
type Client struct {
	env     Environment
	conn    *grpc.ClientConn // nil without a socket
	agent   agentv1.WorkerServiceClient
	notices chan Notice
	wake    chan struct{} // progress is waiting
	sending chan struct{} // held by the one call that reports progress: two at once could arrive in the other order

	ctx    context.Context //nolint:containedctx // the life of the client's goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup

	formation atomic.Int32

	mu       sync.Mutex
	closed   bool
	progress *agentv1.Progress                // not yet sent, or nil
	ring     func() Ring                      // nil: nobody has told
	untold   *agentv1.ReportCheckpointRequest // the newest that the agent has not heard of, or nil
	save     saveDue
	reformed chan struct{} // closed and replaced when formation grows
}

// Dial returns a client for this process's environment; see FromEnv. It does not wait for the agent, which may be
// restarting. Close the client.
func Dial(ctx context.Context) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	env, err := FromEnv()
	if err != nil {
		return nil, err
	}
	return New(env)
}

// New returns a client for a given environment.
func New(env Environment) (*Client, error) {
	c := &Client{
		env: env, notices: make(chan Notice, maxNotices), reformed: make(chan struct{}),
		wake: make(chan struct{}, 1), sending: make(chan struct{}, 1),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if env.Socket == "" {
		return c, nil
	}
	conn, err := grpc.NewClient("passthrough:///agent",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the folder's mode is the guard
		grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", env.Socket)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryMin, Multiplier: 2, Jitter: 0.2, MaxDelay: retryMax},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		c.cancel()
		return nil, fmt.Errorf("dial agent socket %s: %w", env.Socket, err)
	}
	c.conn, c.agent = conn, agentv1.NewWorkerServiceClient(conn)
	c.wg.Add(3)
	go c.sendProgress()
	go c.sendRing()
	go c.watchNotices()
	return c, nil
}

// Environment returns what the client was made from.
func (c *Client) Environment() Environment { return c.env }

// Meeting is who the ranks of this epoch are.
type Meeting struct {
	// Peers are the addresses of all members of the ring, by place.
	Peers []string
	// Place is this worker's among them: in the first formation its rank.
	Place int
	// Formation numbers the sets of workers that make up the ring within the epoch, from 1. 0 outside Gangline.
	Formation int
	// Members are the workers' ranks, by place.
	Members []int
	// Secret is what only they know: give it to grpclink.Config. Empty outside Gangline, and if a node's agent is of a release that had none:
	// then ranks cannot join.
	Secret []byte
}

// NobodyLost is for MeetAfterLoss of who has lost nobody.
const NobodyLost = -1

// Meet is MeetIn for any formation, as at the start.
func (c *Client) Meet(ctx context.Context, address string) (Meeting, error) {
	return c.MeetIn(ctx, address, 0)
}

// Formation returns the newest formation that the agent told of; 0 while it told of none. It is above that of the ring when a worker is
// to join, or one was lost: leave the ring after this step, on all ranks after the same one, and call MeetIn.
func (c *Client) Formation() int { return int(c.formation.Load()) }

// AwaitFormation waits until the agent has told of a formation after the given one, or ctx or the client has ended; it reports which.
func (c *Client) AwaitFormation(ctx context.Context, after int) bool {
	for {
		c.mu.Lock()
		news := c.reformed
		c.mu.Unlock()
		if c.Formation() > after {
			return true
		}
		select {
		case <-news:
		case <-ctx.Done():
			return false
		case <-c.ctx.Done():
			return false
		}
	}
}

// Rendezvous is Meet without the secret.
func (c *Client) Rendezvous(ctx context.Context, address string) ([]string, error) {
	m, err := c.Meet(ctx, address)
	return m.Peers, err
}

// MeetIn is MeetAfterLoss of who cannot say whom it lost.
func (c *Client) MeetIn(ctx context.Context, address string, least int) (Meeting, error) {
	return c.MeetAfterLoss(ctx, address, least, NobodyLost)
}

// MeetAfterLoss tells address (host:port at which this rank listens; a host of 0.0.0.0 or none means the node's own)
// and waits until all members of a formation of this epoch, the given one or a later one, have done so; it returns who they are. After a
// ring broke, ask for one more than its formation, and name the rank that was lost (Meeting.Members by its place), or NobodyLost: where all others name one
// that does not ask, the gang goes on without it. It survives agent restarts and leader changes; only ctx bounds it.
func (c *Client) MeetAfterLoss(ctx context.Context, address string, least, lost int) (Meeting, error) {
	if c.conn == nil {
		return Meeting{Peers: []string{address}}, nil
	}
	var m Meeting
	err := c.insist(ctx, func(ctx context.Context) error {
		req := &agentv1.RendezvousRequest{Address: address, Formation: int32(least), Lost: int32(lost + 1)} //nolint:gosec // small
		answer, err := c.agent.Rendezvous(ctx, req, grpc.WaitForReady(true))
		m = Meeting{Peers: answer.GetPeers(), Secret: answer.GetSecret(), Place: int(answer.GetRank()), Formation: int(answer.GetFormation())}
		for _, r := range answer.GetMembers() {
			m.Members = append(m.Members, int(r))
		}
		return err
	})
	if err != nil {
		return Meeting{}, fmt.Errorf("rendezvous of rank %d at %s: %w", c.env.Rank, address, err)
	}
	if m.Formation <= 1 && len(m.Peers) != c.env.WorldSize {
		return Meeting{}, fmt.Errorf("rendezvous of rank %d: the agent named %d peers in a world of %d", c.env.Rank, len(m.Peers), c.env.WorldSize)
	}
	return m, nil
}

// ReportProgress takes the latest progress and returns at once; a goroutine sends it. Only the latest counts.
func (c *Client) ReportProgress(p Progress) {
	if c.conn == nil {
		return
	}
	msg := &agentv1.Progress{Step: p.Step, TotalSteps: p.TotalSteps, DataEpoch: p.DataEpoch, Metrics: make(map[string]float64, len(p.Metrics))}
	for name, value := range p.Metrics {
		msg.Metrics[name] = value
	}
	c.mu.Lock()
	c.progress = msg
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// FollowRing lets the client ask a function each two seconds what the worker's collective calls have come to, and tell the agent: so
// "gangline show" can name the rank for which the others wait. The function must be fast and safe for concurrent use. One that is given
// later takes its place; nil ends it.
func (c *Client) FollowRing(stats func() Ring) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring = stats
}

// ReportCheckpoint tells of a committed checkpoint and returns when the agent has it on disk. It retries across an
// agent restart; only ctx bounds it, so give it a deadline: the checkpoint itself is safe either way, and the client goes on to tell of the newest one
// behind the call, until the agent is back or the client is closed.
func (c *Client) ReportCheckpoint(ctx context.Context, cp Checkpoint) error {
	if c.conn == nil {
		return nil
	}
	req := &agentv1.ReportCheckpointRequest{Checkpoint: &agentv1.Checkpoint{
		Step: cp.Step, Path: cp.Path, Bytes: cp.Bytes, CostMs: cp.Cost.Milliseconds(), TookMs: cp.Took.Milliseconds(), SavedUnixMs: time.Now().UnixMilli(),
	}}
	err := c.tellCheckpoint(ctx, req)
	if err != nil {
		if ctx.Err() != nil {
			c.tellLater(req)
		}
		return fmt.Errorf("report checkpoint of step %d: %w", cp.Step, err)
	}
	return nil
}

// ReportPeerLost tells that this worker is about to exit because it lost a rank, so that the job is started again
// without blame. Give ctx a short deadline.
func (c *Client) ReportPeerLost(ctx context.Context, rank int, cause string) error {
	if c.conn == nil {
		return nil
	}
	req := &agentv1.ReportPeerLostRequest{Rank: int32(rank), Cause: cause} //nolint:gosec // ranks are int32 in the contract
	err := c.insist(ctx, func(ctx context.Context) error {
		_, err := c.agent.ReportPeerLost(ctx, req, grpc.WaitForReady(true))
		return err
	})
	if err != nil {
		return fmt.Errorf("report lost rank %d: %w", rank, err)
	}
	return nil
}

// Notices returns the channel on which notices arrive; Close closes it. If nobody takes them the oldest are dropped.
func (c *Client) Notices() <-chan Notice { return c.notices }

// Close sends the last progress if the agent answers within a second, then ends the client. Calling it again is no
// error.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.sendLast()
	c.cancel()
	c.wg.Wait()
	close(c.notices)
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// sendLast sends what progress has not been sent yet, once, and keeps all other calls from following it.
func (c *Client) sendLast() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	select {
	case c.sending <- struct{}{}: // never given back: nothing may follow the last
	case <-ctx.Done():
		return // the agent does not answer the call before either
	}
	c.mu.Lock()
	last := c.progress // as it is now: the call before may have sent what was waiting, or something newer may have come
	c.mu.Unlock()
	if last != nil {
		_, _ = c.agent.ReportProgress(ctx, &agentv1.ReportProgressRequest{Progress: last}) // progress is a courtesy
	}
}

// insist repeats call until the agent has answered, ctx ends or the client is closed.
func (c *Client) insist(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := call(ctx)
		switch {
		case err == nil:
			return nil
		case c.ctx.Err() != nil:
			return ErrClosed
		case ctx.Err() != nil:
			return fmt.Errorf("the agent did not answer in time: %w", ctx.Err())
		case !passing(err):
			return err
		}
		if !pause(ctx, wait) && c.ctx.Err() == nil {
			return fmt.Errorf("the agent did not answer in time: %w", ctx.Err())
		}
	}
}

// passing tells whether an error is that of an agent which is away or going away.
func passing(err error) bool {
	return slices.Contains([]codes.Code{codes.Unavailable, codes.Canceled, codes.DeadlineExceeded}, status.Code(err))
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
