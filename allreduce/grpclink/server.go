package grpclink

import (
	"crypto/subtle"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink/h2stream"
	"github.com/gangline/gangline/allreduce/internal/point"
	"github.com/gangline/gangline/internal/grpclisten"
)

// helloTimeout bounds how long a stranger may hold a stream without a greeting.
const helloTimeout = 5 * time.Second

// choiceTimeout is how long a rank may take from this rank's greeting to its choice, for which it has dataTimeout, and how long what it has chosen may
// take to be handed over here. Its choice is its last word: it goes on at once, and a rank that is told by a broken connection that it came too late
// has lost the ring. So this is far longer than even a very busy machine needs.
const choiceTimeout = 20 * time.Second

// maxStreams bounds the streams of one connection: a rank needs one.
const maxStreams = 8

// maxOffers bounds greetings under way: each holds a socket for a few seconds at most.
const maxOffers = 16

const (
	serviceName = "gangline.ring.v1.RingService"
	linkMethod  = "/" + serviceName + "/Link"
)

// server serves the link from the previous rank.
type server struct {
	cfg  Config
	pool *allreduce.Pool
	grpc *grpc.Server
	prev *link
	free chan struct{} // holds a token until the previous rank has come
	done chan struct{}

	ready chan struct{}    // closed once group is set
	group *allreduce.Group // takes wires

	mu     sync.Mutex                    // guards what follows
	offers []*offer                      // under way, at most maxOffers
	calls  map[*h2stream.Stream]struct{} // that are served here, not by grpc-go
	cut    bool                          // calls are ended by force

	serving sync.WaitGroup // of calls
}

func newServer(cfg Config, pool *allreduce.Pool) *server {
	s := &server{
		cfg: cfg, pool: pool, grpc: grpc.NewServer(cfg.serverOptions()...), calls: map[*h2stream.Stream]struct{}{},
		free: make(chan struct{}, 1), done: make(chan struct{}), ready: make(chan struct{}),
	}
	s.free <- struct{}{}
	s.prev = newLink(pool, s.finish)
	s.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Link", ServerStreams: true, ClientStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			return s.handle(stream)
		}}},
		Metadata: "gangline/ring/v1/ring.proto",
	}, nil)
	return s
}

// run accepts connections until finish.
func (s *server) run(listener net.Listener) {
	defer close(s.done)
	p := newPort(listener, s.cfg.serverCredentials(), s.data, s.rpc)
	if s.cfg.grpcgo {
		p.rpc = nil
	}
	p.start()
	if err := s.grpc.Serve(grpclisten.Wrap(p)); err != nil {
		s.prev.attach(nil, fmt.Errorf("serving the previous rank on %v: %w", listener.Addr(), err))
	}
	_ = p.Close() // gRPC has closed it, or never will
}

// data takes a data connection: it belongs to one of the offers made over gRPC sessions, or to nobody.
func (s *server) data(conn net.Conn) {
	conn, shown, err := shownOn(conn, s.cfg.ServerTLS)
	if o := s.offered(shown); err == nil && o != nil {
		o.admit(conn)
		return
	}
	_ = conn.Close()
}

// offered finds the offer for a proof.
func (s *server) offered(shown string) *offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.offers {
		if subtle.ConstantTimeCompare([]byte(o.want), []byte(shown)) == 1 {
			return o
		}
	}
	return nil
}

// addOffer makes room for an offer, and reports whether there was some.
func (s *server) addOffer(o *offer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.offers) == maxOffers {
		return false
	}
	s.offers = append(s.offers, o)
	return true
}

func (s *server) dropOffer(o *offer) {
	s.mu.Lock()
	s.offers = slices.DeleteFunc(s.offers, func(other *offer) bool { return other == o })
	s.mu.Unlock()
	o.close()
}

// handle is one stream's life: greet, check, attach, wait for Close.
func (s *server) handle(stream stream) error {
	hello, err := s.hear(stream, helloTimeout)
	if err != nil {
		return err
	}
	s.cfg.at(point.HelloHeard)
	if cause := s.objection(hello); cause != "" {
		return s.refuse(stream, hello, cause)
	}
	if hello.Index != 0 {
		return s.handleWire(stream, hello)
	}
	chosen, err := s.admit(stream, hello)
	if err != nil {
		return err
	}
	s.prev.attach(chosen, nil)
	s.cfg.at(point.Attached)
	<-s.prev.closed
	return nil
}

