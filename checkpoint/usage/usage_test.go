package usage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// storage is a root with jobs' checkpoints of one file of 1,000 bytes each.
type storage struct {
	*testing.T
	root  string
	clock int64
}

func (s *storage) job(name string) *checkpoint.Store {
	s.Helper()
	path := filepath.Join(s.root, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		s.Fatal(err)
	}
	dir, err := checkpoint.NewDir(path)
	if err != nil {
		s.Fatal(err)
	}
	store, err := checkpoint.Open(checkpoint.Config{FS: dir, Job: name})
	if err != nil {
		s.Fatal(err)
	}
	return store
}

func (s *storage) save(user, job string, step uint64) {
	s.Helper()
	store, tmp := s.job(job), filepath.Join(s.root, job, "tmp")
	if err := Own(s.root, user, job); err != nil {
		s.Fatal(err)
	}
	err := store.Fence(s.Context(), 1)
	if err == nil {
		err = os.Mkdir(tmp, 0o755)
	}
	if err == nil {
		err = os.WriteFile(tmp+"/model", []byte(strings.Repeat("x", 1000)), 0o600)
	}
	s.clock++
	if err == nil {
		_, err = store.CommitFiles(s.Context(), checkpoint.FilesCommit{Epoch: 1, Step: step, From: "tmp", SavedAt: time.UnixMilli(s.clock * 1000)})
	}
	if err != nil {
		s.Fatal(err)
	}
}

// has lists all complete checkpoints as JOB:STEP.
func (s *storage) has(jobs ...string) string {
	s.Helper()
	var out []string
	for _, job := range jobs {
		refs, err := s.job(job).List(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		for _, r := range refs {
			out = append(out, fmt.Sprintf("%s:%d", job, r.Step))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestTheOldestOfAUserGo(t *testing.T) {
	t.Parallel()
	s := &storage{T: t, root: t.TempDir()}
	m := New(s.root)
	s.save("ann", "a", 500) // the oldest by time, not by step
	s.save("ann", "b", 1)
	s.save("bob", "c", 1)
	s.save("ann", "a", 600)
	s.save("ann", "b", 2)
	s.save("bob", "c", 2)
	s.save("ann", "a", 700)
	if use, err := m.Of(t.Context(), "ann"); err != nil || use != (Use{Bytes: 5000, Checkpoints: 5, Jobs: 2}) {
		t.Fatalf("ann uses %+v, %v", use, err)
	}
	got, err := m.MakeRoom(t.Context(), Request{User: "ann", Limit: 3500})
	if err != nil || got.Left.Bytes != 3000 || !got.Fits || len(got.Removed) != 2 || got.Removed[0].Job != "a" || got.Removed[0].Ref.Step != 500 || got.Removed[0].Bytes != 1000 {
		t.Errorf("%+v, %v", got, err)
	}
	if got := s.has("a", "b", "c"); got != "a:600 a:700 b:2 c:1 c:2" {
		t.Errorf("there are %s", got)
	}
	for _, c := range []struct {
		limit, bytes int64
		fits         bool
	}{{0, 0, false}, {2500, 1000, true}, {2500, 1600, false}, {2000, 0, true}} { // a commit of job b takes the place of its newest
		got, err := m.MakeRoom(t.Context(), Request{User: "ann", Limit: c.limit, Job: "b", Bytes: c.bytes})
		if err != nil || got.Fits != c.fits || got.Left.Bytes != 2000 || s.has("a", "b", "c") != "a:700 b:2 c:1 c:2" {
			t.Errorf("%d bytes within %d: %+v, %v; there are %s", c.bytes, c.limit, got, err, s.has("a", "b", "c"))
		}
	}
	if users, err := Users(s.root); err != nil || !slices.Equal(users, []string{"ann", "bob"}) {
		t.Errorf("users %v, %v", users, err)
	}
	if err := os.RemoveAll(s.root + "/a"); err != nil {
		t.Fatal(err)
	}
	if use, err := m.Of(t.Context(), "ann"); err != nil || use.Bytes != 1000 || use.Jobs != 1 {
		t.Errorf("after a job's directory was removed: %+v, %v", use, err)
	}
}

// TestWhatIsHeldStays: pinned, being read, and all of a job whose newest one is damaged.
func TestWhatIsHeldStays(t *testing.T) {
	t.Parallel()
	s := &storage{T: t, root: t.TempDir()}
	for step := uint64(1); step <= 4; step++ {
		s.save("ann", "a", step)
		s.save("ann", "b", step)
	}
	ref := func(step uint64) checkpoint.Ref { return checkpoint.Ref{Epoch: 1, Step: step} }
	if err := s.job("a").Pin(t.Context(), ref(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.job("a").Lease(t.Context(), ref(2), "me", time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.root, "b", ref(4).String(), "model"), []byte(strings.Repeat("y", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := New(s.root).MakeRoom(t.Context(), Request{User: "ann", Now: time.Unix(500, 0)})
	if err != nil || len(got.Removed) != 1 || got.Left.Bytes != 7000 || got.Fits || s.has("a", "b") != "a:1 a:2 a:4 b:1 b:2 b:3 b:4" {
		t.Errorf("%+v, %v; there are %s", got, err, s.has("a", "b"))
	}
}

// TestOddUsers: names that no path may follow.
func TestOddUsers(t *testing.T) {
	t.Parallel()
	s := &storage{T: t, root: t.TempDir()}
	odd := []string{"..", "a/b", "ö", "../../x", "."}
	for i, user := range odd {
		s.save(user, fmt.Sprint("j", i), 1)
	}
	users, err := Users(s.root)
	slices.Sort(users)
	slices.Sort(odd)
	if err != nil || !slices.Equal(users, odd) {
		t.Errorf("users %q, %v", users, err)
	}
	m := New(s.root)
	for _, user := range odd {
		if use, err := m.Of(t.Context(), user); err != nil || use.Bytes != 1000 {
			t.Errorf("%q uses %+v, %v", user, use, err)
		}
	}
}
