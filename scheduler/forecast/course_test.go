package forecast

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// courseTown has one node of 8 GPUs, a job of 8 GPUs that runs, and one that waits; both have a time
// limit of an hour and are not stopped for others.
func courseTown(t *testing.T) *town {
	w := newTown(t)
	w.apply(&cluster.RegisterNode{Node: machine("a", 8, "h100", "r1")})
	for i := range 2 {
		s := spec("default", 8)
		s.TimeLimit, s.Preemptible = time.Hour, false
		w.apply(&cluster.SubmitJob{RequestID: fmt.Sprint(i), User: "ann", Spec: s})
		w.settle()
	}
	return w
}

// tellCourse plays a course and tells who was seen in which state, and when.
func tellCourse(t *testing.T, c *Courses, course Course) string {
	t.Helper()
	text := ""
	last := map[cluster.JobID]cluster.JobState{}
	course.Seen = func(at cluster.Time, j *cluster.Job) {
		if last[j.ID] != j.State {
			text += fmt.Sprintf("%s job %d %s\n", at.Sub(c.Now()).Round(time.Second), j.ID, j.State)
		}
		last[j.ID] = j.State
	}
	course.Work = 1_000_000
	if course.Horizon == 0 {
		course.Horizon = 3 * time.Hour
	}
	end, err := c.Run(course)
	if err != nil {
		t.Fatal(err)
	}
	if !end.Whole || end.At != c.Now().Add(course.Horizon) {
		t.Errorf("ended %s after the beginning, whole: %v", end.At.Sub(c.Now()), end.Whole)
	}
	return text + fmt.Sprintf("%d refused\n", end.Refused)
}

// TestCourse: a cluster goes on by itself, with another node, and with jobs that are yet to come.
func TestCourse(t *testing.T) {
	t.Parallel()
	w := courseTown(t)
	before := w.s.Hash()
	c := NewCourses(w.s.Snapshot(), w.now, control.DefaultConfig())
	if c.Basis() != BasisLimits {
		t.Errorf("lengths go by %d, want time limits", c.Basis())
	}
	want := "5m0s job 2 Pending\n1h0m0s job 1 Stopping\n1h0m0s job 1 Failed\n1h0m0s job 2 Starting\n2h0m0s job 2 Stopping\n2h0m0s job 2 Failed\n0 refused\n"
	if got := tellCourse(t, c, Course{}); got != want {
		t.Errorf("by itself:\n%swant\n%s", got, want)
	}
	more := func(s *cluster.State) error {
		if r := s.Apply(s.Index()+1, c.Now(), &cluster.RegisterNode{Node: machine("b", 8, "h100", "r1")}); r.Code != cluster.OK {
			return errors.New(r.Message)
		}
		return nil
	}
	want = "0s job 2 Starting\n1h0m0s job 1 Stopping\n1h0m0s job 2 Stopping\n1h0m0s job 1 Failed\n1h0m0s job 2 Failed\n0 refused\n"
	if got := tellCourse(t, c, Course{Change: more}); got != want {
		t.Errorf("with another node:\n%swant\n%s", got, want)
	}
	coming := []Arrival{
		{At: 10 * time.Minute, User: "bob", Spec: spec("default", 8), Length: 20 * time.Minute},
		{At: 20 * time.Minute, User: "bob", Spec: spec("default", 32), Length: time.Minute},
	}
	next := func() (a Arrival, ok bool) {
		if len(coming) == 0 {
			return a, false
		}
		a, coming = coming[0], coming[1:]
		return a, true
	}
	want = "0s job 2 Starting\n10m0s job 3 Pending\n1h0m0s job 1 Stopping\n1h0m0s job 2 Stopping\n1h0m0s job 1 Failed\n1h0m0s job 2 Failed\n" +
		"1h0m0s job 3 Starting\n1h20m0s job 3 Succeeded\n1 refused\n"
	if got := tellCourse(t, c, Course{Change: more, Arrivals: next}); got != want {
		t.Errorf("with jobs to come:\n%swant\n%s", got, want)
	}
	if w.s.Hash() != before {
		t.Error("the state has changed")
	}
	broken := errors.New("no such node")
	if _, err := c.Run(Course{Change: func(*cluster.State) error { return broken }}); !errors.Is(err, broken) {
		t.Errorf("got %v, want the change's error", err)
	}
}
