package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The agent dies by SIGKILL, with its whole process group; the worker goes on, and the next agent sees its exit.
func TestAgentKilledWorkerAdopted(t *testing.T) {
	t.Parallel()
	dir, up, end := t.TempDir(), newFIFO(t, "up"), newFIFO(t, "end")
	agent := exec.Command("/proc/self/exe", agentArg, dir, fmt.Sprintf(`echo $$ >%s; read x <%s; echo late; exit 7`, up.path, end.path))
	agent.Stderr = os.Stderr
	agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := up.line()
	if err := syscall.Kill(-agent.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := agent.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("agent: %v", err)
	}

	n, key := openNode(t, dir), Key{Job: 1, Epoch: 1}
	st := n.await(key, "running", func(st Status) bool { return st.State == Running })
	if strconv.Itoa(st.PID) != pid || len(st.GPUs) != 1 || st.GPUs[0] != "GPU-a" {
		t.Errorf("adopted %+v, want pid %s and its GPU", st, pid)
	}
	if spec, err := n.Spec(key); err != nil || spec.Command[0] != "/bin/sh" {
		t.Errorf("spec %+v, %v", spec, err)
	}
	end.say("go")
	if st := n.exit(key); st.ExitCode != 7 || st.Lost || strconv.Itoa(st.PID) != pid {
		t.Errorf("got %+v", st)
	}
	if out := n.log(key, Stdout); out != "late\n" {
		t.Errorf("stdout %q", out)
	}
}

