package grpclink

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/internal/point"
	"github.com/gangline/gangline/allreduce/shm"
)

// nameBytes is the room for the name of shared memory in the message that tells it.
const nameBytes = 64

// share gives the group shared memory: of all ranks if they are on one machine, of each machine's ranks if there are several, and want it.
// All ranks make the same calls, whatever each wants and has, and all end with the memory or without.
func share(ctx context.Context, cfg Config, g *allreduce.Group) error {
	places, err := placesOf(ctx, cfg, g)
	if err != nil {
		return err
	}
	cfg.at(point.PlacesTold)
	mine, leaders := machinesOf(places, g.Rank())
	if len(leaders) == g.WorldSize() || (cfg.Path == PathShared && len(leaders) > 1) || (cfg.Path == PathNodes && len(leaders) == 1) {
		return cfg.unlike(g, len(leaders))
	}
	team, name, why := founded(ctx, cfg, g, mine)
	if why != nil && !errors.As(why, new(*noMemoryError)) {
		return why // the ring is broken
	}
	if why != nil {
		cfg.Logger.Info("ring without shared memory", "job", cfg.Job, "epoch", cfg.Epoch, "rank", g.Rank(), "cause", why.Error())
	}
	has := []int8{1}
	if team == nil && len(mine) > 1 {
		has[0] = 0
	}
	cfg.at(point.MemoryJoined)
	err = g.AllReduce(ctx, allreduce.Of(has), allreduce.Min)
	cfg.at(point.MemoryAgreed)
	if g.Rank() == mine[0] && name != "" {
		shm.Forget(name) // all have it, or never will
	}
	switch {
	case err == nil && has[0] == 1 && len(leaders) == 1:
		g.Share(team)
		return nil
	case err == nil && has[0] == 1:
		if err := g.ShareNodes(ctx, team, mine, leaders); err != nil {
			return err
		}
		return g.Barrier(ctx) // all machines have their links
	case team != nil:
		_ = team.Close() // nobody uses it
	}
	if err == nil && cfg.Path.shares() {
		return fmt.Errorf("ring of job %d epoch %d: no memory to share: %w", cfg.Job, cfg.Epoch, orElse(why))
	}
	return err
}

// unlike says that ranks are not where the path needs them, if it was asked for.
func (c Config) unlike(g *allreduce.Group, machines int) error {
	if !c.Path.shares() {
		return nil
	}
	return fmt.Errorf("ring of job %d epoch %d: the path %s does not fit: rank %d sees %d ranks on %d machines (a rank of another user, or that was told to use "+
		"another path, counts as one): choose the path auto", c.Job, c.Epoch, c.Path, g.Rank(), g.WorldSize(), machines)
}

// machinesOf returns the ranks that are where this one is, and the lowest rank of each machine, in order. Where a rank says nothing it is alone.
func machinesOf(places [][sha256.Size]byte, rank int) (mine, leaders []int) {
	for r, p := range places {
		same := slices.IndexFunc(leaders, func(l int) bool { return places[l] == p && p != [sha256.Size]byte{} })
		if same < 0 {
			leaders = append(leaders, r)
		}
		if r == rank || (p == places[rank] && p != [sha256.Size]byte{}) {
			mine = append(mine, r)
		}
	}
	return mine, leaders
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

// placesOf tells all ranks where this one is, and returns where each is; zeros: it does not want to share.
func placesOf(ctx context.Context, cfg Config, g *allreduce.Group) ([][sha256.Size]byte, error) {
	const size = sha256.Size
	all := make([]byte, size*g.WorldSize())
	if host := shm.Host(); host != "" && (cfg.Path == PathAuto || cfg.Path.shares()) {
		place := sha256.Sum256([]byte(host + "/" + cfg.Machine))
		copy(all[size*g.Rank():], place[:])
	}
	if err := g.AllGather(ctx, allreduce.Bits(allreduce.Int8, all)); err != nil {
		return nil, err
	}
	places := make([][size]byte, g.WorldSize())
	for r := range places {
		copy(places[r][:], all[size*r:])
	}
	return places, nil
}

// seal is what a machine's first rank leaves in the memory that it makes, and nobody else can.
func (c Config) seal(name string) []byte {
	mac := hmac.New(sha256.New, c.Secret)
	fmt.Fprintf(mac, "gangline ring memory 1\x00%d\x00%d\x00%s", c.Job, c.Epoch, name)
	return mac.Sum(nil)
}

// founded lets the first rank of each machine make its memory and the others of it join. An error other than a noMemoryError is the ring's.
func founded(ctx context.Context, cfg Config, g *allreduce.Group, mine []int) (team *shm.Team, name string, err error) {
	names := make([]byte, nameBytes*g.WorldSize())
	var why error
	if g.Rank() == mine[0] && len(mine) > 1 {
		if team, name, why = shm.Create(len(mine)); why == nil {
			copy(names[nameBytes*g.Rank():], name)
			copy(team.Seal(), cfg.seal(name))
		}
		cfg.at(point.MemoryMade)
	}
	if err := g.AllGather(ctx, allreduce.Bits(allreduce.Int8, names)); err != nil {
		if team != nil {
			shm.Forget(name)
			_ = team.Close() // nobody uses it
		}
		return nil, "", err
	}
	if g.Rank() != mine[0] {
		if name = string(bytes.TrimRight(names[nameBytes*mine[0]:][:nameBytes], "\x00")); name == "" {
			return nil, "", &noMemoryError{fmt.Errorf("rank %d could make none; its log says why", mine[0])}
		}
		team, why = shm.Join(name, slices.Index(mine, g.Rank()), len(mine))
		if why == nil && !hmac.Equal(team.Seal()[:sha256.Size], cfg.seal(name)) {
			_ = team.Close() // nobody uses it
			team, why = nil, fmt.Errorf("shared memory %s was not made by rank %d of this ring", name, mine[0])
		}
	}
	if why != nil {
		return nil, name, &noMemoryError{why}
	}
	return team, name, nil
}
