package socket_test

import (
	"bytes"
	"context"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/socket"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door is a server with one worker, and a client on its socket.
type door struct {
	*socket.Server
	agentv1.WorkerServiceClient
	key     reconcile.Key
	files   socket.Files
	changes chan *agentv1.WorkerStatus // what the worker had said by each
}

func open(t *testing.T, dir string, rank int) *door {
	t.Helper()
	key := reconcile.Key{Job: 5, Epoch: 2, Rank: rank}
	path, err := socket.Path(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	d := &door{key: key, files: socket.Files{Socket: path, Notes: filepath.Join(dir, "notes.json")}, changes: make(chan *agentv1.WorkerStatus, 100)}
	d.Server = socket.New(socket.Config{Host: "node-a", NameAfter: 50 * time.Millisecond, Changed: func() { d.changes <- d.Notes(d.key) }})
	d.Track(key, d.files)
	if err := d.Serve(key); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	d.WorkerServiceClient = agentv1.NewWorkerServiceClient(conn)
	t.Cleanup(func() {
		_ = conn.Close()
		d.Shutdown()
	})
	return d
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestRendezvousWaitsForPeers(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 1)
	answered := make(chan *agentv1.RendezvousResponse, 1)
	go func() {
		answer, err := d.Rendezvous(within(t), &agentv1.RendezvousRequest{Address: "[::]:99"})
		if err != nil {
			t.Error(err)
		}
		answered <- answer
	}()
	<-d.changes
	if got := d.Notes(d.key).GetRendezvousAddress(); got != "node-a:99" {
		t.Errorf("address %q", got)
	}
	share := d.Notes(d.key).GetRendezvousShare()
	if len(share) != 32 {
		t.Errorf("share of the secret %x", share)
	}
	gang := func(secret string, peers ...string) {
		d.SetGang(d.key, socket.Gang{Formation: 1, Members: []int32{0, 1}, Peers: peers, Secret: []byte(secret)})
	}
	gang("")
	gang("old", "x:1", "node-a:98") // of a former call of this rank
	select {
	case a := <-answered:
		t.Fatalf("answered too early: %v", a)
	default:
	}
	gang("new", "x:1", "node-a:99")
	if a := <-answered; string(a.GetSecret()) != "new" || a.GetJobId() != 5 || a.GetEpoch() != 2 || a.GetRank() != 1 || len(a.GetPeers()) != 2 {
		t.Errorf("%v", a)
	}
	if _, err := d.Rendezvous(within(t), &agentv1.RendezvousRequest{Address: "node-a:99"}); err != nil {
		t.Error(err)
	}
	if got := d.Notes(d.key).GetRendezvousShare(); !bytes.Equal(got, share) {
		t.Errorf("the share was %x and is %x: ranks that met before and after would not know each other", share, got)
	}
	for _, bad := range []string{"", "host", "host:0", "host:", strings.Repeat("x", 5000) + ":1"} {
		if _, err := d.Rendezvous(within(t), &agentv1.RendezvousRequest{Address: bad}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("address %.20q: %v", bad, err)
		}
	}
}

func TestNotesSurvive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, dir, 0)
	ctx := within(t)
	for _, step := range []int64{10, 20, 5} { // a late report of an older step counts for nothing
		if _, err := first.ReportCheckpoint(ctx, &agentv1.ReportCheckpointRequest{Checkpoint: &agentv1.Checkpoint{Step: step, Path: "/p", Bytes: 3}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := first.ReportProgress(ctx, &agentv1.ReportProgressRequest{Progress: &agentv1.Progress{Step: 21, Metrics: map[string]float64{"loss": math.NaN()}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := first.ReportPeerLost(ctx, &agentv1.ReportPeerLostRequest{Rank: 3, Cause: "connection reset"}); err != nil {
		t.Fatal(err)
	}
	first.Shutdown()
	if _, err := os.Stat(first.files.Socket); err == nil {
		t.Error("the socket is still there")
	}
	second := open(t, dir, 0)
	n := second.Notes(second.key)
	if n.GetCheckpoint().GetStep() != 20 || n.GetProgress().GetStep() != 21 || !math.IsNaN(n.GetProgress().GetMetrics()["loss"]) ||
		!n.GetPeerLost() || n.GetMessage() != "lost its peer, rank 3: connection reset" {
		t.Errorf("notes after a restart: %v", n)
	}
	second.Forget(second.key)
	if second.Notes(second.key) != nil {
		t.Error("a forgotten worker has notes")
	}
}

func TestBrokenNotesDoNotMatter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes.json"), []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir, 0)
	if n := d.Notes(d.key); n == nil || n.GetCheckpoint() != nil {
		t.Errorf("notes %v", n)
	}
}

func TestNoticesAreLevels(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 0)
	now := time.Now()
	d.SetStop(d.key, socket.Stop{Reason: "drain", Terminate: now.Add(time.Hour), Kill: now.Add(2 * time.Hour)})
	stream, err := d.WatchNotices(within(t), &agentv1.WatchNoticesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if s := first.GetStop(); s.GetReason() != "drain" || s.GetTerminateInMs() > 3_600_000 || s.GetTerminateInMs() < 3_500_000 || s.GetKillInMs() < 7_100_000 {
		t.Errorf("%v", s)
	}
	d.SetStop(d.key, socket.Stop{Reason: "cancel", Terminate: now.Add(-time.Second), Kill: now})
	second, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if s := second.GetStop(); s.GetReason() != "cancel" || s.GetTerminateInMs() != 0 {
		t.Errorf("%v", s)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 0)
	many := map[string]float64{}
	for i := range 33 {
		many[string(rune('a'+i))] = 1
	}
	for name, p := range map[string]*agentv1.Progress{
		"none": nil, "too many": {Metrics: many}, "long name": {Metrics: map[string]float64{strings.Repeat("x", 65): 1}},
	} {
		if _, err := d.ReportProgress(within(t), &agentv1.ReportProgressRequest{Progress: p}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]*agentv1.Ring{"none": nil, "negative": {Calls: 1, BusyNs: -1}} {
		if _, err := d.ReportRing(within(t), &agentv1.ReportRingRequest{Ring: r}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	huge := &agentv1.ReportPeerLostRequest{Cause: strings.Repeat("x", 100<<10)}
	if _, err := d.ReportPeerLost(within(t), huge); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of 100 KiB: %v", err)
	}
	if _, err := d.ReportCheckpoint(within(t), &agentv1.ReportCheckpointRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no checkpoint: %v", err)
	}
}

// TestFullDisk: what cannot be written is still told.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 0)
	if err := os.Mkdir(filepath.Join(dir, "notes.json.tmp"), 0o700); err != nil { // no file can be made here
		t.Fatal(err)
	}
	if _, err := d.ReportCheckpoint(within(t), &agentv1.ReportCheckpointRequest{Checkpoint: &agentv1.Checkpoint{Step: 1, Path: "/p"}}); err != nil {
		t.Fatal(err)
	}
	if got := d.Notes(d.key).GetCheckpoint().GetStep(); got != 1 {
		t.Errorf("step %d", got)
	}
}

func TestSocketIsPrivateAndReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := reconcile.Key{Job: 5, Epoch: 2}
	path, err := socket.Path(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = stale.Close()
	d := open(t, dir, 0)
	info, err := os.Stat(d.files.Socket)
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("socket %v, %v", info.Mode(), err)
	}
	folder, err := os.Stat(filepath.Dir(d.files.Socket))
	if err != nil || folder.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v", folder.Mode(), err)
	}
}

func TestLongPaths(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	long := "/" + strings.Repeat("x", 120)
	key := reconcile.Key{Job: math.MaxUint64, Epoch: math.MaxUint64, Rank: math.MaxInt32}
	path, err := socket.Path(long, reconcile.Key{Job: 1, Epoch: 1})
	if err != nil || !strings.HasPrefix(path, tmp) || len(path) > 107 {
		t.Fatalf("path %q, %v", path, err)
	}
	again, err := socket.Path(long, reconcile.Key{Job: 1, Epoch: 1})
	if err != nil || again != path {
		t.Errorf("second time %q, %v", again, err)
	}
	other, err := socket.Path(long+"y", reconcile.Key{Job: 1, Epoch: 1})
	if err != nil || other == path {
		t.Errorf("two agents share %q, %v", other, err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Path(long, reconcile.Key{Job: 1, Epoch: 1}); err == nil || !strings.Contains(err.Error(), "not a folder of this user alone") {
		t.Errorf("an open folder: %v", err)
	}
	t.Setenv("TMPDIR", long)
	if _, err := socket.Path(long, key); err == nil || !strings.Contains(err.Error(), "shorter state directory") {
		t.Errorf("no room anywhere: %v", err)
	}
}

// TestShutdownEndsCalls: a waiting rendezvous and a watcher end, and nothing is left.
func TestShutdownEndsCalls(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 0)
	var ended atomic.Int32
	done := make(chan struct{}, 2)
	go func() {
		_, err := d.Rendezvous(within(t), &agentv1.RendezvousRequest{Address: ":1"})
		if status.Code(err) == codes.Unavailable || status.Code(err) == codes.Canceled {
			ended.Add(1)
		}
		done <- struct{}{}
	}()
	<-d.changes
	stream, err := d.WatchNotices(within(t), &agentv1.WatchNoticesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if _, err := stream.Recv(); err != nil {
			ended.Add(1)
		}
		done <- struct{}{}
	}()
	d.Shutdown()
	<-done
	<-done
	if ended.Load() != 2 {
		t.Errorf("%d of 2 calls ended as they should", ended.Load())
	}
	if err := d.Serve(d.key); err == nil {
		t.Error("a socket was opened after the shutdown")
	}
}

// A cause that is cut in the middle of a character must not keep the notes from the disk.
func TestLongCauseIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, dir, 0)
	if _, err := first.ReportPeerLost(within(t), &agentv1.ReportPeerLostRequest{Cause: "x" + strings.Repeat("é", 4096)}); err != nil {
		t.Fatal(err)
	}
	first.Shutdown()
	second := open(t, dir, 0)
	if n := second.Notes(second.key); !n.GetPeerLost() || !strings.HasSuffix(n.GetMessage(), "éé") {
		t.Errorf("notes after a restart: peer lost %v, %d bytes of message", n.GetPeerLost(), len(n.GetMessage()))
	}
}
