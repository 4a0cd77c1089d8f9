package pusher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
	"github.com/gangline/gangline/nodeagent/reconcile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// rig is a job's directory, and a pusher that tells what it does and waits for nobody.
type rig struct {
	*testing.T
	job    Job
	state  string
	bucket *remote.Memory
	copies chan Copy

	mu    sync.Mutex
	waits []time.Duration
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "job-7")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &rig{
		T: t, job: Job{Key: reconcile.Key{Job: 7, Epoch: 1}, Dir: dir, Name: "job-7"}, state: t.TempDir(), bucket: &remote.Memory{}, copies: make(chan Copy, 100),
	}
}

func (r *rig) open() *Pusher {
	r.Helper()
	p, err := New(Config{
		Bucket: r.bucket, Address: "s3://b/p", StateDir: r.state, Pushed: func(c Copy) { r.copies <- c },
		Sleep: func(ctx context.Context, d time.Duration) bool {
			r.mu.Lock()
			r.waits = append(r.waits, d)
			r.mu.Unlock()
			return ctx.Err() == nil
		},
	})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(p.Close)
	return p
}

// save commits a checkpoint of one file.
func (r *rig) save(step uint64) {
	r.Helper()
	s, err := open(r.job)
	if err == nil {
		err = s.Fence(r.Context(), 1)
	}
	if err == nil {
		err = os.Mkdir(r.job.Dir+"/tmp", 0o755)
	}
	if err == nil {
		err = os.WriteFile(r.job.Dir+"/tmp/model", []byte(strings.Repeat(fmt.Sprint(step), 1000)), 0o600)
	}
	if err == nil {
		_, err = s.CommitFiles(r.Context(), checkpoint.FilesCommit{Epoch: 1, Step: step, From: "tmp"})
	}
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) next() Copy {
	r.Helper()
	select {
	case c := <-r.copies:
		return c
	case <-time.After(patience):
		r.Fatal("nothing is copied")
		return Copy{}
	}
}

func (r *rig) remote() string {
	r.Helper()
	refs, err := remote.List(r.Context(), r.bucket, "job-7")
	if err != nil {
		r.Fatal(err)
	}
	var out []string
	for _, ref := range refs {
		out = append(out, fmt.Sprint(ref.Step))
	}
	return strings.Join(out, " ")
}

func TestEachNthIsCopied(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.open()
	for step := uint64(1); step <= 5; step++ {
		r.save(step)
		p.Committed(r.job, 2)
		if step%2 == 1 { // the first, the third, the fifth
			want := checkpoint.Ref{Epoch: 1, Step: step}
			if c := r.next(); c.Ref != want || c.Address != "s3://b/p/job-7/"+want.String() || remote.Marks(r.job.Dir)[want] != c.Address {
				t.Errorf("copied %+v, marks %v", c, remote.Marks(r.job.Dir))
			}
		}
	}
	p.Committed(r.job, 0) // a job that wants none
	if got := r.remote(); got != "5 3 1" || len(r.copies) > 0 {
		t.Errorf("copies of steps %s", got)
	}
	p.Close() // a note goes just after its copy is told
	if left, err := os.ReadDir(r.state); err != nil || len(left) > 0 {
		t.Errorf("notes of what is done: %v, %v", left, err)
	}
}

// TestOlderCopiesGo: those beyond what the job keeps are removed, whoever has made them; pinned ones stay, and so does a store that fails meanwhile.
func TestOlderCopiesGo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.job.Stay = Stay{Keep: 2, Every: 100}
	first := r.open()
	push := func(p *Pusher, step uint64) {
		t.Helper()
		r.save(step)
		p.Committed(r.job, 1)
		r.next()
	}
	push(first, 100)
	push(first, 101)
	s, err := open(r.job)
	if err == nil {
		err = s.Pin(t.Context(), checkpoint.Ref{Epoch: 1, Step: 101})
	}
	if err != nil {
		t.Fatal(err)
	}
	push(first, 102)
	first.Close()
	r.job.Key.Epoch++ // on another node, whose agent has an empty state directory
	r.state = t.TempDir()
	second := r.open()
	for step := uint64(103); step < 106; step++ {
		push(second, step)
	}
	if got := r.remote(); got != "105 104 101 100" {
		t.Errorf("copies of steps %s", got)
	}
	down := errors.New("503 slow down")
	r.bucket.Before = func(_ int, op, _ string) error {
		if op == "remove" {
			return down
		}
		return nil
	}
	push(second, 106) // told as made all the same
	r.bucket.Before = nil
	push(second, 107)
	if got := r.remote(); got != "107 106 101 100" {
		t.Errorf("copies of steps %s", got)
	}
}

