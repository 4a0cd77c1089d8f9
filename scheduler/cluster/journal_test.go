package cluster

import (
	"fmt"
	"testing"
)

// noted renders what changed since a place.
func noted(s *State, c Cursor) string {
	changes, known := s.ChangesSince(c)
	if !known {
		return "unknown"
	}
	out := ""
	for _, ch := range changes {
		if ch.Minor {
			out += "~"
		}
		switch {
		case ch.Job != 0:
			out += fmt.Sprintf("job %d ", ch.Job)
		case ch.Node != "":
			out += fmt.Sprintf("node %s ", ch.Node)
		case ch.Policy:
			out += "policy "
		default:
			out += fmt.Sprintf("account %s/%s ", ch.Account.Queue, ch.Account.User)
		}
	}
	return out
}

func (f *fixture) wantNoted(c Cursor, want string) Cursor {
	f.Helper()
	if got := noted(f.s, c); got != want {
		f.Fatalf("changes: got %q, want %q", got, want)
	}
	return f.s.Cursor()
}

func TestJournal(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.wantNoted(Cursor{}, "unknown")
	c := f.s.Cursor()
	f.wantNoted(c, "")
	id := f.ok(&SubmitJob{RequestID: "r", User: "ann", Spec: spec(2)}).Job
	c = f.wantNoted(c, "job 1 ")
	f.place(id)
	c = f.wantNoted(c, "account default/ann ~node id-0 ~node id-1 job 1 ")
	f.refused(&StartJob{Job: id, Epoch: 1}, Conflict, "Starting")
	f.wantNoted(c, "")
	f.report(id, 0, WorkerExited, 0)
	f.report(id, 1, WorkerExited, 0)
	c = f.wantNoted(c, "job 1 ~node id-0 ~node id-1 account default/ann job 1 ")
	f.ok(&ForgetJobs{Jobs: []JobID{id}})
	f.ok(&LoseNode{Node: "id-1", Incarnation: 1})
	f.ok(&ForgetNode{Node: "id-1"})
	f.ok(&SetPolicy{Policy: DefaultPolicy()})
	f.wantNoted(c, "job 1 node id-1 node id-1 policy ")
}

// A snapshot keeps its own journal, whoever goes on.
func TestJournalOfSnapshots(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.s.Cursor()
	f.ok(&SubmitJob{RequestID: "a", Spec: spec(1)})
	snap := f.s.Snapshot()
	f.ok(&SubmitJob{RequestID: "b", Spec: spec(1)})
	fork := snap.Snapshot()
	fork.Apply(9, 0, &CancelJob{Job: 1})
	fork.Apply(9, 0, &SubmitJob{RequestID: "c", Spec: spec(1)})
	for _, w := range []struct {
		s    *State
		want string
	}{{f.s, "job 1 job 2 "}, {snap, "job 1 "}, {fork, "job 1 job 1 job 2 "}} {
		if got := noted(w.s, c); got != w.want {
			t.Errorf("got %q, want %q", got, w.want)
		}
	}
	if got := noted(snap, f.s.Cursor()); got != "unknown" {
		t.Errorf("a snapshot claims to know its future: %q", got)
	}
	if got := noted(newFixture(t).s, c); got != "unknown" {
		t.Errorf("another state takes a foreign cursor: %q", got)
	}
}

// What an Apply has said is good until the next one of the same state, whatever is done to its snapshots.
func TestResultsOfSnapshots(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.ok(&SubmitJob{RequestID: "a", Spec: spec(1)})
	fork := f.s.Snapshot()
	ours := f.ok(&SubmitJob{RequestID: "b", Spec: spec(1)})
	theirs := fork.Apply(9, 0, &CancelJob{Job: 1})
	if got := fmt.Sprint(ours.Changes[0].Job, theirs.Changes[0].Job); got != "2 1" {
		t.Errorf("got %s, want 2 1", got)
	}
}

// A state read from a snapshot file is another one, and begins anew.
func TestJournalOfDecodedState(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.s.Cursor()
	s, err := Decode(bytesOf(t, f.s), Version)
	if err != nil {
		t.Fatal(err)
	}
	if got := noted(s, c); got != "unknown" {
		t.Errorf("got %q of a cursor from before", got)
	}
	c = s.Cursor()
	if got := noted(s, c); got != "" {
		t.Errorf("decoding is noted as changes: %q", got)
	}
	s.Apply(99, 0, &SubmitJob{RequestID: "x", Spec: spec(1)})
	if got := noted(s, c); got != "job 1 " {
		t.Errorf("got %q", got)
	}
}

// The journal is bounded: who is too far behind is told so.
func TestJournalOverflow(t *testing.T) {
	t.Parallel()
	s := &State{}
	s.Apply(1, 1, &Init{ClusterID: "c", Version: Version})
	s.touch(Change{Job: 1})
	start := s.Cursor()
	var late Cursor
	for i := range 5*maxJournal + 7 {
		s.touch(Change{Job: JobID(i + 2)})
		if i == 4*maxJournal+7 {
			late = s.Cursor()
		}
		if len(s.journal.changes) > 2*maxJournal {
			t.Fatalf("%d changes are kept, bound %d", len(s.journal.changes), 2*maxJournal)
		}
	}
	if got := noted(s, start); got != "unknown" {
		t.Error("changes that were dropped are said to be known")
	}
	changes, known := s.ChangesSince(late)
	if !known || len(changes) != maxJournal-1 || changes[0].Job != 4*maxJournal+10 || changes[len(changes)-1].Job != 5*maxJournal+8 {
		t.Fatalf("known %v, %d changes", known, len(changes))
	}
}
