package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// DefaultJoinTimeout bounds the wait for ranks that never start: long enough for slow nodes and imports, shorter than anybody would leave
// GPUs idle.
const DefaultJoinTimeout = 5 * time.Minute

// JoinRequest says which group to join. Its zero value is that of the environment which the agent has given to this process: see
// workerclient.FromEnv. Outside Gangline that is a world of one.
type JoinRequest struct {
	// Listen is the address for the previous rank, ":0" if it is empty.
	Listen string
	// Path is what data travels on, by its name; empty means auto.
	Path string
	// Wire is the form in which float32 travels between machines in sums and means, by its name; empty means exact. All ranks give the same.
	Wire string
	// JoinTimeout bounds the wait for the other ranks; zero means DefaultJoinTimeout.
	JoinTimeout time.Duration
	// DetectTimeout is that of allreduce.Config.
	DetectTimeout time.Duration

	// Peers, if there are any, are the addresses of all ranks by rank, and the environment is not asked: Listener is a handle of
	// Session.Listen, and Job, Epoch and Rank say who this is.
	Peers      []string
	Listener   int64
	Job, Epoch uint64
	Rank       int
	// Secret is known to the ranks of this group and nobody else, 16 bytes or more: a stranger cannot join or listen then. The agent gives one.
	Secret []byte
}

// Join joins a group and waits until all ranks have come. A stop that the agent asks for meanwhile ends the wait.
func (s *Session) Join(r JoinRequest) (handle int64, err error) {
	path, err := grpclink.ParsePath(r.Path)
	if err != nil {
		return 0, invalid("%w", err)
	}
	wire := allreduce.WireExact
	if r.Wire != "" {
		if wire, err = allreduce.ParseWire(r.Wire); err != nil {
			return 0, invalid("%w", err)
		}
	}
	if r.JoinTimeout == 0 {
		r.JoinTimeout = DefaultJoinTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.JoinTimeout)
	defer cancel()
	cfg := grpclink.Config{
		Job: r.Job, Epoch: r.Epoch, Rank: r.Rank, Peers: r.Peers, Secret: r.Secret,
		Path: path, Wire: wire, DetectTimeout: r.DetectTimeout, JoinTimeout: r.JoinTimeout,
	}
	if len(r.Peers) > 0 {
		cfg.Listener, err = s.taken(r)
	} else {
		err = s.meet(ctx, r, &cfg)
	}
	if err != nil {
		return 0, err
	}
	ring, err := grpclink.Join(ctx, cfg)
	if err != nil {
		return 0, err
	}
	if len(r.Peers) == 0 { // it was found through the agent, who is told how it goes
		if client, _, err := s.worker(); err == nil {
			client.FollowRing(func() workerclient.Ring { return workerclient.Ring(ring.Stats()) })
		}
	}
	return s.groups.put(newGroup(ring)), nil
}

// taken takes the listener of a request that names its peers.
func (s *Session) taken(r JoinRequest) (net.Listener, error) {
	if len(r.Peers) == 1 && r.Listener == 0 {
		return nil, nil //nolint:nilnil // a world of one needs none
	}
	return s.listeners.take(r.Listener, "listener")
}

// meet finds the other ranks through the agent.
func (s *Session) meet(ctx context.Context, r JoinRequest, cfg *grpclink.Config) error {
	client, stop, err := s.worker()
	if err != nil {
		return err
	}
	env := client.Environment()
	cfg.Job, cfg.Epoch, cfg.Rank = env.JobID, env.Epoch, env.Rank
	if env.WorldSize == 1 {
		cfg.Peers = []string{""}
		return nil
	}
	if r.Listen == "" {
		r.Listen = ":0"
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.Listen)
	if err != nil {
		return fmt.Errorf("listen for the previous rank: %w: choose another address", err)
	}
	met, err := rendezvous(ctx, client, listener.Addr(), stop)
	if err != nil {
		return withClose(err, listener)
	}
	cfg.Peers, cfg.Secret, cfg.Listener = met.Peers, met.Secret, listener
	cfg.Rank, cfg.Formation = met.Place, uint32(met.Formation) //nolint:gosec // small; in the first formation the place is the rank
	return nil
}

// rendezvous waits for all ranks' addresses, or for the agent's wish to stop: peers may never come.
func rendezvous(ctx context.Context, client *workerclient.Client, addr net.Addr, stop *stopper) (workerclient.Meeting, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		select {
		case <-stop.asked:
			cancel()
		case <-ctx.Done():
		}
	})
	defer wait.Wait()
	defer cancel()
	told := addr.String()
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		told = fmt.Sprintf(":%d", tcp.Port) // the agent puts in the host at which other nodes reach this one
	}
	met, err := client.Meet(ctx, told)
	select {
	case <-stop.asked:
		if err != nil {
			err = errors.Join(errors.New("the agent asked this worker to stop before all ranks had come"), err)
		}
	default:
	}
	return met, err
}
