package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

const (
	// maxUsages bounds the users of whom the leader remembers what their checkpoints take; of more, those measured longest ago are forgotten.
	maxUsages = 10_000
	// maxUsagesTold bounds what one heartbeat may tell, and what may be asked for at once.
	maxUsagesTold = 1000
)

// usage is what one user's checkpoints take, and when that was so.
type usage struct {
	told *agentv1.CheckpointUsage // not to be edited
	at   time.Time
}

// learnUsage takes in what an agent has measured. Of two agents the later measurement holds, by their ages: their clocks may differ. The caller holds mu.
func (h *Hub) learnUsage(told []*agentv1.CheckpointUsage, now time.Time) {
	for _, u := range told[:min(len(told), maxUsagesTold)] {
		name := u.GetUser()
		if name == "" || len(name) > MaxUserBytes {
			continue
		}
		at := now.Add(-min(max(0, millis(u.GetAgeMs())), 365*24*time.Hour))
		old, known := h.usages[name]
		if known && old.at.After(at) {
			continue
		}
		if !known && len(h.usages) >= maxUsages {
			h.forgetOldestUsage()
		}
		h.usages[name] = usage{told: u, at: at}
	}
}

func (h *Hub) forgetOldestUsage() {
	oldest := ""
	for name, u := range h.usages { // any order: the least
		if o := h.usages[oldest]; oldest == "" || u.at.Before(o.at) || u.at.Equal(o.at) && name < oldest {
			oldest = name
		}
	}
	delete(h.usages, oldest)
}

// CheckpointUsage returns what users' checkpoints take, by user, as agents have told since this server leads, with what the policy lets them take: of those users that are named,
// or of all that are known.
func (h *Hub) CheckpointUsage(limits *cluster.CheckpointLimits, users []string) []*schedulerv1.CheckpointUsage {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(users) == 0 {
		for name := range h.usages {
			users = append(users, name)
		}
	}
	out := make([]*schedulerv1.CheckpointUsage, 0, len(users))
	for _, name := range users {
		p := &schedulerv1.CheckpointUsage{User: name, LimitBytes: limits.Of(name)}
		if u, ok := h.usages[name]; ok {
			p.Bytes, p.Checkpoints, p.Jobs, p.Unreadable = u.told.GetBytes(), u.told.GetCheckpoints(), u.told.GetJobs(), u.told.GetUnreadable()
			p.MeasuredUnixNs = u.at.UnixNano()
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *schedulerv1.CheckpointUsage) int { return strings.Compare(a.GetUser(), b.GetUser()) })
	return out
}

// ListCheckpointUsage returns what users' checkpoints take of the shared storage, and may take. The leader answers: it is in no state.
func (s *Service) ListCheckpointUsage(ctx context.Context, req *schedulerv1.ListCheckpointUsageRequest) (*schedulerv1.ListCheckpointUsageResponse, error) {
	if n := len(req.GetUsers()); n > maxUsagesTold {
		return nil, status.Errorf(codes.InvalidArgument, "users: %d are too many, at most %d may be asked for at once", n, maxUsagesTold)
	}
	return viaLeader(ctx, s,
		func(ctx context.Context) (*schedulerv1.ListCheckpointUsageResponse, error) {
			st, err := s.read(ctx, false)
			if err != nil {
				return nil, err
			}
			limits := &st.Policy().Checkpoints
			return &schedulerv1.ListCheckpointUsageResponse{Users: s.hub.CheckpointUsage(limits, slices.Clone(req.GetUsers())), LimitBytes: limits.UserBytes}, nil
		},
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.ListCheckpointUsageResponse, error) {
			return c.ListCheckpointUsage(ctx, req)
		})
}
