package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy is what the cluster's admins have decided: who may have how much, who
// comes first, and what may be stopped for it. It is part of the state, and
// replaced as a whole by SetPolicy. A Policy is never edited once it is in a
// command. docs/policy.md explains every field with an example.
type Policy struct {
	Order      OrderName
	HalfLife   time.Duration // after which past use counts half in fair share
	Setback    time.Duration // by which twice the fair share puts a job back; 0: no fair share
	Weights    []TypeWeight  // of GPU types in fair share; a type not named weighs 1
	Queues     []QueuePolicy // sorted by path
	Levels     []Level       // of the topology, widest first; "node" is always the narrowest and not named
	Preemption Preemption
	Backfill   Backfill
	Defrag     Defrag
	Windows    []Window // advance reservations and maintenance, sorted by name
	Score      ScoreName

	Checkpoints CheckpointLimits
}

// CheckpointLimits is what users' checkpoints may take of the shared storage.
// Agents hold to it.
type CheckpointLimits struct {
	UserBytes int64       // of each user; 0: no limit
	Users     []UserBytes // of users that have another one, sorted by user
}

// UserBytes is a number of bytes of one user.
type UserBytes struct {
	User  string
	Bytes int64 // 0: no limit
}

// Of is the limit of a user, 0 for none.
func (l *CheckpointLimits) Of(user string) int64 {
	for i := range l.Users {
		if l.Users[i].User == user {
			return l.Users[i].Bytes
		}
	}
	return l.UserBytes
}

// OrderName names an order in which pending jobs are tried.
type OrderName string

// Orders that a policy may name. sjf and srtf need exact lengths, so only the
// simulator has them.
const (
	OrderGangline OrderName = "gangline" // priority, then learned service, fair share and age
	OrderFIFO     OrderName = "fifo"     // priority, then age
	OrderLAS      OrderName = "las"      // priority, then least attained service in levels
	OrderQSSF     OrderName = "qssf"     // priority, then shortest predicted GPU time
	OrderSJF      OrderName = "sjf"      // priority, then shortest exact length
	OrderSRTF     OrderName = "srtf"     // priority, then shortest exact remaining GPU time
)

// ScoreName names how nodes are chosen among those where a gang fits.
type ScoreName string

// Scores that a policy may name.
const (
	ScoreGangline ScoreName = "gangline"
	ScoreFGD      ScoreName = "fgd"
	ScoreBestFit  ScoreName = "bestfit"

	// ScoreConsolidated is best fit too, but for gangs too large for one node that name no level of the topology: they take whole
	// nodes, and the emptiest for the rest. It is the "consolidated placement" of the simulators of Tiresias and Helios.
	ScoreConsolidated ScoreName = "consolidated"
)

// TypeWeight says how much an hour of a GPU type counts.
type TypeWeight struct {
	Type  string
	Milli int64 // thousandths, 1..1,000,000
}

// TypeCount is a number of GPUs of a type.
type TypeCount struct {
	Type string // empty: of all types together
	GPUs int64
}

// QueuePolicy is one node of the tree of queues. Its parent is the path
// without the last name, and must be named too. Jobs may wait in any of them.
type QueuePolicy struct {
	Path string
	// Quota is guaranteed: either of GPU types, or one number of any type. What
	// is unused is lent, and taken back when jobs of the queue need it.
	Quota  []TypeCount
	Limit  []TypeCount // never more than this, lent GPUs included; none named: no limit
	Weight int64       // of its share beside its siblings, thousandths, 1..1,000,000
	// UserLimit is how many GPUs one user's jobs may hold in this queue and
	// those below it; 0: no limit.
	UserLimit int64
	Closed    bool // takes no new jobs; those in it go on
}

// Level is one level of the topology: nodes with an equal value of the label
// (and of those above it) are one domain.
type Level struct {
	Name  string // such as "rack"
	Label string // such as "topology.gangline.dev/rack"
	// Domains name the nodes of each domain, sorted by name: those nodes have the
	// label with its name as value, instead of one that their agents give. None:
	// agents' labels alone.
	Domains []LevelDomain
}

