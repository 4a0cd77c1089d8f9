package quota

import "github.com/gangline/gangline/scheduler/cluster"

// usage is what one user does in one queue.
type usage struct {
	milli   int64 // held
	pending int   // jobs that wait
	account *cluster.Account
	use     use
}

func (u *usage) idle() bool { return u.milli == 0 && u.pending == 0 && u.account == nil }

// use is how much of the cluster was and is used. It can be added up.
type use struct {
	base wide  // see clock
	rate int64 // weighted milli-GPUs that accounts are charged for
	held int64 // milli-GPUs x thousandths of weight
}

func (u *use) add(o use, sign int64) {
	if sign < 0 {
		u.base = u.base.minus(o.base)
	} else {
		u.base = u.base.plus(o.base)
	}
	u.rate += sign * o.rate
	u.held += sign * o.held
}

// shares is a queue's part in fair share.
type shares struct {
	all    use   // here and below
	own    use   // here, not below
	kids   int64 // children that take part
	weight int64 // of these children together
}

// active reports whether the queue takes part in fair share: someone waits,
// holds or has used through it or a queue below.
func (q *Queue) active() bool { return len(q.users) > 0 || q.shares.kids > 0 }

// usage returns what a user does in a queue, made if need be. Call settle when
// it has been changed, with what active said before.
func (q *Queue) usage(user string) *usage {
	u := q.find(user)
	if u == nil {
		u = &usage{}
		q.users[user] = u
		q.last, q.lastBy = u, user
	}
	return u
}

// find is what a user does in a queue, or nil. Most questions in turn are about
// one user.
func (q *Queue) find(user string) *usage {
	if q.last == nil || q.lastBy != user {
		q.last, q.lastBy = q.users[user], user
	}
	return q.last
}

// settle forgets a user who does nothing any more, and tells the queues above
// whether the queue takes part, if that has changed.
func (q *Queue) settle(user string, u *usage, was bool) {
	if u.idle() {
		delete(q.users, user)
		q.last = nil
	}
	for x := q; x.parent != nil && x.active() != was; x = x.parent {
		up := x.parent
		next := up.active()
		if was {
			up.shares.kids, up.shares.weight = up.shares.kids-1, up.shares.weight-x.weight
		} else {
			up.shares.kids, up.shares.weight = up.shares.kids+1, up.shares.weight+x.weight
		}
		was = next
	}
}

// charge adds to the use of a user and a queue and of all above.
func (q *Queue) charge(u *usage, o use) {
	u.use.add(o, 1)
	q.shares.own.add(o, 1)
	for x := q; x != nil; x = x.parent {
		x.shares.all.add(o, 1)
	}
}

// Fair reports whether the policy orders jobs by fair share. If not, the tree
// does not know who uses how much, and nobody may ask for Factor or Steps.
func (t *Tree) Fair() bool { return t.fair }

// weigh notes what a user holds more.
func (t *Tree) weigh(q *Queue, user string, milli, weighted int64) {
	t.changes++
	if !t.fair {
		return
	}
	was, u := q.active(), q.usage(user)
	u.milli, u.use.held = u.milli+milli, u.use.held+weighted
	q.shares.own.held += weighted
	for x := q; x != nil; x = x.parent {
		x.shares.all.held += weighted
	}
	q.settle(user, u, was)
}

// Pend notes that so many more jobs of a user wait in a queue; fewer if
// negative. Who neither waits nor holds nor has used has no part in fair share.
func (t *Tree) Pend(q *Queue, user string, jobs int) {
	if !t.fair {
		return
	}
	was, u := q.active(), q.usage(user)
	idle := u.idle()
	if u.pending += jobs; u.idle() != idle { // else it makes no difference to fair share
		t.changes++
	}
	q.settle(user, u, was)
}

// SetAccount takes over an account as it is now, or forgets it if gone. It
// returns the account's queue. It is of no use unless Fair.
func (t *Tree) SetAccount(a *cluster.Account, gone bool) *Queue {
	t.changes++
	q := t.Queue(a.Queue)
	was, u := q.active(), q.usage(a.User)
	u.account = nil
	if !gone && (a.Used > 0 || a.Rate > 0) {
		u.account = a
	}
	if t.clock.ready {
		more := use{}
		if u.account != nil {
			more.base, more.rate = t.clock.base(a, t.policy), a.Rate
		}
		more.add(use{base: u.use.base, rate: u.use.rate}, -1)
		q.charge(u, more)
	}
	q.settle(a.User, u, was)
	return q
}

// Stamp tells apart all that Factor depends on but who asks: equal stamps, equal
// factors. The zero Stamp is that of nothing.
type Stamp struct {
	changes uint64
	at      cluster.Time
}

