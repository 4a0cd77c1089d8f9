package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// connectTimeout bounds how long ranks of a gang that may shrink may take to connect once all have told where they are: one that dies or hangs in that moment
// is named, and the others meet again.
const connectTimeout = 10 * time.Second

// rings makes the rings of one worker.
type rings struct {
	client *workerclient.Client
	cfg    config
	stop   *stopper
	diag   io.Writer
}

// join finds the other ranks and makes a ring, of a formation or a later one: while it forms another rank may be lost. lost is whom the last ring lost.
func (r *rings) join(ctx context.Context, least, lost int) (*ring, error) {
	env := r.client.Environment()
	if env.WorldSize == 1 && env.Socket == "" {
		group, err := grpclink.Join(ctx, grpclink.Config{Job: env.JobID, Epoch: env.Epoch, Peers: []string{""}})
		return &ring{Group: group, formation: 1, members: []int{0}}, err
	}
	ctx, cancel := context.WithTimeout(ctx, rendezvousTimeout)
	defer cancel()
	for {
		made, formation, err := r.try(ctx, least, lost)
		if err == nil {
			r.client.FollowRing(func() workerclient.Ring { return workerclient.Ring(made.Stats()) })
		}
		var peer *allreduce.RankLostError
		switch {
		case err == nil || formation == 0 || ctx.Err() != nil:
			return made, err
		case env.Shrinks && errors.As(err, &peer) && made.member(peer.Rank) != env.Rank: // its own where a newer formation ended the wait
			lost = made.member(peer.Rank)
		case r.client.Formation() <= formation:
			return made, err
		}
		least = formation + 1
	}
}

// try meets the others and joins them. It gives up as soon as the agent knows of a newer formation.
func (r *rings) try(ctx context.Context, least, lost int) (*ring, int, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.cfg.listen)
	if err != nil {
		return nil, 0, fmt.Errorf("listen for the previous rank: %w: choose another -listen", err)
	}
	met, err := r.rendezvous(ctx, listener.Addr(), least, lost)
	if err != nil {
		return nil, 0, errors.Join(err, listener.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		if r.client.AwaitFormation(ctx, met.Formation) {
			cancel()
		}
	})
	defer wait.Wait()
	defer cancel()
	env := r.client.Environment()
	patience := time.Duration(0) // the default
	if env.Shrinks {
		patience = connectTimeout
	}
	group, err := grpclink.Join(ctx, grpclink.Config{
		JoinTimeout: patience,
		Job:         env.JobID, Epoch: env.Epoch, Formation: uint32(met.Formation), Rank: met.Place, Peers: met.Peers, Secret: met.Secret, //nolint:gosec // small
		Listener: listener, Logger: slog.New(slog.NewTextHandler(r.diag, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	return &ring{Group: group, formation: max(met.Formation, 1), members: met.Members}, met.Formation, err
}

// rendezvous waits for all ranks' addresses, or for a wish to stop: peers may never come.
func (r *rings) rendezvous(ctx context.Context, addr net.Addr, least, lost int) (workerclient.Meeting, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(func() {
		select {
		case <-r.stop.asked:
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
	met, err := r.client.MeetAfterLoss(ctx, told, least, lost)
	if reason, asked := r.stop.why(); err != nil && asked {
		return met, fmt.Errorf("asked to stop (%s) before all ranks had come, with nothing to save: %w", reason, err)
	}
	return met, err
}
