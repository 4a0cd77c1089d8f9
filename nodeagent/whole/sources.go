package whole

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

const (
	// restFor is how long a node is not asked again after it has not answered, and missingFor after it has said that it has not got a file: it may be getting it.
	restFor    = 10 * time.Second
	missingFor = 2 * time.Second
	// askWithin bounds one chunk from another node. A node that stopped without a word costs that, once in restFor.
	askWithin = 10 * time.Second
	// maxBad bounds what is told of bad sources.
	maxBad = 16
)

// ErrMissing says that an agent has not got a file.
var ErrMissing = errors.New("the agent has not got the file")

// sources is where one copy's bytes come from.
type sources struct {
	r    *Request
	sums *checkpoint.Sums

	mu    sync.Mutex
	out   *Made
	rests map[string]time.Time // until when a node, or a node's file, is not asked
	first int                  // the node that is asked next
}

func newSources(r *Request, out *Made) *sources {
	return &sources{r: r, sums: r.Manifest.Sums(), out: out, rests: map[string]time.Time{}, first: int(r.Epoch % 7)} //nolint:gosec // small
}

// link gives a file that lies on this disk a second name. A disk that has no links, or no more of them, is as one that has not got the file: nothing is copied.
func (s *sources) link(name, to string) (bool, error) {
	from, ok := s.r.Link(name)
	if !ok {
		return false, nil
	}
	if err := os.Link(from, to); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return false, nil // it has just been removed, being safe
		}
		s.bad(name, fmt.Errorf("what lies on the node's own disk cannot be linked, it is fetched: %w", err))
		if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		return false, nil
	}
	if info, err := os.Stat(to); err == nil {
		s.mu.Lock()
		s.out.Linked += info.Size()
		s.mu.Unlock()
	}
	return true, syncDir(filepath.Dir(to))
}

// bad keeps what was not good.
func (s *sources) bad(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out.Bad) < maxBad {
		s.out.Bad = append(s.out.Bad, fmt.Errorf("%s of %s: %w", name, s.r.Manifest.Ref(), err))
	}
}

// fetch has a chunk from another node, or from the shared storage.
func (s *sources) fetch(ctx context.Context, name string, at int64, dst []byte) error {
	if s.r.Peers != nil && s.r.Ask != nil {
		for _, p := range s.peers(name) {
			err := s.ask(ctx, p, name, at, dst)
			if err == nil {
				s.count(&s.out.FromPeers, len(dst))
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	if err := s.r.Far(ctx, name, at, dst); err != nil {
		return err
	}
	s.count(&s.out.FromFar, len(dst))
	return nil
}

func (s *sources) count(n *int64, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n += int64(bytes)
}

type peer struct{ node, address string }

// peers lists whom to ask for a file, another one first each time.
func (s *sources) peers(name string) []peer {
	all := s.r.Peers()
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []peer
	for _, node := range slices.Sorted(maps.Keys(all)) {
		if now.After(s.rests[node]) && now.After(s.rests[node+"/"+name]) {
			out = append(out, peer{node, all[node]})
		}
	}
	if len(out) > 1 {
		s.first++
		k := s.first % len(out)
		out = slices.Concat(out[k:], out[:k])
	}
	return out
}

func (s *sources) ask(ctx context.Context, p peer, name string, at int64, dst []byte) error {
	bounded, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	err := s.r.Ask(bounded, p.address, name, at, dst)
	if err == nil {
		err = s.sums.Check(name, at, dst)
	}
	var damage *checkpoint.CorruptError
	s.mu.Lock()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing):
		s.rests[p.node+"/"+name] = time.Now().Add(missingFor)
	case errors.As(err, &damage):
		s.rests[p.node+"/"+name] = time.Now().Add(24 * time.Hour) // it is no better next time
	default:
		s.rests[p.node] = time.Now().Add(restFor)
	}
	s.mu.Unlock()
	if err != nil && !errors.Is(err, ErrMissing) && ctx.Err() == nil {
		s.bad(name, fmt.Errorf("from the agent of %s: %w", p.node, err))
	}
	return err
}
