package grpclink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/internal/point"
)

// dialer opens the link to the next rank.
type dialer struct {
	cfg    Config
	rank   int            // the next rank, or another that a wire leads to
	lane   allreduce.Lane // of a wire; 0: the ring's link
	addr   string
	pool   *allreduce.Pool
	ctx    context.Context //nolint:containedctx // the life of the stream, ended by Close
	cancel context.CancelFunc
	done   chan struct{}

	sessions sync.WaitGroup // streams, all of which end with ctx

	mu      sync.Mutex
	last    error // why the last try did not work
	refused error // what the neighbour itself last answered, if it ever did
}

// refusedError is why the neighbour does not take this rank, in its own word, or this rank not it. What comes later, such as that
// it has gone, tells less.
type refusedError struct{ cause string }

func (e *refusedError) Error() string { return e.cause }

// redialPause is short beside a worker's start, and long enough that waiting
// for a rank costs nothing.
const redialPause = 50 * time.Millisecond

// run tries until the neighbour greets back, refuses for good, or Close.
func (d *dialer) run(l *link) {
	defer close(d.done)
	for d.ctx.Err() == nil {
		s, err := d.try()
		if err == nil {
			l.attach(s, nil)
			return
		}
		if errors.Is(err, errNoPath) { // agreed on by nobody: the ranks were told different things
			l.attach(nil, err)
			return
		}
		var fenced *allreduce.FencedError
		if errors.As(err, &fenced) && fenced.Late() {
			l.attach(nil, err) // we are the late one, no waiting helps
			return
		}
		d.note(err)
		pause := time.NewTimer(redialPause)
		select {
		case <-pause.C:
		case <-d.ctx.Done():
			pause.Stop()
		}
	}
}

// errNoPath says that the path which was asked for cannot be had.
var errNoPath = errors.New("the path that was asked for cannot be had")

// timedOut tells whether a data connection failed for want of time.
func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// try opens a stream, exchanges greetings and agrees on what frames travel on.
func (d *dialer) try() (stream, error) {
	ctx, cancel := context.WithCancel(d.ctx)
	s, met, err := d.greet(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	context.AfterFunc(d.ctx, cancel) // the stream owns ctx from here
	conn, path, why := d.dialData(ctx, met)
	d.cfg.at(point.PathDialled)
	if path == PathGRPC && d.cfg.Path.own() {
		cancel()
		if timedOut(why) {
			return nil, fmt.Errorf("no data connection within %v: %w", dataTimeout, why) // the machine is busy: it is tried again
		}
		return nil, fmt.Errorf("%w: %w", errNoPath, why)
	}
	chosen := d.cfg.hello()
	chosen.Kind, chosen.Socket, chosen.Proof = allreduce.KindPath, string(path), met.prove(roleClient, string(path))
	if err := s.SendMsg(&allreduce.Frame{Header: chosen}); err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		cancel()
		return nil, err
	}
	d.cfg.at(point.PathChosen)
	if conn == nil {
		return s, nil
	}
	d.sessions.Go(func() { hearOut(s, d.pool) }) // ends with d.ctx
	return newDataStream(conn, d.pool), nil
}

// open opens a stream to the next rank, which ends with ctx.
func (d *dialer) open(ctx context.Context) (stream, error) {
	if d.cfg.dial != nil {
		return d.cfg.dial(ctx, d)
	}
	return d.dialRPC(ctx)
}

// greet opens a stream and exchanges greetings. The next rank has proved that it knows the secret when it returns without an error.
func (d *dialer) greet(ctx context.Context) (stream, *session, error) {
	met := &session{secret: d.cfg.Secret, client: d.cfg.hello()}
	met.client.Token, met.client.Index = newNonce(), uint64(d.lane)
	d.cfg.at(point.GreetDials)
	s, err := d.open(ctx)
	if err == nil {
		err = s.SendMsg(&allreduce.Frame{Header: met.client})
		d.cfg.at(point.GreetSaid)
	}
	answer := slot{pool: d.pool}
	if err == nil || errors.Is(err, io.EOF) {
		err = s.RecvMsg(&answer)
	}
	if err != nil {
		return nil, nil, err
	}
	h := answer.frame.Header
	answer.frame.Release()
	switch {
	case h.Job != d.cfg.Job || h.Epoch != d.cfg.Epoch || h.Formation != d.cfg.Formation:
		return nil, nil, d.cfg.fenced(h, d.cfg.hello())
	case h.Kind == allreduce.KindRefuse:
		return nil, nil, &refusedError{h.Cause}
	case h.Kind != allreduce.KindHello:
		return nil, nil, fmt.Errorf("who answers at %s sent a frame of kind %d, want a hello", d.addr, h.Kind)
	case h.Rank != d.rank:
		return nil, nil, fmt.Errorf("who answers at %s is rank %d, want rank %d: check the order of peers", d.addr, h.Rank, d.rank)
	}
	met.server = h
	met.server.Proof = ""
	if !met.proves(roleServer, "", h.Proof) {
		return nil, nil, &refusedError{fmt.Sprintf("who answers at %s as rank %d does not know the group's secret", d.addr, d.rank)}
	}
	d.cfg.at(point.GreetKnown)
	return s, met, nil
}

// finish ends the stream to the next rank: in good order if it takes part, by
// force after lingerTime.
func (d *dialer) finish(l *link) {
	l.endStream()
	d.cancel()
	<-d.done
	d.sessions.Wait()
}

// note remembers why a try did not work, unless it was our own Close.
func (d *dialer) note(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return
	}
	d.last = err
	if refused := (*refusedError)(nil); errors.As(err, &refused) {
		d.refused = err
	}
}

// lastError says why the neighbour was not reached: by its own word if there
// is one, since a rank that gave up before us can only be found absent.
func (d *dialer) lastError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused != nil {
		return d.refused
	}
	return d.last
}
