package trace

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestOrdered: as long as no job is further from its place than the window, it sorts like a stable sort; else it says so.
func TestOrdered(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var jobs []Job
		for i, at := range rapid.SliceOfN(rapid.IntRange(0, 20), 0, 60).Draw(t, "submissions") {
			jobs = append(jobs, Job{ID: string(rune('A' + i)), Submit: time.Duration(at) * time.Second})
		}
		window := rapid.IntRange(1, 70).Draw(t, "window")
		want := slices.Clone(jobs)
		slices.SortStableFunc(want, func(a, b Job) int { return cmp.Compare(a.Submit, b.Submit) })
		got, _, err := all(Ordered(Slice(jobs), window), nil)
		sorted := slices.IsSortedFunc(got, func(a, b Job) int { return cmp.Compare(a.Submit, b.Submit) })
		switch {
		case !sorted:
			t.Fatalf("not by submission: %v", got)
		case err != nil && (window >= len(jobs) || !strings.Contains(err.Error(), "--sort")):
			t.Fatalf("window %d of %d jobs: %v", window, len(jobs), err)
		case err == nil && gocmp.Diff(want, got) != "":
			t.Fatal(gocmp.Diff(want, got))
		}
		if got, _, err = all(Sorted(Slice(jobs))); err != nil || gocmp.Diff(want, got) != "" {
			t.Fatalf("sorted in memory: %v\n%s", err, gocmp.Diff(want, got))
		}
	})
}

// TestOrderedNames: the error names the job and the distance.
func TestOrderedNames(t *testing.T) {
	t.Parallel()
	jobs := []Job{{ID: "a", Submit: secs(10)}, {ID: "b", Submit: secs(20)}, {ID: "c", Submit: secs(30)}, {ID: "late", Submit: secs(5)}}
	_, _, err := all(Ordered(Slice(jobs), 2), nil)
	if err == nil || !strings.Contains(err.Error(), "job late was submitted at 5 s, before another that stands more than 2 rows above it (20 s)") {
		t.Errorf("error %v", err)
	}
}

// TestLeft: how many jobs are yet to come is known once the end is in sight.
func TestLeft(t *testing.T) {
	t.Parallel()
	o := Ordered(Slice([]Job{{}, {}, {}, {}}), 2).(*ordered)
	for i, want := range []int{-1, -1, -1, -1, 0} { // the end shows when the source is asked for a fifth
		if got := o.Left(); got != want {
			t.Errorf("after %d jobs %d are left, want %d", i, got, want)
		}
		if err := o.Next(&Job{}); (i < 4) != (err == nil) || (i == 4 && !errors.Is(err, io.EOF)) {
			t.Errorf("job %d: %v", i, err)
		}
	}
}