// Stamp is that of what Factor says now.
func (t *Tree) Stamp(now cluster.Time) Stamp {
	if now != t.asked.now || t.asked.at == 0 {
		t.asked.now, t.asked.at = now, moment(now)
	}
	return Stamp{t.changes, t.asked.at}
}

// Factor says how much more a user in a queue has had than its fair part, in
// thousandths of a doubling: 1000 is twice, -1000 half as much, 0 is fair, or
// alone. It is the sum over the levels of the path and over the users of the
// queue, each within -3000..3000. On each level it compares the queue's part of
// its siblings' use with its part of their weights.
//
// Use is what the accounts say at the next full 10 s, and for what is held now
// an hour's use, so that a burst counts at once. Each level is taken to have
// had one GPU-hour more, fairly parted, so that the first seconds of an idle
// cluster decide nothing. Factor depends on nothing but the accounts, what is
// held and waits, and now to 10 s; not on what the tree was asked before.
func (t *Tree) Factor(q *Queue, user string, now cluster.Time) int64 {
	t.tick(moment(now))
	mine, users := q.useOf(user)
	factor := t.excess(mine, q.shares.own, 1, users)
	for x := q; x.parent != nil; x = x.parent {
		factor += t.excess(x.shares.all, x.parent.parted(), x.weight, x.weights())
	}
	return factor
}

// useOf is what a user does in a queue, and how many users part it.
func (q *Queue) useOf(user string) (mine use, users int64) {
	if u := q.find(user); u != nil {
		return u.use, int64(len(q.users))
	}
	return use{}, int64(len(q.users)) + 1
}

// parted is the use that the queues right below one part among them.
func (q *Queue) parted() use {
	all := q.shares.all
	all.add(q.shares.own, -1)
	return all
}

// weights are those of a queue and of those beside it that take part.
func (q *Queue) weights() int64 {
	weights := q.parent.shares.weight
	if !q.active() {
		weights += q.weight
	}
	return weights
}

const maxExcess = 3000

// excess is the binary logarithm, in thousandths, of one's part of all use
// divided by one's part of all weight.
func (t *Tree) excess(mine, all use, weight, weights int64) int64 {
	if weight == weights {
		return 0
	}
	part, whole := t.worth(mine), t.worth(all)
	fair := t.clock.hour(oneGPU)
	whole = whole.plus(fair)
	if n := whole.length(); n > 62 { // weights take up to 34 bits more
		shift := uint(n - 62) //nolint:gosec // positive
		part, whole, fair = part.shr(shift), whole.shr(shift), fair.shr(shift)
	}
	part = part.times(weights).plus(fair.times(weight))
	whole = whole.times(weight)
	if part == (wide{}) {
		return -maxExcess
	}
	log := (part.log2() - whole.log2()) * 1000 / (1 << logBits)
	return min(max(log, -maxExcess), maxExcess)
}

// worth is use at the clock's moment.
func (t *Tree) worth(u use) wide {
	return u.base.plus(t.clock.grown.times(u.rate)).plus(t.clock.hour(u.held)).atLeast0()
}

// oneGPU is a GPU of weight 1: milli-GPUs x thousandths of weight.
const oneGPU = cluster.WholeGPU * 1000

// hour is what an hour of so many milli-GPUs x thousandths of weight is worth
// at the clock's moment.
func (c *clock) hour(held int64) wide {
	return product(max(held, 0), hourNanos).times(c.weight)
}

const hourNanos = 3_600_000_000_000 / 1000 // an hour's, and whole weights

// tick moves the clock, and makes the sums anew if that leaves their block.
func (t *Tree) tick(at cluster.Time) {
	if t.clock.at != at || !t.clock.ready {
		t.move(at)
	}
}

// move is tick to another moment.
func (t *Tree) move(at cluster.Time) {
	c := &t.clock
	period := int64(at) / c.length
	if block := period / blockSize; !c.ready || block != c.block {
		c.block, c.ready = block, true
		t.resum()
	}
	c.at, c.weight, c.grown = at, c.weightOf(period), c.growth(at)
	c.about.grown, c.about.hour = c.grown.float(), hourNanos*float64(c.weight)
}

// resum makes the sums of all accounts anew, in units of the clock's block.
func (t *Tree) resum() {
	drop := func(u *use) { u.base, u.rate = wide{}, 0 }
	drop(&t.root.shares.all)
	for _, q := range t.queues {
		drop(&q.shares.all)
		drop(&q.shares.own)
	}
	for _, q := range t.queues {
		for _, u := range q.users { // any order: sums of whole numbers
			drop(&u.use)
			if a := u.account; a != nil {
				q.charge(u, use{base: t.clock.base(a, t.policy), rate: a.Rate})
			}
		}
	}
}
