package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A follower that starts with the worker sees every line over several rotations, then the end.
func TestFollowAcrossRotation(t *testing.T) {
	t.Parallel()
	n, step := newNode(t), newFIFO(t, "step")
	const lines, width, rounds = 1500, 32, 4 // 48 kB a round: the 64 KiB segment rotates in each second round
	spec := sh(0, `for r in 1 2 3 4; do i=0; while [ $i -lt 1500 ]; do i=$((i+1)); printf '%031d\n' $((r*10000+i)); done; read x <"$1"; done`, step.path)
	spec.MaxLogBytes = 1
	key := n.launch(spec)
	r, err := n.ReadLog(limited(t), key, Stdout, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	buf := make([]byte, lines*width)
	for round := 1; round <= rounds; round++ {
		if _, err := io.ReadFull(r, buf); err != nil {
			t.Fatal(err)
		}
		for i := range lines {
			if got, want := string(buf[i*width:(i+1)*width]), fmt.Sprintf("%031d\n", round*10000+i+1); got != want {
				t.Fatalf("round %d line %d: %q, want %q", round, i, got, want)
			}
		}
		step.say("go")
	}
	if got, err := r.Read(buf); got != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the exit: %d bytes, %v", got, err)
	}
	total := int64(lines * width * rounds)
	if r.Offset() != total {
		t.Errorf("offset %d, want %d", r.Offset(), total)
	}
	bases, err := segments(n.workerDir(key), Stdout)
	if err != nil || len(bases) != 2 || bases[0] == 0 {
		t.Errorf("segments %v, %v: want two, the first rotated away", bases, err)
	}
	n.exit(key)
	// A late reader begins at the oldest byte left; one that asks for the tail gets it.
	late, err := n.ReadLog(limited(t), key, Stdout, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close() //nolint:errcheck // read only
	if rest, err := io.ReadAll(late); err != nil || int64(len(rest)) != total-bases[0] {
		t.Errorf("late reader: %d bytes, %v, want %d", len(rest), err, total-bases[0])
	}
	tail, err := n.ReadLog(t.Context(), key, Stdout, -width, false)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close() //nolint:errcheck // read only
	if got, err := io.ReadAll(tail); err != nil || string(got) != fmt.Sprintf("%031d\n", rounds*10000+lines) {
		t.Errorf("tail %q, %v", got, err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	t.Parallel()
	n, never := newNode(t), newFIFO(t, "never")
	key := n.launch(sh(0, `read x <"$1"`, never.path))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := n.ReadLog(ctx, key, Stderr, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	got := make(chan error)
	go func() {
		_, err := r.Read(make([]byte, 10))
		got <- err
	}()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := n.ReadLog(t.Context(), key, "stdin", 0, false); err == nil || !strings.Contains(err.Error(), "use stdout or stderr") {
		t.Errorf("unknown stream: %v", err)
	}
}

// A full disk neither blocks nor kills a worker; what was dropped is counted and said, and the exit status arrives
// at once over the socket and on disk as soon as there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler := filepath.Join(dir, "filler")
	n, up, step := openNode(t, dir), newFIFO(t, "up"), newFIFO(t, "step")
	if err := os.WriteFile(filler, make([]byte, 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	key := n.launch(sh(0, `head -c 1000000 /dev/zero; echo full >"$1"; read x <"$2"
		echo after; echo said >"$1"; read x <"$2"
		head -c 1000000 /dev/zero; exit 8`, up.path, step.path))
	up.line() // the worker was neither blocked nor killed
	// What is still in the pipe must be dropped too, or it could land in the log when there is room again.
	pumped(t, n.workerDir(key), 1_000_000)
	if err := n.Launch(sh(1, "true")); err == nil || !strings.Contains(err.Error(), "free space") {
		t.Errorf("launch on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	step.say("go")
	up.line()
	r, err := n.ReadLog(limited(t), key, Stdout, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "after\n" {
			break
		}
	}
	st := n.await(key, "running", func(st Status) bool { return st.State == Running })
	if st.PID == 0 {
		t.Errorf("got %+v", st)
	}
	fill(t, filler)
	step.say("go")
	st = n.await(key, "exited", func(st Status) bool { return st.State == Exited })
	if st.ExitCode != 8 || st.Durable || st.DroppedLogBytes == 0 {
		t.Errorf("on the full disk: %+v, want code 8, not durable, bytes dropped", st)
	}
	if err := n.Ack(key); err == nil || !strings.Contains(err.Error(), "not on disk yet") {
		t.Errorf("ack before the exit is on disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	st = n.exit(key)
	gone(t, st.SupervisorPID)
	out := n.log(key, Stdout)
	markers := strings.Count(out, "bytes of output were dropped here: write ")
	if !strings.Contains(out, "]\nafter\n") || markers != 2 {
		t.Errorf("log of %d bytes has %d markers, want 2, one of them before \"after\"", len(out), markers)
	}
	if zeros := int64(strings.Count(out, "\x00")); zeros+st.DroppedLogBytes != 2_000_000 {
		t.Errorf("%d bytes written + %d dropped, want 2000000 together", zeros, st.DroppedLogBytes)
	}
}

// limited is a context that ends with the test or its patience.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// pumped waits until total bytes of stdout have been written or dropped. It polls: nothing else tells of dropped bytes.
func pumped(t *testing.T, dir string, total int64) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		st, err := callControl(t.Context(), dir, controlRequest{Op: opStatus})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "stdout.log"))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size()+st.DroppedLogBytes == total {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes written + %d dropped, want %d", info.Size(), st.DroppedLogBytes, total)
		}
	}
}

// fill takes whatever room is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is full
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}
