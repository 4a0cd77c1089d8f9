package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// shelf is a model of an agent's log files.
type shelf struct {
	agentv1.UnimplementedNodeServiceServer

	mu      sync.Mutex
	files   map[string]*file
	changed chan struct{}
}

type file struct {
	data   string
	closed bool // its worker has ended
}

func fileName(k *agentv1.WorkerKey, stderr bool) string {
	return fmt.Sprintf("%d/%d/%d/%t", k.GetJobId(), k.GetEpoch(), k.GetRank(), stderr)
}

// write appends to a file, and closes it when the worker has ended.
func (s *shelf) write(k *agentv1.WorkerKey, stderr bool, data string, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[fileName(k, stderr)]
	if f == nil {
		f = &file{}
		s.files[fileName(k, stderr)] = f
	}
	f.data += data
	f.closed = closed
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *shelf) ReadLogs(req *agentv1.ReadLogsRequest, stream grpc.ServerStreamingServer[agentv1.ReadLogsResponse]) error {
	sent := 0
	for {
		s.mu.Lock()
		changed, f := s.changed, s.files[fileName(req.GetKey(), req.GetStderr())]
		if f == nil {
			s.mu.Unlock()
			return status.Error(codes.NotFound, "no such worker here")
		}
		data, closed := f.data[sent:], f.closed
		s.mu.Unlock()
		if n := int(req.GetTailLines()); n > 0 && sent == 0 {
			lines := strings.SplitAfter(data, "\n")
			sent = len(data)
			data = strings.Join(lines[max(0, len(lines)-1-n):], "")
		} else {
			sent += len(data)
		}
		if data != "" {
			if err := stream.Send(&agentv1.ReadLogsResponse{Data: []byte(data)}); err != nil {
				return err
			}
		}
		if closed || !req.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// shelf starts an agent's log server and returns how to stop it.
func (f *fixture) shelf(node string) (*shelf, func()) {
	s := &shelf{files: map[string]*file{}, changed: make(chan struct{})}
	return s, f.serveShelf(node, s)
}

func (f *fixture) serveShelf(node string, s *shelf) (stop func()) {
	srv := grpc.NewServer()
	agentv1.RegisterNodeServiceServer(srv, s)
	stop = sync.OnceFunc(f.net.serve("agent-"+node, srv))
	f.t.Cleanup(stop)
	return stop
}

// logReader collects a log stream: output by epoch, rank and stream; notes.
type logReader struct {
	mu    sync.Mutex
	text  map[string]string
	notes []string
	err   error
	done  chan struct{}
}

func (s *testServer) logs(ctx context.Context, t *testing.T, req *schedulerv1.StreamLogsRequest) *logReader {
	t.Helper()
	stream, err := s.client.StreamLogs(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	r := &logReader{text: map[string]string{}, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for {
			m, err := stream.Recv()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					r.err = err
				}
				return
			}
			r.mu.Lock()
			if m.GetNote() != "" {
				r.notes = append(r.notes, m.GetNote())
			} else {
				k := fmt.Sprintf("%d/%d/%s", m.GetEpoch(), m.GetRank(), strings.ToLower(strings.TrimPrefix(m.GetStream().String(), "LOG_STREAM_STD")))
				r.text[k] += string(m.GetData())
			}
			r.mu.Unlock()
		}
	}()
	return r
}

func (r *logReader) show() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(r.text)) {
		out = append(out, fmt.Sprintf("%s=%q", k, r.text[k]))
	}
	return strings.Join(out, " ")
}

func (r *logReader) finished(t *testing.T, want string) {
	t.Helper()
	<-r.done
	if r.err != nil {
		t.Fatalf("stream ended: %v", r.err)
	}
	if got := r.show(); got != want {
		t.Errorf("got  %s\nwant %s\nnotes %q", got, want, r.notes)
	}
}