// TestAStoreThatFails: tried again after growing waits, then given up; the next checkpoint is tried anew. Of those that come meanwhile the newest counts.
func TestAStoreThatFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	down := errors.New("503 slow down")
	fails := 3
	var mu sync.Mutex
	r.bucket.Before = func(_ int, op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == "upload" && fails > 0 {
			fails--
			return down
		}
		return nil
	}
	p := r.open()
	r.save(1)
	p.Committed(r.job, 1)
	if c := r.next(); c.Ref.Step != 1 {
		t.Errorf("copied %+v", c)
	}
	r.mu.Lock()
	if len(r.waits) != 3 || r.waits[2] < 2*time.Second {
		t.Errorf("waits %v", r.waits)
	}
	r.waits = nil
	r.mu.Unlock()
	mu.Lock()
	fails = tries
	mu.Unlock()
	r.save(2)
	p.Committed(r.job, 1)
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		over := fails == 0
		mu.Unlock()
		if over {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("it does not try as often as it should")
		}
	}
	r.save(3)
	p.Committed(r.job, 1)
	if c := r.next(); c.Ref.Step != 3 || r.remote() != "3 1" {
		t.Errorf("copied %+v; there are %s", c, r.remote())
	}
}

// TestTheNextAgentGoesOn: what was due when an agent died is copied by the next one.
func TestTheNextAgentGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stuck, dying := make(chan struct{}), make(chan struct{})
	r.bucket.Before = func(_ int, op, _ string) error {
		if op == "upload" {
			close(stuck)
			<-dying
			return errors.New("cut")
		}
		return nil
	}
	r.save(1)
	first := r.open()
	first.Committed(r.job, 1)
	<-stuck
	go func() {
		<-first.ctx.Done()
		close(dying)
	}()
	first.Close()
	if got := r.remote(); got != "" {
		t.Fatalf("copies of %s", got)
	}
	r.bucket.Before = nil
	r.open()
	if c := r.next(); c.Ref.Step != 1 {
		t.Errorf("copied %+v", c)
	}
}

// TestFetch brings the newest copy that is whole to a storage that has lost all, and nothing to one that has not.
func TestFetch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.open()
	fetch := func(bring bool) (Fetched, error) { return p.Fetch(t.Context(), r.job, bring) }
	if got, err := fetch(true); err != nil || got.Ref.Epoch != 0 {
		t.Errorf("with nothing anywhere: %+v, %v", got, err)
	}
	for step := uint64(1); step <= 2; step++ {
		r.save(step)
		p.Committed(r.job, 1)
		r.next()
	}
	if got, err := fetch(true); err != nil || got.Ref.Epoch != 0 {
		t.Errorf("with all on the storage: %+v, %v", got, err)
	}
	lose := func() {
		t.Helper()
		if err := errors.Join(os.RemoveAll(r.job.Dir), os.Mkdir(r.job.Dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	lose()
	other := make(chan error, 1)
	go func() {
		got, err := fetch(false)
		if err == nil && got.Ref.Step != 2 {
			err = fmt.Errorf("the other node has %+v", got)
		}
		other <- err
	}()
	if got, err := fetch(true); err != nil || got.Ref.Step != 2 {
		t.Errorf("lost: %+v, %v", got, err)
	}
	if err := <-other; err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(r.job.Dir + "/step-0000000002.epoch-1/model"); err != nil || string(b) != strings.Repeat("2", 1000) {
		t.Errorf("%.10q, %v", b, err)
	}
	lose()
	if err := r.bucket.Upload(t.Context(), "job-7/step-0000000002.epoch-1/model", 1, 1000, func(context.Context, int, []byte) ([]byte, error) {
		return []byte(strings.Repeat("x", 1000)), nil
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := fetch(true); err != nil || got.Ref.Step != 1 || len(got.Skipped) != 1 {
		t.Errorf("with a damaged copy: %+v, %v", got, err)
	}
	lose()
	r.bucket.Before = func(int, string, string) error { return errors.New("away") }
	if got, err := fetch(true); err == nil {
		t.Errorf("with a store that is away: %+v", got)
	}
}