// Preemption says what may be stopped so that another job can start.
type Preemption struct {
	Off         bool
	MinRuntime  time.Duration // a job that has run for less since its start is not stopped for another
	RestartCost time.Duration // what a restart costs each of the job's GPUs
	MaxPerJob   int32         // after so many preemptions a job is no longer a victim but for reclaimed quota
	MinGain     int64         // for service levels: a victim's key must be worse by this many thousandths of a level
}

// Backfill says how blocked jobs keep their place.
type Backfill struct {
	Off       bool          // strict: what cannot start blocks all behind it
	Reserve   int32         // blocked jobs that get a reservation each
	HoldAfter time.Duration // how long a job waits before nodes are kept for it
}

// Defrag moves cheap jobs to make room for a blocked gang.
type Defrag struct {
	On         bool
	MaxPerHour int32         // moves
	MaxCost    time.Duration // GPU time lost by one move, at most
}

// Window keeps nodes free of other jobs for a time.
type Window struct {
	Name        string
	Start, End  Time
	Nodes       []string // by name
	Selector    []Label  // nodes with all of these labels; none and no Nodes: all nodes
	Queue       string   // whose jobs may run there meanwhile; empty: nobody's (maintenance)
	Maintenance bool
}

// Limits of a policy.
const (
	MaxQueues      = 10_000
	MaxWindows     = 256
	maxLevels      = 8
	maxTypeCounts  = 64
	maxWeightMilli = 1_000_000
	maxQuotaGPUs   = 1 << 24
	maxSetback     = 30 * 24 * time.Hour
	maxPolicySpan  = 10 * 365 * 24 * time.Hour
)

// defaultSetback also holds for policies of releases that did not know it.
const defaultSetback = 6 * time.Hour

// DefaultPolicy is what holds until SetPolicy: one queue for all, the gangline
// order, preemption of jobs that allow it, and backfill.
func DefaultPolicy() *Policy {
	return &Policy{
		Order: OrderGangline, Score: ScoreGangline, HalfLife: 7 * 24 * time.Hour, Setback: defaultSetback,
		Levels: []Level{
			{Name: "block", Label: "topology.gangline.dev/block"},
			{Name: "rack", Label: "topology.gangline.dev/rack"},
		},
		Preemption: Preemption{MinRuntime: 5 * time.Minute, RestartCost: time.Minute, MaxPerJob: 128, MinGain: 1000},
		Backfill:   Backfill{Reserve: 8, HoldAfter: 5 * time.Minute},
		Defrag:     Defrag{MaxPerHour: 10, MaxCost: 30 * time.Minute},
	}
}

// Queue returns the policy of a queue, or nil.
func (p *Policy) Queue(path string) *QueuePolicy {
	i, ok := slices.BinarySearchFunc(p.Queues, path, func(q QueuePolicy, want string) int { return strings.Compare(q.Path, want) })
	if !ok {
		return nil
	}
	return &p.Queues[i]
}

// WeightOf is the weight of a GPU type in fair share, in thousandths. A MIG
// instance that is not named counts as its part of the board's compute slices.
func (p *Policy) WeightOf(gpuType string) int64 {
	for i := range p.Weights {
		if p.Weights[i].Type == gpuType {
			return p.Weights[i].Milli
		}
	}
	if board, slices, ok := InstanceOf(gpuType); ok {
		return max(p.WeightOf(board)*slices/slicesOf(board), 1)
	}
	return 1000
}

// ParentQueue returns the path of a queue's parent, or "" at the top.
func ParentQueue(path string) string {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)]
}

// CountOf returns the number for a type in a list, and whether it is named.
func CountOf(list []TypeCount, gpuType string) (int64, bool) {
	for i := range list {
		if list[i].Type == gpuType {
			return list[i].GPUs, true
		}
	}
	return 0, false
}