// admit gives the previous rank's place away, to who has proved that it is a member, and returns what its frames travel on.
func (s *server) admit(stream stream, hello allreduce.Header) (stream, error) {
	o := newOffer(s.cfg.Path, s.data)
	defer s.dropOffer(o)
	if !s.addOffer(o) {
		return nil, s.refuse(stream, hello, fmt.Sprintf("%d others are greeting already", maxOffers))
	}
	path, err := s.meet(stream, hello, o)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.free:
	default:
		return nil, s.refuse(stream, hello, fmt.Sprintf("rank %d is connected already", hello.Rank))
	}
	chosen, err := s.choose(stream, o, path)
	if err != nil {
		s.free <- struct{}{} // it may come again
	}
	return chosen, err
}

// meet answers a hello with this rank's own and proof, and returns the path that the previous rank chose, once that has proved that it
// knows the secret too.
func (s *server) meet(stream stream, hello allreduce.Header, o *offer) (Path, error) {
	met := &session{secret: s.cfg.Secret, client: hello, server: s.cfg.hello()}
	met.server.Token, met.server.Socket = newNonce(), o.address()
	if s.cfg.Path == PathGRPC {
		met.server.Socket = noData
	} else {
		s.mu.Lock()
		o.want, o.answer = met.prove(roleData, ""), met.prove(roleDataServer, "")
		s.mu.Unlock()
	}
	answer := met.server
	answer.Proof = met.prove(roleServer, "")
	if err := stream.SendMsg(&allreduce.Frame{Header: answer}); err != nil {
		return "", err
	}
	s.cfg.at(point.HelloAnswered)
	chosen, err := s.hear(stream, choiceTimeout)
	if err != nil {
		return "", err
	}
	if chosen.Kind != allreduce.KindPath {
		return "", status.Errorf(codes.FailedPrecondition, "the second frame is of kind %d, want the choice of a path", chosen.Kind)
	}
	if !met.proves(roleClient, chosen.Socket, chosen.Proof) {
		return "", s.refuse(stream, hello, fmt.Sprintf("who dialled rank %d as rank %d does not know the group's secret", s.cfg.Rank, hello.Rank))
	}
	s.cfg.at(point.ProofHeard)
	return Path(chosen.Socket), nil
}

// choose returns what frames of the previous rank travel on.
func (s *server) choose(stream stream, o *offer, path Path) (stream, error) {
	if path == PathGRPC {
		if s.cfg.Path.own() {
			return nil, status.Errorf(codes.FailedPrecondition, "rank %d chose %s, but rank %d was told to use %s: give all ranks the same path",
				s.cfg.previous(), path, s.cfg.Rank, s.cfg.Path)
		}
		if own, ok := stream.(*rpc); ok {
			own.link = true
		}
		return stream, nil
	}
	limit := time.NewTimer(choiceTimeout)
	defer limit.Stop()
	select {
	case conn := <-o.came: // it was answered before the choice was sent, but perhaps not handed over yet
		return newDataStream(conn, s.pool), nil
	case <-limit.C:
		return nil, status.Error(codes.FailedPrecondition, "the data connection that was chosen never came")
	case <-s.gone(stream):
		return nil, status.Error(codes.Canceled, "the previous rank ended the stream")
	case <-s.prev.closed:
		return nil, status.Error(codes.Unavailable, "this rank leaves the ring")
	}
}

// gone is closed when a stream ends, on which nothing more is expected.
func (s *server) gone(stream stream) <-chan struct{} {
	if theirs, ok := stream.(grpc.ServerStream); ok {
		return theirs.Context().Done()
	}
	gone := make(chan struct{})
	s.serving.Go(func() { // ends with the stream, at the latest when handle has returned
		defer close(gone)
		hearOut(stream, s.pool)
	})
	return gone
}

