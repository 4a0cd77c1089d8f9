package grpclink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gangline/gangline/allreduce"
)

// A wire is a link to a rank that need not be a neighbour. It is made as the ring's links are, by a greeting with proofs and the choice of a
// path; its hello holds the lane.

// dialWire opens a wire. It tries until it is connected, ctx ends, or there is no use; at most for the time in which a silent rank is lost, as all
// ranks have been there.
func dialWire(ctx context.Context, cfg Config, rank int, lane allreduce.Lane, pool *allreduce.Pool) (allreduce.Link, error) {
	d, l := newDialer(ctx, cfg, rank, pool)
	d.lane = lane
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(cfg.DetectTimeout, allreduce.DefaultDetectTimeout))
	defer cancel()
	close(d.done)                            // nobody runs it but this call
	stop := context.AfterFunc(ctx, d.cancel) // a rank that hangs takes connections, and answers nothing
	for {
		s, err := d.try()
		if err == nil {
			l.attach(s, nil)
			if stop() {
				return l, nil
			}
			err = errors.New("it answered too late")
		}
		var fenced *allreduce.FencedError
		if errors.Is(err, errNoPath) || errors.As(err, &fenced) {
			_ = l.Close() // it was never open
			return nil, err
		}
		pause := time.NewTimer(redialPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			_ = l.Close() // as above
			return nil, fmt.Errorf("no link to rank %d: %w (the last try: %w)", rank, context.Cause(ctx), err)
		}
	}
}

// serve lets wires of other ranks come.
func (s *server) serve(g *allreduce.Group) {
	s.group = g
	close(s.ready)
}

// handleWire is the life of a wire that another rank opened.
func (s *server) handleWire(stream stream, hello allreduce.Header) error {
	o := newOffer(s.cfg.Path, s.data)
	defer s.dropOffer(o)
	if !s.addOffer(o) {
		return s.refuse(stream, hello, fmt.Sprintf("%d others are greeting already", maxOffers))
	}
	path, err := s.meet(stream, hello, o)
	if err != nil {
		return err
	}
	select {
	case <-s.ready:
	case <-s.prev.closed:
		return errLinkClosed
	}
	chosen, err := s.choose(stream, o, path)
	if err != nil {
		return err
	}
	s.dropOffer(o)
	l := newLink(s.pool, func(l *link) { l.endStream() })
	l.attach(chosen, nil)
	s.group.Accept(hello.Rank, allreduce.Lane(hello.Index), l) //nolint:gosec // checked
	<-l.closed
	return nil
}