// withinLimits returns an error for people if a gang is larger than what its
// queue, or one above it, may ever hold. Types are those that it may have here.
func (p *Policy) withinLimits(spec *JobSpec, types []string) error {
	need := int64(spec.Least())
	for path := spec.Queue; path != ""; path = ParentQueue(path) {
		q := p.Queue(path)
		if q == nil {
			continue
		}
		if q.UserLimit > 0 && need > q.UserLimit {
			return fmt.Errorf("a gang of %s is larger than what one user may hold in queue %s (user_limit %d): ask for fewer GPUs", spec.Wants(), path, q.UserLimit)
		}
		if l, ok := CountOf(q.Limit, ""); ok && need > l {
			return fmt.Errorf("a gang of %s is larger than the limit of queue %s (%d GPUs): ask for fewer GPUs, or another queue", spec.Wants(), path, l)
		}
		fits := len(types) == 0 // no node has joined yet
		most := int64(0)
		for _, t := range types {
			l, ok := CountOf(q.Limit, t)
			fits = fits || !ok || l >= need
			most = max(most, l)
		}
		if !fits {
			return fmt.Errorf("a gang of %s is larger than the limit of queue %s (%d GPUs of these types): ask for fewer GPUs, another type, or another queue", spec.Wants(), path, most)
		}
	}
	return p.withinQuota(spec, types)
}

// withinQuota returns an error for people if a job may not be preempted, so
// that it may not borrow, and no quota that it comes under is large enough.
func (p *Policy) withinQuota(spec *JobSpec, types []string) error {
	quotas := slices.ContainsFunc(p.Queues, func(q QueuePolicy) bool { return len(q.Quota) > 0 })
	if spec.Preemptible || !quotas {
		return nil
	}
	if len(types) == 0 { // no node has joined yet: whatever types there will be
		types = p.quotaTypes(spec)
	}
	most := int64(0)
	for _, t := range types {
		others, from := int64(0), ""
		for path := spec.Queue; path != ""; from, path = path, ParentQueue(path) {
			p.eachPart(path, func(part string) {
				if part != from {
					others += p.promised(part, t)
				}
			})
			if most = max(most, p.promised(path, t)-others); most >= int64(spec.Least()) {
				return nil // mostly at once: to add up all parts of all queues above takes long where there are hundreds
			}
		}
	}
	if most <= 0 {
		return fmt.Errorf("queue %s has no quota, and a job that is not preemptible does not run on borrowed GPUs: submit it as preemptible, or to a queue with quota", spec.Queue)
	}
	return fmt.Errorf("a gang of %s is larger than the quota of queue %s (%d GPUs), and a job that is not preemptible does not run on borrowed GPUs: submit it as preemptible, or ask for fewer GPUs",
		spec.Wants(), spec.Queue, most)
}

// quotaTypes are the types that quotas name and a job could have, and "" for
// all others.
func (p *Policy) quotaTypes(spec *JobSpec) []string {
	types := []string{""}
	for i := range p.Queues {
		for _, c := range p.Queues[i].Quota {
			if c.Type != "" && AllowsType(spec, c.Type) {
				types = append(types, c.Type)
			}
		}
	}
	return types
}

// promised is what a queue is promised of a type, by itself or through its parts.
func (p *Policy) promised(path, gpuType string) int64 {
	if q := p.Queue(path); q != nil && len(q.Quota) > 0 {
		if n, ok := CountOf(q.Quota, ""); ok {
			return n
		}
		n, _ := CountOf(q.Quota, gpuType)
		return n
	}
	sum := int64(0)
	p.eachPart(path, func(part string) { sum += p.promised(part, gpuType) })
	return sum
}

// eachPart calls f for the queues right below one.
func (p *Policy) eachPart(path string, f func(string)) {
	below := path + "/"
	i, _ := slices.BinarySearchFunc(p.Queues, below, func(q QueuePolicy, want string) int { return strings.Compare(q.Path, want) })
	for ; i < len(p.Queues) && strings.HasPrefix(p.Queues[i].Path, below); i++ {
		if part := p.Queues[i].Path; !strings.Contains(part[len(below):], "/") {
			f(part)
		}
	}
}

func (p *Policy) levelNames() string {
	names := make([]string, 0, len(p.Levels)+1)
	for _, l := range p.Levels {
		names = append(names, l.Name)
	}
	return strings.Join(append(names, LevelNode, LevelIsland, LevelNUMA), ", ")
}
