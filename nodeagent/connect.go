package nodeagent

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// Full-jitter back-off between two tries to find the leader: 12,500 agents must not come back in step. An election
	// takes a second or two, by the end of which an agent waits for half of backoffMax on average.
	backoffMin = 50 * time.Millisecond
	backoffMax = time.Second
	// maxAtOnce is how many tries may follow each other without a wait: from a dead server to the next one, and from there
	// to the leader that it names. With one less, the last of 12 agents is back after 1.3 s and not 0.75.
	maxAtOnce = 2
	// refusedWait is the pause after a refusal that only a person can mend, such as a name that is taken.
	refusedWait = 10 * time.Second
	// sayEvery is how often a leader that cannot be found is spoken of in the log.
	sayEvery = 10 * time.Second
	// maxServers bounds the addresses that a leader may teach; a Raft cluster has at most 7.
	maxServers = 16
)

// redirectError says that a server does not lead.
type redirectError struct{ leader string }

// Error names the leader, if known.
func (e *redirectError) Error() string {
	if e.leader == "" {
		return "the server does not lead and knows no leader"
	}
	return "the server does not lead; " + e.leader + " does"
}

// servers is the order in which servers are tried. It is for one goroutine.
type servers struct {
	configured []string // from the configuration, never forgotten
	learned    []string // from the last Welcome
	next       int
	last       string // tried last
	preferred  string // tried first, once
}

// pick returns the server to try: the leader that another one named, else the next in turn. The one that was tried
// last comes again only if there is no other: where a leader died, the others know the new one.
func (s *servers) pick() string {
	address := s.preferred
	s.preferred = ""
	if address == "" {
		all := s.all()
		if address = all[s.next%len(all)]; address == s.last && len(all) > 1 {
			s.next++
			address = all[s.next%len(all)]
		}
		s.next++
	}
	s.last = address
	return address
}

func (s *servers) all() []string {
	all := slices.Clone(s.configured)
	for _, address := range s.learned {
		if !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	return all
}

func (s *servers) learn(addresses []string) {
	s.learned = slices.Clone(addresses[:min(len(addresses), maxServers)])
}

// connect keeps a stream to the leader until ctx ends. Only a wrong cluster ends it with an error.
func (a *Agent) connect(ctx context.Context) error {
	list := &servers{configured: a.cfg.Servers, next: rand.IntN(len(a.cfg.Servers))}
	var retry backoff
	var saidAt time.Time
	for ctx.Err() == nil {
		address := list.pick()
		welcomed, err := a.session(ctx, address, list)
		if ctx.Err() != nil {
			return nil
		}
		if welcomed {
			retry = backoff{}
			a.log.Warn("lost the leader; workers go on", "server", address, "err", err)
			saidAt = time.Time{}
		}
		var wait time.Duration
		var redirect *redirectError
		var wrong *WrongClusterError
		switch {
		case errors.As(err, &wrong):
			wrong.StateDir = a.cfg.StateDir
			a.log.Error("this node belongs to another cluster; the agent ends, its workers go on", "server", address, "err", err)
			return err
		case errors.As(err, &redirect) && redirect.leader != "":
			list.preferred = redirect.leader
			wait = retry.atOnce()
		case refused(err) || (!welcomed && status.Code(err) == codes.Aborted): // aborted: an agent with a copy of our state
			wait = a.refusedWait/2 + rand.N(a.refusedWait)
			a.log.Error("the scheduler refuses this node; the agent tries again", "server", address, "why", status.Convert(err).Message(), "wait", wait)
		case welcomed || errors.As(err, &redirect):
			wait = retry.failed()
		default:
			if time.Since(saidAt) >= sayEvery {
				saidAt = time.Now()
				a.log.Warn("no connection to a scheduler; workers go on", "server", address, "err", err)
			}
			if len(list.all()) > 1 {
				wait = retry.atOnce()
			} else {
				wait = retry.failed()
			}
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
	return nil
}

// refused tells whether trying again soon is pointless: the name is taken, or the node's description is invalid.
func refused(err error) bool {
	return slices.Contains([]codes.Code{codes.AlreadyExists, codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated}, status.Code(err))
}

// backoff gives the waits between tries. It is for one goroutine.
type backoff struct {
	failures int
	free     int // tries since the last wait
}

// atOnce is the wait before another server is tried that may well lead: none, since an election that took long has made
// the other waits long and is over now. It is used up by servers that are all dead or that point at each other.
func (b *backoff) atOnce() time.Duration {
	if b.free >= maxAtOnce {
		return b.failed()
	}
	b.free++
	return 0
}

// failed is a random wait that may be twice as long after each failure.
func (b *backoff) failed() time.Duration {
	ceiling := min(backoffMin<<min(b.failures, 10), backoffMax)
	b.failures++
	b.free = 0
	return rand.N(ceiling)
}

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
