package replica

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// childDirEnv makes the test binary a server that writes until it is killed.
const childDirEnv = "GANGLINE_REPLICA_CHILD_DIR"

// childMain is a one-server cluster that prints each request once it is acknowledged.
func childMain(dir string) int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m := NewMux(ln, MuxConfig{Logger: quiet()})
	r, err := Open(Config{
		ID: "a", Servers: []Server{{ID: "a", Address: ln.Addr().String()}}, Dir: dir, Logger: quiet(), segmentBytes: testSegment,
		SnapshotEntries: 500, TrailingLogs: 100, SnapshotInterval: 50 * time.Millisecond,
	}, m.Raft())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	err = r.Lead(context.Background(), func(ctx context.Context, _ uint64) error {
		if _, _, err := r.Propose(ctx, node()); err != nil {
			return err
		}
		for i := r.State().Jobs(); ; i++ {
			request := fmt.Sprint("job", i)
			if _, _, err := r.Propose(ctx, submitted(request)); err != nil {
				return err
			}
			fmt.Println(request)
		}
	})
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// A server is killed while it writes and takes snapshots; everything that it
// acknowledged is there when its directory is opened again. Three times over.
func TestKillNineLosesNothing(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Skipf("cannot run this test binary again: %v", err)
	}
	dir := t.TempDir()
	var acked []string
	for round := range 3 {
		acked = append(acked, runAndKill(t, self, dir, 1200)...)
		ln := listen(t)
		m := NewMux(ln, MuxConfig{Logger: quiet()})
		r, err := Open(Config{ID: "a", Servers: []Server{{ID: "a", Address: ln.Addr().String()}}, Dir: dir, Logger: quiet(), segmentBytes: testSegment}, m.Raft())
		if err != nil {
			t.Fatalf("round %d: open: %v", round, err)
		}
		waitLeader(t, map[string]*Replica{"a": r})
		s, err := r.Read(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, request := range acked {
			if s.Request(request) == nil {
				t.Fatalf("round %d: %s was acknowledged and is lost", round, request)
			}
		}
		if err := s.Check(); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	snaps, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil || len(snaps) == 0 {
		t.Errorf("no snapshot was taken meanwhile: %v", err)
	}
}

// runAndKill starts the child and kills it after n acknowledgements.
func runAndKill(t *testing.T, self, dir string, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childDirEnv+"="+dir)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked []string
	lines := bufio.NewScanner(out)
	for len(acked) < n && lines.Scan() {
		acked = append(acked, lines.Text())
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // what it printed before it died counts too; the last line may be cut
		acked = append(acked, lines.Text())
	}
	_ = cmd.Wait()
	if len(acked) < n {
		t.Fatalf("the child acknowledged %d requests, want %d: %s", len(acked), n, complaint.String())
	}
	return acked[:len(acked)-1]
}

func entries(from, to uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: make([]byte, 1000)})
	}
	return logs
}

// The log store's own restarts: close and open again in one process, with the
// log truncated at the head and at the tail, over several segments.
func TestWALTruncateAndReopen(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Logger: quiet(), segmentBytes: 64 << 10}.withDefaults()
	reopen := func(d *directory) *directory {
		t.Helper()
		if d != nil {
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
		}
		d, err := openDirectory(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	check := func(d *directory, first, last uint64) {
		t.Helper()
		f, err1 := d.wal.FirstIndex()
		l, err2 := d.wal.LastIndex()
		if err1 != nil || err2 != nil || f != first || l != last {
			t.Fatalf("log is %d..%d (%v, %v), want %d..%d", f, l, err1, err2, first, last)
		}
		for i := first; i <= last; i++ {
			var got raft.Log
			if err := d.wal.GetLog(i, &got); err != nil || got.Index != i || len(got.Data) != 1000 {
				t.Fatalf("entry %d: %v", i, err)
			}
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := reopen(nil)
	do(d.wal.StoreLogs(entries(1, 500)))
	d = reopen(d)
	check(d, 1, 500)
	do(d.wal.DeleteRange(1, 317)) // head, as after a snapshot
	d = reopen(d)
	check(d, 318, 500)
	do(d.wal.DeleteRange(390, 500)) // tail, as when another leader's entries differ
	d = reopen(d)
	check(d, 318, 389)
	do(d.wal.StoreLogs(entries(390, 700)))
	d = reopen(d)
	check(d, 318, 700)
	do(d.wal.DeleteRange(318, 700)) // all, as after a snapshot from the leader
	d = reopen(d)
	do(d.wal.StoreLogs(entries(5000, 5100)))
	d = reopen(d)
	check(d, 5000, 5100)
	do(d.close())
}