func TestLogsOfAllRanks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.node("a", 1)
	f.node("b", 1)
	sa, _ := f.shelf("a")
	sb, _ := f.shelf("b")
	id := f.submit(nil)
	ctx := within(t)
	r := f.s1().logs(ctx, t, &schedulerv1.StreamLogsRequest{JobId: uint64(id)})
	r.finished(t, "")
	if len(r.notes) != 1 || !strings.Contains(r.notes[0], "not started") {
		t.Errorf("notes %q", r.notes)
	}
	f.start(id, "a:0", "b:0")
	f.report(id, cluster.WorkerRunning, 0, 0, 1)
	sa.write(key(1, 1, 0), false, "one\ntwo\n", false)
	sa.write(key(1, 1, 0), true, "oops\n", false)
	sb.write(key(1, 1, 1), false, strings.Repeat("x", 100<<10)+"\n", false)
	sb.write(key(1, 1, 1), true, "", false)
	r = f.s1().logs(ctx, t, &schedulerv1.StreamLogsRequest{JobId: uint64(id)})
	r.finished(t, fmt.Sprintf(`1/0/err="oops\n" 1/0/out="one\ntwo\n" 1/1/out=%q`, strings.Repeat("x", 100<<10)+"\n"))

	rank := int32(0)
	r = f.s1().logs(ctx, t, &schedulerv1.StreamLogsRequest{JobId: uint64(id), Rank: &rank, Stream: schedulerv1.LogStream_LOG_STREAM_STDOUT, TailLines: 1})
	r.finished(t, `1/0/out="two\n"`)

	rank = 9
	r = f.s1().logs(ctx, t, &schedulerv1.StreamLogsRequest{JobId: uint64(id), Rank: &rank})
	<-r.done
	wantStatus(t, r.err, codes.NotFound, "no rank 9", "0..1")
	r = f.s1().logs(ctx, t, &schedulerv1.StreamLogsRequest{JobId: 99})
	<-r.done
	wantStatus(t, r.err, codes.NotFound, "job 99")
	r = f.s1().logs(ctx, t, &schedulerv1.StreamLogsRequest{JobId: uint64(id), Epoch: 5})
	<-r.done
	wantStatus(t, r.err, codes.NotFound, "no epoch 5")
}

// TestLogsRightAfterSubmit asks a server that has not heard of the job yet.
func TestLogsRightAfterSubmit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t, "s1", "s2")
		defer stopAll(f)
		s2 := f.servers["s2"]
		s2.replica.freeze(true)
		id := f.submit(nil)
		r := s2.logs(context.Background(), t, &schedulerv1.StreamLogsRequest{JobId: uint64(id)})
		time.Sleep(time.Second)
		s2.replica.freeze(false)
		r.finished(t, "")
		if len(r.notes) != 1 || !strings.Contains(r.notes[0], "not started") {
			t.Errorf("notes %q", r.notes)
		}
	})
}

func TestLogsOfAnUnreachableNode(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.node("a", 1)
	f.node("b", 1)
	sa, _ := f.shelf("a")
	id := f.submit(nil)
	f.start(id, "a:0", "b:0")
	sa.write(key(1, 1, 0), false, "fine\n", false)
	r := f.s1().logs(within(t), t, &schedulerv1.StreamLogsRequest{JobId: uint64(id), Stream: schedulerv1.LogStream_LOG_STREAM_STDOUT})
	r.finished(t, `1/0/out="fine\n"`)
	if len(r.notes) != 1 || !strings.Contains(r.notes[0], "node node-b") {
		t.Errorf("notes %q", r.notes)
	}
}

// TestFollow goes with a job from its wait through a failed epoch to its end.
func TestFollow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t)
		defer stopAll(f)
		f.node("a", 2)
		sa, stopA := f.shelf("a")
		defer stopA()
		id := f.submit(func(s *cluster.JobSpec) { s.Retries = 1 })
		r := f.s1().logs(context.Background(), t, &schedulerv1.StreamLogsRequest{JobId: uint64(id), Follow: true, Stream: schedulerv1.LogStream_LOG_STREAM_STDOUT})
		synctest.Wait()
		f.start(id, "a:0", "a:1")
		for rank := range 2 {
			sa.write(key(1, 1, int32(rank)), false, "begin ", false)
			f.report(id, cluster.WorkerRunning, 0, rank)
			time.Sleep(time.Second)
		}
		if got := r.show(); got != `1/0/out="begin " 1/1/out="begin "` {
			t.Errorf("while it runs: %s", got)
		}
		time.Sleep(time.Hour) // a silent worker is not a dead one
		sa.write(key(1, 1, 0), false, "bad", true)
		f.report(id, cluster.WorkerExited, 1, 0)
		sa.write(key(1, 1, 1), false, "stopped", true)
		f.report(id, cluster.WorkerExited, 0, 1)
		time.Sleep(2 * time.Second)
		f.start(id, "a:1", "a:0")
		for rank := range 2 {
			sa.write(key(1, 2, int32(rank)), false, "again", true)
			f.report(id, cluster.WorkerRunning, 0, rank)
		}
		f.report(id, cluster.WorkerExited, 0, 0, 1)
		r.finished(t, `1/0/out="begin bad" 1/1/out="begin stopped" 2/0/out="again" 2/1/out="again"`)
		if len(r.notes) != 2 || !strings.Contains(r.notes[1], "failure 1") {
			t.Errorf("notes %q", r.notes)
		}
		// Where an ended epoch ran is remembered.
		past := f.s1().logs(context.Background(), t, &schedulerv1.StreamLogsRequest{JobId: uint64(id), Epoch: 1, Stream: schedulerv1.LogStream_LOG_STREAM_STDOUT})
		past.finished(t, `1/0/out="begin bad" 1/1/out="begin stopped"`)
	})
}

