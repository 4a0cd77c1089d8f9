package quota

import (
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Two teams: research with two groups, one of which has a quota of its own, and prod.
var teams = []string{
	"research quota=h100:100,a100:10 limit=h100:150",
	"research/nlp quota=h100:60 limit=all:90",
	"research/vision user=20",
	"prod quota=h100:50",
	"batch limit=h100:40",
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name            string
		held            []string
		queue, typ      string
		gpus            int64
		want            string
		wantMostForUser int64
	}{
		{"own quota", nil, "research/nlp", "h100", 60, "guaranteed by research/nlp", 90},
		{"beyond it the team's", nil, "research/nlp", "h100", 61, "guaranteed by research", 90},
		{"without quota of its own", nil, "research/vision", "h100", 20, "guaranteed by research", 20},
		{"own quota although the group beside it borrows", []string{"research/vision bob h100 100"}, "research/nlp", "h100", 8, "guaranteed by research/nlp", 50},
		{"part of it beyond all quotas", []string{"research/nlp bob h100 55", "research bob h100 45"}, "research/nlp", "h100", 6, "borrowed", 35},
		{"type without quota", nil, "prod", "a100", 1, "borrowed", Unlimited},
		{"queue without quota", nil, "batch", "h100", 1, "borrowed", 40},
		{"limit of the type", []string{"batch bob h100 30"}, "batch", "h100", 11, "limit of batch: 10 of 40 left, needs 11", 10},
		{"limit of another type", []string{"batch bob h100 40"}, "batch", "a100", 100, "borrowed", Unlimited},
		{"limit above", []string{"research bob h100 100", "research/nlp bob h100 40"}, "research/nlp", "h100", 16, "limit of research: 10 of 150 left, needs 16", 10},
		{"limit of all types", []string{"research/nlp bob a100 85"}, "research/nlp", "h100", 8, "total limit of research/nlp: 5 of 90 left, needs 8", 5},
		{"one user", []string{"research/vision ann a100 15"}, "research/vision", "h100", 6, "user limit of research/vision: 5 of 20 left, needs 6", 5},
		{"another user", []string{"research/vision bob a100 15"}, "research/vision", "h100", 6, "guaranteed by research", 20},
		{"quota and limit lowered below use", []string{"batch ann h100 70"}, "batch", "h100", 1, "limit of batch: 0 of 40 left, needs 1", 0},
	}
	for _, c := range cases {
		tree := New(policy(t, teams...))
		take(tree, c.held...)
		q := tree.Queue(c.queue)
		equal(t, c.name, brief(tree.Check(q, "ann", c.typ, c.gpus*1000)), c.want)
		if c.wantMostForUser != Unlimited {
			c.wantMostForUser *= 1000
		}
		equal(t, c.name+", most", tree.Most(q, "ann", c.typ), c.wantMostForUser)
	}
}

// A gang larger than its queue's limit is refused however empty the cluster is.
func TestVerdictOfGangAboveTheLimit(t *testing.T) {
	t.Parallel()
	tree := New(policy(t, "a limit=h100:8", "a/b"))
	equal(t, "verdict", brief(tree.Check(tree.Queue("a/b"), "ann", "h100", 9000)), "limit of a: 8 of 8 left, needs 9")
}

// A limit of one user counts what the user holds anywhere below.
func TestUserLimitCountsBelow(t *testing.T) {
	t.Parallel()
	tree := New(policy(t, "a user=10", "a/b", "a/b/c", "a/d"))
	take(tree, "a/b/c ann h100 4", "a ann a100 3", "a/d bob h100 9")
	equal(t, "ann", brief(tree.Check(tree.Queue("a/d"), "ann", "h100", 4000)), "user limit of a: 3 of 10 left, needs 4")
	equal(t, "bob", tree.Most(tree.Queue("a/b"), "bob", "h100"), 1000)
	tree.Give(tree.Queue("a/b/c"), "ann", "h100", 4000)
	equal(t, "ann later", tree.Most(tree.Queue("a/d"), "ann", "h100"), 7000)
}

