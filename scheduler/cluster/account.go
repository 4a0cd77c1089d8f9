package cluster

import (
	"cmp"
	"math/bits"
	"slices"
	"time"
)

// Account is what one user has used of the cluster through one queue, for fair
// share. An Account in a State is replaced, never edited, but for one that no
// snapshot has yet.
type Account struct {
	Queue string
	User  string
	// Used is weighted milli-GPU-milliseconds, decayed by the policy's
	// half-life up to period Period, without what is held since Since.
	Used   int64
	Rate   int64 // weighted milli-GPUs that its jobs hold now
	Since  Time  // up to which Used counts what is held
	Period int64 // decay period that Used is in, see periodsPerHalfLife

	by *owner // who may edit it; nil: nobody, or it is forgotten
}

// periodsPerHalfLife is how finely use decays. All arithmetic on use is in
// whole numbers: floats differ between machines, and replicas must agree.
const periodsPerHalfLife = 64

// decayTable holds 2^(-k/64) as fractions of 2^32.
var decayTable = [periodsPerHalfLife]uint64{ //nolint:gochecknoglobals // table
	4294967296, 4248701965, 4202935003, 4157661043, 4112874773, 4068570940, 4024744348, 3981389855,
	3938502376, 3896076880, 3854108391, 3812591987, 3771522796, 3730896002, 3690706840, 3650950594,
	3611622603, 3572718252, 3534232978, 3496162267, 3458501653, 3421246719, 3384393094, 3347936457,
	3311872529, 3276197082, 3240905930, 3205994934, 3171459999, 3137297074, 3103502151, 3070071267,
	3037000500, 3004285971, 2971923842, 2939910317, 2908241642, 2876914102, 2845924021, 2815267765,
	2784941738, 2754942382, 2725266179, 2695909648, 2666869345, 2638141863, 2609723834, 2581611923,
	2553802834, 2526293303, 2499080105, 2472160047, 2445529972, 2419186755, 2393127307, 2367348571,
	2341847524, 2316621173, 2291666561, 2266980759, 2242560872, 2218404036, 2194507417, 2170868212,
}

// decay returns use that is some periods older.
func decay(used, periods int64) int64 {
	halves := periods / periodsPerHalfLife
	if periods <= 0 || used <= 0 {
		return max(used, 0)
	}
	if halves >= 63 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(used)>>uint(halves), decayTable[periods%periodsPerHalfLife])
	return int64(hi<<32 | lo>>32)
}

// periodLength is one decay period in nanoseconds.
func (p *Policy) periodLength() int64 { return max(int64(p.HalfLife)/periodsPerHalfLife, 1) }

// DecayPeriod is how long use keeps its worth: after each such period, a 64th
// of the half-life, all of it counts 2^(-1/64) as much.
func (p *Policy) DecayPeriod() time.Duration { return time.Duration(p.periodLength()) }

// UsedAt returns the account's decayed use at a time, in weighted
// milli-GPU-milliseconds, with what it holds counted up to then. Now must not
// lie before the account's last change. It saturates far below overflow.
func (a *Account) UsedAt(now Time, p *Policy) int64 {
	length := p.periodLength()
	used, since, period := a.Used, int64(a.Since), a.Period
	last := int64(now) / length
	if last-period > 64*periodsPerHalfLife { // all of it has decayed; what is held counts from there
		used, period = 0, last-64*periodsPerHalfLife
		since = max(since, period*length)
	}
	for period < last {
		next := (period + 1) * length
		used = addUse(used, a.Rate, since, next)
		used, since, period = decay(used, 1), max(next, since), period+1
		if a.Rate == 0 {
			return decay(used, last-period)
		}
	}
	return addUse(used, a.Rate, since, int64(now))
}

const maxUse = 1 << 60

// addUse adds what was held between two moments in nanoseconds. Whole
// milliseconds of the clock are counted, so that many short spans add up to
// what one long span has.
func addUse(used, rate, from, to int64) int64 {
	hi, lo := bits.Mul64(uint64(max(rate, 0)), uint64(max(to/1e6-from/1e6, 0)))
	if hi > 0 || lo > maxUse {
		return maxUse
	}
	return min(used+int64(lo), maxUse)
}

// accountKey is how accounts are found and ordered.
func accountKey(queue, user string) string { return queue + "\x00" + user }

// Account returns what a user has used through a queue, or nil if nothing.
func (s *State) Account(queue, user string) *Account {
	a, _ := s.accounts.Get(accountKey(queue, user))
	return a
}

// EachAccount calls f for all accounts, by queue and user, until f returns false.
func (s *State) EachAccount(f func(*Account) bool) {
	s.accounts.Scan(func(_ string, a *Account) bool { return f(a) })
}

// charge changes what the job's account is charged from now on.
func (s *State) charge(j *Job, rate int64) {
	if rate == 0 {
		return
	}
	p, a := s.Policy(), s.ownAccount(j)
	a.Used = a.UsedAt(s.now, p)
	a.Since, a.Period = s.now, int64(s.now)/p.periodLength()
	a.Rate += rate
	s.touch(Change{Account: a})
	if s.accounts.Len() > MaxAccounts {
		s.dropAccounts(p)
	}
}

// ownAccount returns the account of a job to be edited, made if there is none.
func (s *State) ownAccount(j *Job) *Account {
	k := s.kinOf(j)
	if a := k.account; a != nil && a.by == k.by {
		return a
	}
	key := accountKey(j.Spec.Queue, j.User)
	a, known := s.accounts.Get(key)
	switch {
	case !known:
		a = &Account{Queue: j.Spec.Queue, User: j.User, by: k.by}
		s.accounts.Set(key, a)
	case a.by != k.by:
		next := *a
		next.by = k.by
		a = &next
		s.accounts.Set(key, a)
	}
	k.account = a
	return a
}

// disown lets nobody edit an account any more that is out of the state, however
// it is remembered.
func (s *State) disown(a *Account) {
	if a.by == s.mine() {
		a.by = nil
	}
}

// dropAccounts forgets the least used of the accounts that hold nothing, an
// eighth of the bound at once: the next ones then cost nothing.
func (s *State) dropAccounts(p *Policy) {
	type idle struct {
		key  string
		used int64
	}
	var all []idle
	s.accounts.Scan(func(key string, a *Account) bool {
		if a.Rate == 0 {
			all = append(all, idle{key, a.UsedAt(s.now, p)})
		}
		return true
	})
	slices.SortStableFunc(all, func(a, b idle) int { return cmp.Compare(a.used, b.used) })
	for _, d := range all[:min(len(all), s.accounts.Len()-MaxAccounts*7/8)] {
		a, _ := s.accounts.Delete(d.key)
		s.disown(a)
		s.touch(Change{Account: a, Gone: true})
	}
}

// rescale brings all accounts into the periods of a new policy.
func (s *State) rescale(old, next *Policy) {
	if old.HalfLife == next.HalfLife {
		return
	}
	var all []*Account
	s.accounts.Scan(func(_ string, a *Account) bool {
		all = append(all, a)
		return true
	})
	for _, a := range all {
		b := *a
		s.disown(a)
		b.by = s.mine()
		b.Used, b.Since, b.Period = a.UsedAt(s.now, old), s.now, int64(s.now)/next.periodLength()
		s.accounts.Set(accountKey(a.Queue, a.User), &b)
	}
}