// TestFollowSurvivesAnAgentRestart: nothing is lost, nothing comes twice.
func TestFollowSurvivesAnAgentRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t)
		defer stopAll(f)
		f.node("a", 2)
		sa, stop := f.shelf("a")
		id := f.submit(func(s *cluster.JobSpec) { s.GPUs = 1 })
		f.start(id, "a:0")
		sa.write(key(1, 1, 0), false, "one ", false)
		f.report(id, cluster.WorkerRunning, 0, 0)
		r := f.s1().logs(context.Background(), t, &schedulerv1.StreamLogsRequest{JobId: uint64(id), Follow: true, Stream: schedulerv1.LogStream_LOG_STREAM_STDOUT})
		time.Sleep(time.Second)
		stop()
		sa.write(key(1, 1, 0), false, "two ", false)
		time.Sleep(5 * time.Second)
		stop = f.serveShelf("a", sa)
		defer stop()
		time.Sleep(5 * time.Second)
		sa.write(key(1, 1, 0), false, "three", true)
		f.report(id, cluster.WorkerExited, 0, 0)
		r.finished(t, `1/0/out="one two three"`)
		if len(r.notes) != 1 || !strings.Contains(r.notes[0], "trying again") {
			t.Errorf("notes %q", r.notes)
		}
	})
}

// TestFollowGivesALostNodeUp lets a node fall silent in the middle of a read.
func TestFollowGivesALostNodeUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFixture(t)
		defer stopAll(f)
		f.node("a", 1)
		f.node("b", 1)
		sa, stopA := f.shelf("a")
		defer stopA()
		sb, stopB := f.shelf("b")
		defer stopB()
		id := f.submit(nil)
		f.start(id, "a:0", "b:0")
		f.report(id, cluster.WorkerRunning, 0, 0, 1)
		sa.write(key(1, 1, 0), false, "a", false)
		sb.write(key(1, 1, 1), false, "b", false)
		r := f.s1().logs(context.Background(), t, &schedulerv1.StreamLogsRequest{JobId: uint64(id), Epoch: 1, Follow: true, Stream: schedulerv1.LogStream_LOG_STREAM_STDOUT})
		time.Sleep(time.Second)
		f.apply(&cluster.LoseNode{Node: "b", Incarnation: 1, Reason: "power"})
		sa.write(key(1, 1, 0), false, "!", true)
		f.report(id, cluster.WorkerExited, 0, 0)
		r.finished(t, `1/0/out="a!" 1/1/out="b"`)
		if len(r.notes) != 1 || !strings.Contains(r.notes[0], "node-b") {
			t.Errorf("notes %q", r.notes)
		}
	})
}

func TestLogsClientVanishes(t *testing.T) {
	bubble(t, func(t *testing.T) { // the bubble fails if a goroutine stays
		f := newFixture(t)
		defer stopAll(f)
		f.node("a", 2)
		sa, stopA := f.shelf("a")
		defer stopA()
		id := f.submit(nil)
		f.start(id, "a:0", "a:1")
		f.report(id, cluster.WorkerRunning, 0, 0, 1)
		sa.write(key(1, 1, 0), false, "a", false)
		ctx, cancel := context.WithCancel(context.Background())
		r := f.s1().logs(ctx, t, &schedulerv1.StreamLogsRequest{JobId: uint64(id), Follow: true})
		time.Sleep(time.Second)
		cancel()
		<-r.done
		synctest.Wait()
		f.s1().service.activeMu.Lock()
		defer f.s1().service.activeMu.Unlock()
		if f.s1().service.active != 0 {
			t.Errorf("%d streams are still served", f.s1().service.active)
		}
	})
}