func TestQuotaOfAnyType(t *testing.T) {
	t.Parallel()
	tree := New(policy(t, "a quota=all:10", "a/b quota=h100:6", "c", "c/d quota=all:4", "c/e quota=a100:2"))
	for _, c := range []struct {
		queue string
		want  int64
		any   bool
	}{{"a", 10_000, true}, {"a/b", 6000, false}, {"c", 6000, true}, {"c/d", 4000, true}} {
		milli, ofAny := tree.Quota(tree.Queue(c.queue), "h100")
		equal(t, c.queue, []any{milli, ofAny}, []any{c.want, c.any})
		all, _ := tree.Quota(tree.Queue(c.queue), "")
		equal(t, c.queue+" all", all, c.want)
	}
	take(tree, "a ann a100 5")
	equal(t, "own type", brief(tree.Check(tree.Queue("a/b"), "ann", "h100", 6000)), "guaranteed by a/b")
	equal(t, "other type", brief(tree.Check(tree.Queue("a/b"), "ann", "a100", 5000)), "guaranteed by a")
	equal(t, "too much", brief(tree.Check(tree.Queue("a/b"), "ann", "a100", 6000)), "borrowed")
	take(tree, "a/b ann h100 7")
	equal(t, "borrowed of h100", tree.Borrowed(tree.Queue("a"), "h100"), 2000)
	equal(t, "borrowed of b100", tree.Borrowed(tree.Queue("a"), "b100"), 0)
	if !tree.HasQuota() || New(policy(t, "a", "b limit=h100:3")).HasQuota() {
		t.Error("HasQuota is wrong")
	}
}

// Queues that the policy does not have.
func TestUnknownQueues(t *testing.T) {
	t.Parallel()
	tree := New(policy(t, "a quota=h100:4 limit=h100:6"))
	gone := tree.Queue("a/gone/deep")
	if gone.Known() || !tree.Queue("a").Known() || gone.Parent() != tree.Queue("a") || tree.Queue("a").Parent() != nil {
		t.Fatalf("a deleted queue is not below the nearest that is left: %v under %v", gone, gone.Parent())
	}
	if tree.Queue("a/gone").Parent() != tree.Queue("a") || gone.Parent() != tree.Queue("a") || tree.Queue("x/y").Parent() != nil {
		t.Fatal("where an unknown queue is depends on which other unknown queues were asked for")
	}
	equal(t, "what is left of its parent holds", brief(tree.Check(gone, "ann", "h100", 4000)), "guaranteed by a")
	equal(t, "and its limit", brief(tree.Check(gone, "ann", "h100", 7000)), "limit of a: 6 of 6 left, needs 7")
	equal(t, "no policy", brief(New(cluster.DefaultPolicy()).Check(New(cluster.DefaultPolicy()).Queue("q"), "ann", "h100", 1000)), "borrowed")
	for i, q := range tree.Queues() {
		equal(t, "ID of "+q.String(), q.ID, i)
	}
	equal(t, "queues", len(tree.Queues()), 4)
}

func TestIdle(t *testing.T) {
	t.Parallel()
	tree := New(policy(t, "a limit=h100:6,all:9"))
	tree.SetCapacity("h100", 8)
	tree.SetCapacity("a100", 4)
	take(tree, "a ann h100 5", "b ann a100 6")
	equal(t, "h100", tree.Idle("h100"), 3000)
	equal(t, "lost nodes", tree.Idle("a100"), -2000)
	equal(t, "all", tree.Idle(""), 1000)
	equal(t, "used", []int64{tree.Used(tree.Queue("a"), ""), tree.Used(tree.Queue("b"), "a100"), tree.Used(tree.Queue("b"), "b100")}, []int64{5000, 6000, 0})
	limit, ok := tree.Limit(tree.Queue("a"), "h100")
	total, also := tree.Limit(tree.Queue("a"), "")
	_, none := tree.Limit(tree.Queue("a"), "a100")
	equal(t, "limits", []any{limit, ok, total, also, none}, []any{6000, true, 9000, true, false})
}

