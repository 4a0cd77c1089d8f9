package cluster

import (
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// exactUse is UsedAt without rounding: 200 bits, period by period.
func exactUse(a *Account, now Time, length int64) float64 {
	num := func(x float64) *big.Float { return new(big.Float).SetPrec(200).SetFloat64(x) }
	// 2^(-1/64) by six square roots.
	step := num(0.5)
	for range 6 {
		step = new(big.Float).SetPrec(200).Sqrt(step)
	}
	used, at := num(float64(a.Used)), int64(a.Since)
	hold := func(to int64) {
		ms := new(big.Float).SetPrec(200).Quo(num(float64(to-at)), num(1e6))
		used.Add(used, ms.Mul(ms, num(float64(a.Rate))))
		at = to
	}
	for p := a.Period; p < int64(now)/length; p++ {
		hold((p + 1) * length)
		used.Mul(used, step)
	}
	hold(int64(now))
	f, _ := used.Float64()
	return f
}

// TestUsedAtIsExact: whole numbers do not drift from exact arithmetic, over
// weeks and for long and short half-lives.
func TestUsedAtIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := &Policy{HalfLife: rapid.SampledFrom([]time.Duration{time.Minute, 61*time.Minute + 7, 24 * time.Hour, 7 * 24 * time.Hour}).Draw(t, "half-life")}
		a := &Account{
			Used: rapid.Int64Range(1_000_000_000, 1<<50).Draw(t, "used"),
			Rate: rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(1000, 100_000_000)).Draw(t, "rate"),
		}
		a.Since = Time(1_800_000_000_000_000_000 + rapid.Int64Range(0, int64(30*24*time.Hour)).Draw(t, "since"))
		a.Period = int64(a.Since) / p.periodLength()
		weeks := min(5*7*24*time.Hour, 60*p.HalfLife) // beyond 64 half-lives nothing is left of the start
		now := a.Since + Time(rapid.Int64Range(0, int64(weeks)).Draw(t, "later"))
		got, want := float64(a.UsedAt(now, p)), exactUse(a, now, p.periodLength())
		if math.Abs(got-want) > 1e-6*want+200+float64(a.Rate) {
			t.Fatalf("%+v at +%s with half-life %s: got %g, want %g (off by %.2g)", a, now.Sub(a.Since), p.HalfLife, got, want, got/want-1)
		}
	})
}

// TestUsedAtDecays: the half-life is what its name says, and what is held for
// ever comes to rate x half-life / ln 2.
func TestUsedAtDecays(t *testing.T) {
	t.Parallel()
	p := &Policy{HalfLife: time.Hour}
	a := &Account{Used: 1 << 40}
	for h := range 70 {
		want := int64(1) << max(40-h, 0)
		if got := a.UsedAt(Time(h)*Time(time.Hour), p); h <= 40 && max(got-want, want-got) > 64+want/1_000_000_000 || h > 64 && got != 0 {
			t.Errorf("after %d half-lives: got %d, want %d", h, got, want)
		}
	}
	held := &Account{Rate: 8000}
	for _, after := range []time.Duration{50 * time.Hour, 1000 * time.Hour} {
		got, want := float64(held.UsedAt(Time(after), p)), 8000*3.6e6/math.Ln2
		if math.Abs(got/want-1) > 0.01 {
			t.Errorf("held for %s: got %g, want %g", after, got, want)
		}
	}
	huge := &Account{Used: maxUse - 5, Rate: 1 << 50}
	if got := huge.UsedAt(Time(time.Hour)-1, p); got != maxUse {
		t.Errorf("use beyond all bounds: got %d, want %d", got, maxUse)
	}
	if got := (&Account{Rate: 1 << 62}).UsedAt(Time(time.Hour)-1, p); got != maxUse {
		t.Errorf("a rate beyond all bounds: got %d, want %d", got, maxUse)
	}
	if got := decay(-5, 1); got != 0 {
		t.Errorf("use below nothing: got %d", got)
	}
	if p.DecayPeriod() != time.Hour/64 {
		t.Errorf("period: got %s", p.DecayPeriod())
	}
}

// TestManyShortSpansAreCounted: a user whose jobs come and go within less than
// a millisecond pays what one long job does.
func TestManyShortSpansAreCounted(t *testing.T) {
	t.Parallel()
	p := &Policy{HalfLife: 24 * time.Hour}
	a := &Account{Rate: 1000}
	for i := 1; i <= 10_000; i++ {
		now := Time(i) * 700_000
		a = &Account{Used: a.UsedAt(now, p), Rate: 1000, Since: now}
	}
	if want := int64(7000 * 1000); a.Used != want {
		t.Errorf("got %d, want %d", a.Used, want)
	}
}

// charged submits and starts jobs of one GPU for a user.
func (f *fixture) charged(user, queue string, node NodeID, gpu string) JobID {
	f.Helper()
	sp := spec(1)
	sp.Queue = queue
	id := f.ok(&SubmitJob{RequestID: fmt.Sprint(user, queue, gpu, f.i), User: user, Spec: sp}).Job
	f.ok(&StartJob{Job: id, Epoch: 1, Workers: []Placement{{Node: node, GPUs: []string{gpu}}}})
	return id
}

func TestAccountsOfJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := DefaultPolicy()
	p.HalfLife = time.Hour
	p.Weights = []TypeWeight{{"h100", 2500}}
	f.ok(&SetPolicy{Policy: p, Any: true})
	id := f.charged("ann", "q", "id-0", "GPU-0-0")
	a := f.s.Account("q", "ann")
	if a.Rate != 2500 || f.s.Job(id).Rate != 2500 {
		t.Fatalf("a GPU of weight 2.5 is charged as %+v", a)
	}
	f.charged("ann", "q", "id-0", "GPU-0-1")
	f.i += 1000
	f.ok(&ReportWorkers{Node: "id-0", Workers: []WorkerReport{{Job: id, Epoch: 1, State: WorkerExited}}})
	a = f.s.Account("q", "ann")
	if a.Rate != 2500 || a.Used < 2*2500*900_000 || a.Used > 2*2500*1_010_000 {
		t.Fatalf("after 1000 s with two GPUs, one of which is free now: %+v", a)
	}
	if f.s.Account("q", "bob") != nil || f.s.Account("r", "ann") != nil {
		t.Fatal("others are charged too")
	}
	if got := f.s.Job(id).Attained; got < 1000*1_000_000 || got > 1000*1_010_000 {
		t.Fatalf("the job attained %d, want 1000 s of one GPU without weight", got)
	}
}

// TestRescale: another half-life changes how use decays from now on, not what it is.
func TestRescale(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.charged("ann", "q", "id-0", "GPU-0-0")
	f.charged("bob", "q/r", "id-1", "GPU-1-0")
	f.i += 5000
	for _, half := range []time.Duration{time.Minute, 30 * 24 * time.Hour, time.Minute, time.Hour} {
		f.i += 3
		was, p := map[string]int64{}, f.s.Policy()
		now := Time(f.i+1) * Time(time.Second)
		f.s.EachAccount(func(a *Account) bool { was[a.User] = a.UsedAt(now, p); return true })
		next := DefaultPolicy()
		next.HalfLife = half
		f.ok(&SetPolicy{Policy: next, Any: true})
		f.s.EachAccount(func(a *Account) bool {
			if got := a.UsedAt(f.s.Now(), f.s.Policy()); got != was[a.User] || got == 0 {
				t.Errorf("half-life %s: %s has used %d, had %d", half, a.User, got, was[a.User])
			}
			ended := Account{Used: a.Used, Since: a.Since, Period: a.Period}
			if got, want := ended.UsedAt(f.s.Now().Add(half), f.s.Policy()), was[a.User]/2; math.Abs(float64(got-want)) > float64(want)/80+64 {
				t.Errorf("half-life %s: after it %s has %d, want about %d", half, a.User, got, want)
			}
			return true
		})
	}
}

// TestForgottenAccountIsMadeAnew: one that is out of the state, or was replaced
// in it, is not charged any more, however lately it was.
func TestForgottenAccountIsMadeAnew(t *testing.T) {
	t.Parallel()
	s := &State{}
	s.Apply(1, Time(time.Hour), &Init{ClusterID: "c", Version: Version})
	job := &Job{Spec: &JobSpec{Queue: "q"}, User: "u"}
	s.charge(job, 1000)
	s.charge(job, -1000)
	a, _ := s.accounts.Delete(accountKey("q", "u"))
	s.disown(a) // as dropAccounts does
	s.charge(job, 1000)
	if got := s.Account("q", "u"); got == nil || got.Rate != 1000 || a.Rate != 0 {
		t.Fatalf("the account is %+v, the forgotten one %+v", got, a)
	}
	before := s.Account("q", "u")
	s.rescale(&Policy{HalfLife: time.Hour}, &Policy{HalfLife: time.Minute})
	s.charge(job, 500)
	if got := s.Account("q", "u"); got.Rate != 1500 || before.Rate != 1000 {
		t.Fatalf("after another half-life the account is %+v, before it was %+v", got, before)
	}
}

// TestAccountsAreBounded: the least used that hold nothing are forgotten.
func TestAccountsAreBounded(t *testing.T) {
	t.Parallel()
	s := &State{}
	s.Apply(1, Time(time.Hour), &Init{ClusterID: "c", Version: Version})
	job := &Job{Spec: &JobSpec{Queue: "q"}}
	for i := range MaxAccounts + 1 {
		job.User = fmt.Sprint("u", i)
		s.now += 1_000_000
		s.charge(job, 1000)
		if i%2 == 0 { // the odd ones go on
			s.now += Time(i%1000) * 1_000_000
			s.charge(job, -1000)
		}
		s.charge(job, 0)
	}
	if got, want := s.accounts.Len(), MaxAccounts*7/8; got > MaxAccounts || got < want {
		t.Fatalf("%d accounts are remembered, bound %d", got, MaxAccounts)
	}
	for i := range MaxAccounts + 1 {
		a := s.Account("q", fmt.Sprint("u", i))
		if i%2 == 1 && a == nil {
			t.Fatalf("user %d, who holds a GPU, is forgotten", i)
		}
		if i%1000 == 998 && a == nil || i%1000 == 2 && i < MaxAccounts*3/4 && a != nil {
			t.Fatalf("user %d used %d ms: remembered %v", i, i%1000, a)
		}
	}
}
