package nodeagent

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/gangline/gangline/checkpoint/usage"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// maxUses bounds the users of whom an agent remembers what their checkpoints take: a node runs jobs of few.
	maxUses = 256
	// measureEvery is how often a user's checkpoints are measured for nothing but to be told, where no limit asks for it at each commit.
	measureEvery = time.Minute
)

// uses is what users' checkpoints take, as this agent has last measured it, for the leader. The zero value is empty.
type uses struct {
	mu   sync.Mutex
	seen map[string]seenUse
}

type seenUse struct {
	use  usage.Use
	at   time.Time // monotonic
	told bool
}

// set notes a measurement.
func (u *uses) set(user string, use usage.Use, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, known := u.seen[user]; u.seen == nil || !known && len(u.seen) >= maxUses {
		u.seen = map[string]seenUse{}
	}
	u.seen[user] = seenUse{use: use, at: at}
}

// fresh says whether a user's checkpoints have been measured of late.
func (u *uses) fresh(user string, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	s, ok := u.seen[user]
	return ok && now.Sub(s.at) < measureEvery
}

// takeNew gives what has not been told yet, by user, and counts it as told.
func (u *uses) takeNew(now time.Time) []*agentv1.CheckpointUsage {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []*agentv1.CheckpointUsage
	for user, s := range u.seen { // any order: sorted below
		if s.told {
			continue
		}
		out = append(out, &agentv1.CheckpointUsage{
			User: user, Bytes: s.use.Bytes, Checkpoints: int64(s.use.Checkpoints), Jobs: int64(s.use.Jobs), Unreadable: int64(s.use.Unreadable),
			AgeMs: now.Sub(s.at).Milliseconds(),
		})
		s.told = true
		u.seen[user] = s
	}
	slices.SortFunc(out, func(a, b *agentv1.CheckpointUsage) int { return cmp.Compare(a.GetUser(), b.GetUser()) })
	return out
}

// tellAgain has all of it told once more, to another leader.
func (u *uses) tellAgain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for user, s := range u.seen { // any order: each by itself
		s.told = false
		u.seen[user] = s
	}
}

// measure measures a user's checkpoints in the background, unless that was done of late, or the storage is being measured now: the next commit asks again.
func (a *Agent) measure(user string) {
	if user == "" || a.uses.fresh(user, time.Now()) {
		return
	}
	select {
	case a.room <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-a.room }()
		ctx, cancel := context.WithTimeout(context.Background(), roomBehind)
		defer cancel()
		at := time.Now()
		use, err := a.meter.Of(ctx, user)
		if err != nil {
			a.log.Debug("what a user's checkpoints take cannot be measured", "user", user, "err", err)
			return
		}
		a.uses.set(user, use, at)
	}()
}