func TestReclaim(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name            string
		held            []string
		claimer, victim string
		gpus            int64
		may             bool
		owed            int64
		can             bool
	}{
		{"from another team", []string{"prod x h100 70"}, "research/nlp", "prod", 20, true, 20, true},
		{"not below its quota", []string{"prod x h100 70"}, "research/nlp", "prod", 21, true, 20, false},
		{"team with nothing of its own", []string{"batch x h100 30"}, "prod", "batch", 30, true, 30, true},
		{"claimer beyond its quota", []string{"batch x h100 30", "prod x h100 40"}, "prod", "batch", 11, false, 30, false},
		{"group without quota claims its team's", []string{"prod x h100 70"}, "research/vision", "prod", 20, true, 20, true},
		{"but not the group's beside it", []string{"research/nlp x h100 60"}, "research/vision", "research/nlp", 1, false, 0, false},
		{"the group beside it takes back", []string{"research/vision x h100 100"}, "research/nlp", "research/vision", 60, true, 100, true},
		{"a team that is at its quota settles its own affairs", []string{"research/vision x h100 100", "prod x h100 70"}, "research/nlp", "prod", 1, false, 20, false},
		{"from the queue above itself", []string{"research x h100 100"}, "research/nlp", "research", 10, true, 100, true},
		{"never for the queue above", []string{"research/nlp x h100 80"}, "research", "research/nlp", 10, false, 20, false},
		{"never from itself", []string{"batch x h100 30"}, "batch", "batch", 1, false, 0, false},
		{"a group within its own quota is safe", []string{"research/nlp x h100 60", "research/vision x h100 50"}, "prod", "research/nlp", 1, true, 0, false},
		{"the group that borrowed is not", []string{"research/nlp x h100 60", "research/vision x h100 50"}, "prod", "research/vision", 10, true, 10, true},
		{"another type is not owed", []string{"prod x a100 70"}, "research/nlp", "prod", 1, true, 0, false},
		{"unknown queues own nothing", []string{"gone x h100 5"}, "prod", "gone", 5, true, 5, true},
		{"nor claim", []string{"batch x h100 5"}, "gone", "batch", 5, false, 5, false},
	}
	for _, c := range cases {
		tree := New(policy(t, teams...))
		take(tree, c.held...)
		a, b := tree.Queue(c.claimer), tree.Queue(c.victim)
		equal(t, c.name+": MayClaim", tree.MayClaim(a, b, "h100", c.gpus*1000), c.may)
		equal(t, c.name+": Owed", tree.Owed(a, b, "h100"), c.owed*1000)
		equal(t, c.name+": CanReclaim", tree.CanReclaim(a, b, "h100", c.gpus*1000), c.can)
	}
}

func TestEachAffected(t *testing.T) {
	t.Parallel()
	tree := New(policy(t, "a quota=h100:10", "a/b quota=h100:4", "a/c", "d", "d/e quota=all:3", "d/f"))
	steps := []struct {
		queue string
		gpus  int64
		typ   string
		want  string
	}{
		{"a/b", 2, "h100", "[a a/b a/c]"},
		{"a/b", 1, "a100", "[]"},
		{"a/c", 8, "h100", "[a a/b a/c]"},
		{"a/c", 5, "h100", "[]"}, // a had nothing left before
		{"a/b", 2, "h100", "[a/b]"},
		{"a/c", -5, "h100", "[]"},
		{"a/c", -3, "h100", "[a a/b a/c]"},
		{"d/e", 2, "a100", "[d/e]"},
		{"d/f", 9, "h100", "[]"},
		{"d", 9, "h100", "[]"},
	}
	for _, s := range steps {
		q := tree.Queue(s.queue)
		if s.gpus > 0 {
			tree.Take(q, "ann", s.typ, s.gpus*1000)
		} else {
			tree.Give(q, "ann", s.typ, -s.gpus*1000)
		}
		got := []*Queue{}
		tree.EachAffected(q, func(q *Queue) { got = append(got, q) })
		equal(t, s.queue, got, s.want)
	}
}
