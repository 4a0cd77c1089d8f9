package grpclink

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/shm"
)

// nameBytes is the room for the name of shared memory in the message that tells it.
const nameBytes = 64

// share gives the group shared memory if all its ranks are on one machine and want it. All ranks make the same calls, whatever each
// wants and has, and all end with the memory or without.
func share(ctx context.Context, cfg Config, g *allreduce.Group) error {
	apart, err := placesOf(ctx, cfg, g)
	if err != nil {
		return err
	}
	if apart >= 0 {
		if cfg.Path == PathShared {
			return fmt.Errorf("ring of job %d epoch %d: rank %d shares no memory with rank %d: it is on another machine, runs as another user or "+
				"was told to use another path: choose the path auto", cfg.Job, cfg.Epoch, apart, g.Rank())
		}
		return nil
	}
	team, name, why := founded(ctx, cfg, g)
	if why != nil && !errors.As(why, new(*noMemoryError)) {
		return why // the ring is broken
	}
	if why != nil {
		cfg.Logger.Info("ring without shared memory", "job", cfg.Job, "epoch", cfg.Epoch, "rank", g.Rank(), "cause", why.Error())
	}
	has := []int8{1}
	if team == nil {
		has[0] = 0
	}
	err = g.AllReduce(ctx, allreduce.Of(has), allreduce.Min)
	if g.Rank() == 0 && name != "" {
		shm.Forget(name) // all have it, or never will
	}
	switch {
	case err == nil && has[0] == 1:
		g.Share(team)
		return nil
	case team != nil:
		_ = team.Close() // nobody uses it
	}
	if err == nil && cfg.Path == PathShared {
		return fmt.Errorf("ring of job %d epoch %d: no memory to share: %w", cfg.Job, cfg.Epoch, orElse(why))
	}
	return err
}

func orElse(why error) error {
	if why != nil {
		return why
	}
	return errors.New("another rank could not open it; its log says why")
}

// noMemoryError says why this rank has no shared memory, while the ring is whole.
type noMemoryError struct{ cause error }

func (e *noMemoryError) Error() string { return e.cause.Error() }
func (e *noMemoryError) Unwrap() error { return e.cause }

// placesOf tells all ranks where this one is, and returns a rank that is elsewhere or does not want to share, or -1.
func placesOf(ctx context.Context, cfg Config, g *allreduce.Group) (apart int, err error) {
	const size = sha256.Size
	all := make([]byte, size*g.WorldSize())
	if host := shm.Host(); host != "" && (cfg.Path == PathAuto || cfg.Path == PathShared) {
		place := sha256.Sum256([]byte(host))
		copy(all[size*g.Rank():], place[:])
	}
	if err := g.AllGather(ctx, allreduce.Bits(allreduce.Int8, all)); err != nil {
		return 0, err
	}
	mine := all[size*g.Rank():][:size]
	nowhere := bytes.Equal(mine, make([]byte, size))
	for r := range g.WorldSize() {
		if nowhere || !bytes.Equal(all[size*r:][:size], mine) {
			return r, nil
		}
	}
	return -1, nil
}

// seal is what rank 0 leaves in the memory that it makes, and nobody else can.
func (c Config) seal(name string) []byte {
	mac := hmac.New(sha256.New, c.Secret)
	fmt.Fprintf(mac, "gangline ring memory 1\x00%d\x00%d\x00%s", c.Job, c.Epoch, name)
	return mac.Sum(nil)
}

// founded lets rank 0 make the memory and the others join it. An error other than a noMemoryError is the ring's.
func founded(ctx context.Context, cfg Config, g *allreduce.Group) (team *shm.Team, name string, err error) {
	text := make([]byte, nameBytes)
	var why error
	if g.Rank() == 0 {
		if team, name, why = shm.Create(g.WorldSize()); why == nil {
			copy(text, name)
			copy(team.Seal(), cfg.seal(name))
		}
	}
	if err := g.Broadcast(ctx, allreduce.Bits(allreduce.Int8, text), 0); err != nil {
		if team != nil {
			shm.Forget(name)
			_ = team.Close() // nobody uses it
		}
		return nil, "", err
	}
	if g.Rank() > 0 {
		if name = string(bytes.TrimRight(text, "\x00")); name == "" {
			return nil, "", &noMemoryError{errors.New("rank 0 could make none; its log says why")}
		}
		team, why = shm.Join(name, g.Rank(), g.WorldSize())
		if why == nil && !hmac.Equal(team.Seal()[:sha256.Size], cfg.seal(name)) {
			_ = team.Close() // nobody uses it
			team, why = nil, fmt.Errorf("shared memory %s was not made by rank 0 of this ring", name)
		}
	}
	if why != nil {
		return nil, name, &noMemoryError{why}
	}
	return team, name, nil
}