// hearOut receives until a stream ends: so it answers what a proxy asks, though frames travel elsewhere.
func hearOut(s stream, pool *allreduce.Pool) {
	for in := (slot{pool: pool}); s.RecvMsg(&in) == nil; {
		in.frame.Release()
	}
}

// hear waits for a frame, not for ever.
func (s *server) hear(stream stream, patience time.Duration) (allreduce.Header, error) {
	type answer struct {
		header allreduce.Header
		err    error
	}
	got := make(chan answer, 1)
	go func() { // ends with the stream, at the latest when handle returns
		in := slot{pool: s.pool}
		if err := stream.RecvMsg(&in); err != nil {
			got <- answer{err: err}
			return
		}
		got <- answer{header: in.frame.Header}
		in.frame.Release()
	}()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case a := <-got:
		return a.header, a.err
	case <-limit.C:
		return allreduce.Header{}, status.Errorf(codes.DeadlineExceeded, "no word within %v", patience)
	case <-s.prev.closed:
		return allreduce.Header{}, status.Error(codes.Unavailable, "this rank leaves the ring")
	}
}

// objection says why a greeting does not belong here, or nothing.
func (s *server) objection(h allreduce.Header) string {
	mine, want := s.cfg.hello(), s.cfg.previous()
	switch {
	case h.Kind != allreduce.KindHello:
		return fmt.Sprintf("the first frame is of kind %d, want a hello", h.Kind)
	case h.Job != mine.Job || h.Epoch != mine.Epoch || h.Formation != mine.Formation:
		return s.cfg.fenced(mine, h).Error()
	case h.WorldSize != mine.WorldSize || h.Window != mine.Window || h.ChunkBytes != mine.ChunkBytes:
		return fmt.Sprintf("rank %d has world size %d, window %d, chunk %d bytes, but rank %d has %d, %d, %d: they must be equal",
			h.Rank, h.WorldSize, h.Window, h.ChunkBytes, mine.Rank, mine.WorldSize, mine.Window, mine.ChunkBytes)
	case h.Length != mine.Length:
		return fmt.Sprintf("rank %d takes vectors up to %d bytes for small, rank %d up to %d: they must be equal", h.Rank, h.Length, mine.Rank, mine.Length)
	case len(h.Token) != 2*nonceBytes:
		return fmt.Sprintf("rank %d sent no nonce: is it of another release?", h.Rank)
	case h.Index > uint64(allreduce.LaneNodes) || (h.Index != 0 && (h.Rank == mine.Rank || h.Rank >= mine.WorldSize)):
		return fmt.Sprintf("rank %d asks for lane %d to rank %d: is it of another release?", h.Rank, h.Index, mine.Rank)
	case h.Index == 0 && h.Rank != want:
		return fmt.Sprintf("rank %d dialled rank %d, whose previous rank is %d: check the order of peers", h.Rank, mine.Rank, want)
	default:
		return ""
	}
}

// refuse tells the dialler, with our job and epoch, and the log.
func (s *server) refuse(stream stream, hello allreduce.Header, cause string) error {
	s.cfg.Logger.Warn("ring link refused", "job", s.cfg.Job, "epoch", s.cfg.Epoch, "rank", s.cfg.Rank,
		"from_job", hello.Job, "from_epoch", hello.Epoch, "from_rank", hello.Rank, "cause", cause)
	answer := allreduce.Header{
		Kind: allreduce.KindRefuse, Job: s.cfg.Job, Epoch: s.cfg.Epoch, Formation: s.cfg.Formation, Rank: s.cfg.Rank, Cause: cause,
	}
	if err := stream.SendMsg(&allreduce.Frame{Header: answer}); err != nil {
		return err
	}
	return status.Error(codes.FailedPrecondition, cause)
}

// finish stops the server: streams that have ended get their last bytes out,
// what is left after lingerTime is cut.
func (s *server) finish(l *link) {
	l.endStream()
	force := func() {
		s.cutCalls()
		s.grpc.Stop()
	}
	cut := time.AfterFunc(lingerTime, force)
	s.grpc.GracefulStop()
	<-s.done // no further call comes
	s.serving.Wait()
	if !cut.Stop() {
		s.grpc.Stop() // returns once the timer's own call has done its work
	}
}