// The worker ends while no agent is there: its exit waits on disk, again and again, until it is acknowledged.
func TestExitWhileAgentIsAway(t *testing.T) {
	t.Parallel()
	dir, end := t.TempDir(), newFIFO(t, "end")
	n := openNode(t, dir)
	key := n.launch(sh(0, `read x <"$1"; exit 3`, end.path))
	st := n.await(key, "running", func(st Status) bool { return st.State == Running })
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(st.PID, 0); err != nil {
		t.Fatalf("closing the manager killed the worker: %v", err)
	}
	end.say("go")
	gone(t, st.SupervisorPID)
	for range 2 {
		n = openNode(t, dir)
		if st := n.Workers()[0]; st.State != Exited || st.ExitCode != 3 || st.Acked || st.Lost || !st.Durable {
			t.Errorf("got %+v", st)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	n = openNode(t, dir)
	if err := n.Ack(key); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if st := openNode(t, dir).Workers()[0]; !st.Acked {
		t.Errorf("the acknowledgement is lost: %+v", st)
	}
}

// The supervisor is killed: nothing of the worker may go on, whether the agent is there or comes later, and whether
// the processes stayed in their group or not.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("agent away %v", away), func(t *testing.T) {
			t.Parallel()
			dir, up, never := t.TempDir(), newFIFO(t, "up"), newFIFO(t, "never")
			n := openNode(t, dir)
			key := n.launch(sh(0, `trap '' TERM
				setsid sh -c 'echo $$ >"$1"; read x <"$2"' sh "$1" "$2" &
				sh -c 'echo $$ >"$1"; read x <"$2"' sh "$1" "$2" &
				wait`, up.path, never.path))
			st := n.await(key, "running", func(st Status) bool { return st.State == Running })
			pids := []int{st.PID}
			for range 2 {
				pid, err := strconv.Atoi(up.line())
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
			if away {
				if err := n.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := syscall.Kill(st.SupervisorPID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if away {
				gone(t, st.SupervisorPID)
				n = openNode(t, dir)
			}
			st = n.exit(key)
			if !st.Lost || st.ExitCode != -1 || st.Succeeded() || !strings.Contains(st.Reason, "supervisor vanished") {
				t.Errorf("got %+v", st)
			}
			for _, pid := range pids {
				if p, err := readProcess(pid); err == nil && !p.dead() {
					t.Errorf("process %d of a lost worker is alive: %+v", pid, p)
				}
			}
			if err := n.Launch(sh(0, "true")); err != nil || !n.Workers()[0].Lost {
				t.Errorf("a lost worker was started again: %v", err)
			}
		})
	}
}

// What a crash or a reboot can leave on disk, read by the next agent.
func TestAdoptRemains(t *testing.T) {
	t.Parallel()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(rank int, files map[string]any) {
		t.Helper()
		sub := filepath.Join(dir, "workers", Key{Job: 1, Epoch: 1, Rank: rank}.String())
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, v := range files {
			data, ok := v.([]byte)
			if !ok {
				data, _ = json.Marshal(v)
			}
			if err := os.WriteFile(filepath.Join(sub, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := func(rank int, boot string) launchFile {
		return launchFile{Spec: sh(rank, "true"), Token: "none-of-this-machine", BootID: boot, LaunchedAt: time.Unix(1, 0)}
	}
	self, err := readProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	running := Status{Key: Key{Job: 1, Epoch: 1, Rank: 3}, State: Running, PID: os.Getpid(), StartTicks: self.start, BootID: "older"}
	reused := Status{Key: Key{Job: 1, Epoch: 1, Rank: 4}, State: Running, PID: os.Getpid(), StartTicks: self.start - 1, BootID: boot}
	put(0, nil)                                       // crash between mkdir and spec
	put(1, map[string]any{specFile: []byte(`{"spe`)}) // power cut while the spec was written
	put(2, map[string]any{specFile: file(2, boot)})   // crash before the supervisor started
	put(3, map[string]any{specFile: file(3, "older"), lockFile: []byte{}, statusFile: running})
	put(4, map[string]any{specFile: file(4, boot), lockFile: []byte{}, statusFile: reused})
	put(5, map[string]any{specFile: file(5, boot), lockFile: []byte{}, statusFile: []byte{}}) // power cut, file empty
	if err := os.MkdirAll(filepath.Join(dir, "workers", trashPrefix+"1-1-9"), 0o700); err != nil {
		t.Fatal(err)
	}
	n := openNode(t, dir)
	want := map[int]string{2: "killed, or crashed", 3: "machine was restarted", 4: "killed, or crashed", 5: "killed, or crashed"}
	for rank, reason := range want {
		if st := n.exit(Key{Job: 1, Epoch: 1, Rank: rank}); !st.Lost || !strings.Contains(st.Reason, reason) {
			t.Errorf("rank %d: %+v, want lost: %s", rank, st, reason)
		}
	}
	if got := len(n.Workers()); got != len(want) {
		t.Errorf("%d workers, want %d: launches that never started are no workers", got, len(want))
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "workers")); err != nil || len(entries) != len(want) {
		t.Errorf("on disk: %v, %v", entries, err)
	}
	if st := n.exit(n.launch(sh(0, "true"))); !st.Succeeded() {
		t.Errorf("a key that was never started: %+v", st)
	}
}

// A started worker whose spec cannot be read is neither started again nor robbed of its directory.
func TestUnreadableSpecBlocksLaunch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sub := filepath.Join(dir, "workers", "1-1-0")
	if err := os.MkdirAll(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{specFile: "{", lockFile: "", "stdout.0.log": "precious"} {
		if err := os.WriteFile(filepath.Join(sub, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n, ran := openNode(t, dir), filepath.Join(t.TempDir(), "ran")
	for range 2 {
		if err := n.Launch(sh(0, `echo ran >"$1"`, ran)); err == nil || !strings.Contains(err.Error(), "then remove the directory") {
			t.Errorf("launch: %v", err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(sub, "stdout.0.log")); err != nil || string(data) != "precious" {
		t.Errorf("its output: %q, %v", data, err)
	}
}

// Only the agent starts supervisors: run by hand on a directory, one must refuse and start nothing.
func TestSuperviseByHandRefuses(t *testing.T) {
	t.Parallel()
	n, ran := newNode(t), filepath.Join(t.TempDir(), "ran")
	key := n.launch(sh(0, `echo ran >>"$1"`, ran))
	n.exit(key)
	out, err := exec.Command("/proc/self/exe", superviseArg, n.workerDir(key)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "only the agent starts supervisors") {
		t.Errorf("got %v: %s", err, out)
	}
	if data, err := os.ReadFile(ran); err != nil || string(data) != "ran\n" {
		t.Errorf("ran %q, %v", data, err)
	}
}

// SIGTERM to the supervisor, as at machine shutdown, is a stop of its worker.
func TestSupervisorToldToEnd(t *testing.T) {
	t.Parallel()
	n, up, never := newNode(t), newFIFO(t, "up"), newFIFO(t, "never")
	key := n.launch(sh(0, `trap 'exit 6' TERM; echo up >"$1"; while :; do read x <"$2"; done`, up.path, never.path))
	up.line()
	st := n.await(key, "running", func(st Status) bool { return st.State == Running })
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM} {
		if err := syscall.Kill(st.SupervisorPID, sig); err != nil {
			t.Fatal(err)
		}
	}
	if st := n.exit(key); st.ExitCode != 6 || !strings.Contains(st.StopReason, "SIGTERM") {
		t.Errorf("got %+v", st)
	}
}

// Agents that were restarted many times in the life of one quiet worker have not locked the next one out.
func TestManyAgentsOneWorker(t *testing.T) {
	t.Parallel()
	n, never := newNode(t), newFIFO(t, "never")
	key := n.launch(sh(0, `read x <"$1"`, never.path))
	n.await(key, "running", func(st Status) bool { return st.State == Running })
	for range maxControlConns + 1 {
		conn, err := dialControl(t.Context(), n.workerDir(key))
		if err != nil {
			t.Fatal(err)
		}
		// The last one may be turned away before the end of the others is noticed: that is no matter.
		if send(conn, controlRequest{Op: opSubscribe}) == nil {
			_, _ = conn.Read(make([]byte, 1))
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Stop(key, Stop{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	if st := n.exit(key); st.Signal != "SIGKILL" || !st.Stopped() {
		t.Errorf("got %+v", st)
	}
}
