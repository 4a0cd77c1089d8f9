package session

import (
	"cmp"
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

// connectTimeouts is for how many DetectTimeouts ranks of a gang that may shrink wait for each other's connections once all have told where they are: a rank that
// hangs in that moment is named, and the others meet again. They hear of each other within a second or so, or some more if the leader changes just then.
const connectTimeouts = 5

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
	// Formation is that of the group, or without peers the least that will do: after a loss one above that of the group that broke.
	Formation uint32
	// Secret is known to the ranks of this group and nobody else, 16 bytes or more: a stranger cannot join or listen. With Peers of several ranks it is
	// needed; the agent gives one.
	Secret []byte
}

// Join joins a group and waits until all ranks have come. A stop that the agent asks for meanwhile ends the wait. While a ring forms another rank may be
// lost: then it joins the next formation.
func (s *Session) Join(r JoinRequest) (handle int64, err error) {
	cfg, err := r.config()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), cfg.JoinTimeout)
	defer cancel()
	if len(r.Peers) > 1 && len(r.Secret) == 0 {
		return 0, invalid("join %d ranks without a secret: whoever reaches one's address could take part: give all ranks the same 16 random bytes or more", len(r.Peers))
	}
	if len(r.Peers) > 0 {
		if cfg.Listener, err = s.taken(r); err != nil {
			return 0, err
		}
		ring, err := grpclink.Join(ctx, cfg)
		if err != nil {
			return 0, err
		}
		return s.groups.put(newGroup(ring, int(r.Formation), nil)), nil
	}
	if _, err := s.place(); err != nil {
		return 0, err // such as one of several ranks, without an agent by which they find each other
	}
	client, stop, err := s.worker()
	if err != nil {
		return 0, err
	}
	lost := int(s.lost.Load()) - 1
	for least := int(r.Formation); ; {
		g, met, err := join(ctx, client, stop, cfg, r.Listen, least, lost)
		if err == nil {
			return s.groups.put(g), nil
		}
		place := RankOf(err)
		switch {
		case met.Formation == 0 || ctx.Err() != nil:
			return 0, err
		case client.Environment().Shrinks && place >= 0 && place < len(met.Members) && place != met.Place: // its own where a newer formation ended the wait
			lost = met.Members[place]
		case client.Formation() <= met.Formation:
			return 0, err
		}
		least = met.Formation + 1
	}
}

// config is what does not depend on the others.
func (r JoinRequest) config() (grpclink.Config, error) {
	path, err := grpclink.ParsePath(r.Path)
	if err != nil {
		return grpclink.Config{}, invalid("%w", err)
	}
	wire := allreduce.WireExact
	if r.Wire != "" {
		if wire, err = allreduce.ParseWire(r.Wire); err != nil {
			return grpclink.Config{}, invalid("%w", err)
		}
	}
	if r.JoinTimeout == 0 {
		r.JoinTimeout = DefaultJoinTimeout
	}
	return grpclink.Config{
		Job: r.Job, Epoch: r.Epoch, Formation: r.Formation, Rank: r.Rank, Peers: r.Peers, Secret: r.Secret,
		Path: path, Wire: wire, DetectTimeout: r.DetectTimeout, JoinTimeout: r.JoinTimeout,
	}, nil
}

// taken takes the listener of a request that names its peers.
func (s *Session) taken(r JoinRequest) (net.Listener, error) {
	if len(r.Peers) == 1 && r.Listener == 0 {
		return nil, nil //nolint:nilnil // a world of one needs none
	}
	return s.listeners.take(r.Listener, "listener")
}

// join meets the others of a formation through the agent and joins them. It gives up as soon as the agent knows of a newer formation.
func join(ctx context.Context, client *workerclient.Client, stop *stopper, cfg grpclink.Config, listen string, least, lost int) (*Group, workerclient.Meeting, error) {
	env := client.Environment()
	cfg.Job, cfg.Epoch = env.JobID, env.Epoch
	if env.WorldSize == 1 && !env.Shrinks {
		cfg.Peers = []string{""}
		ring, err := grpclink.Join(ctx, cfg)
		if err != nil {
			return nil, workerclient.Meeting{}, err
		}
		return newGroup(ring, 1, []int{0}), workerclient.Meeting{}, nil
	}
	if listen == "" {
		listen = ":0"
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, workerclient.Meeting{}, fmt.Errorf("listen for the previous rank: %w: choose another address", err)
	}
	met, err := rendezvous(ctx, client, listener.Addr(), stop, least, lost)
	if err != nil {
		return nil, workerclient.Meeting{}, errors.Join(err, listener.Close())
	}
	cfg.Rank, cfg.Peers, cfg.Secret, cfg.Listener = met.Place, met.Peers, met.Secret, listener
	cfg.Formation = uint32(met.Formation) //nolint:gosec // small
	if env.Shrinks {
		cfg.JoinTimeout = min(cfg.JoinTimeout, connectTimeouts*cmp.Or(cfg.DetectTimeout, allreduce.DefaultDetectTimeout))
	}
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		if client.AwaitFormation(ctx, met.Formation) {
			cancel()
		}
	})
	defer wait.Wait()
	defer cancel()
	ring, err := grpclink.Join(ctx, cfg)
	if err != nil {
		return nil, met, err
	}
	client.FollowRing(func() workerclient.Ring { return workerclient.Ring(ring.Stats()) }) // the agent is told how it goes
	return newGroup(ring, max(met.Formation, 1), met.Members), met, nil
}

// rendezvous waits for all ranks' addresses, or for the agent's wish to stop: peers may never come.
func rendezvous(ctx context.Context, client *workerclient.Client, addr net.Addr, stop *stopper, least, lost int) (workerclient.Meeting, error) {
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
	met, err := client.MeetAfterLoss(ctx, told, least, lost)
	select {
	case <-stop.asked:
		if err != nil {
			err = errors.Join(errors.New("the agent asked this worker to stop before all ranks had come"), err)
		}
	default:
	}
	return met, err
}
