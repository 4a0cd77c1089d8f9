package worker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStopHandshake(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, script string
		stop         Stop
		code         int
		signal       string
		out          string
	}{
		{
			name: "checkpoints on the warning", script: `trap 'echo saved; exit 0' USR1; echo up >"$1"; while :; do read x <"$2"; done`,
			stop: Stop{Warn: time.Hour}, code: 0, signal: "", out: "saved\n",
		},
		{
			name: "another warning signal", script: `trap 'echo usr2; exit 3' USR2; echo up >"$1"; while :; do read x <"$2"; done`,
			stop: Stop{Warn: time.Hour, Signal: "SIGUSR2"}, code: 3, signal: "", out: "usr2\n",
		},
		{
			name: "no handler for the warning", script: `echo up >"$1"; read x <"$2"`,
			stop: Stop{Warn: time.Hour}, code: -1, signal: "SIGUSR1", out: "",
		},
		{
			name: "a shell above the program", script: `sh -c 'trap "echo saved; exit 4" USR1; echo up >"$1"; while :; do read x <"$2"; done' sh "$1" "$2"; exit $?`,
			stop: Stop{Warn: time.Hour}, code: 4, signal: "", out: "saved\n",
		},
		{
			name: "ends at SIGTERM", script: `trap 'echo warned' USR1; trap 'echo term; exit 5' TERM; echo up >"$1"; while :; do read x <"$2"; done`,
			stop: Stop{Warn: 50 * time.Millisecond, Grace: time.Hour}, code: 5, signal: "", out: "warned\nterm\n",
		},
		{
			name: "no warning asked for", script: `trap 'echo warned' USR1; trap 'echo term; exit 5' TERM; echo up >"$1"; while :; do read x <"$2"; done`,
			stop: Stop{Grace: time.Hour}, code: 5, signal: "", out: "term\n",
		},
		{
			name: "ignores everything", script: `trap '' USR1 TERM; echo up >"$1"; while :; do read x <"$2"; done`,
			stop: Stop{Warn: 20 * time.Millisecond, Grace: 20 * time.Millisecond}, code: -1, signal: "SIGKILL", out: "",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n, up, never := newNode(t), newFIFO(t, "up"), newFIFO(t, "never")
			key := n.launch(sh(0, tc.script, up.path, never.path))
			up.line()
			tc.stop.Reason = "preempted by job 7"
			if err := n.Stop(key, tc.stop); err != nil {
				t.Fatal(err)
			}
			st := n.exit(key)
			if st.ExitCode != tc.code || st.Signal != tc.signal {
				t.Errorf("code %d signal %q, want %d %q", st.ExitCode, st.Signal, tc.code, tc.signal)
			}
			if !st.Stopped() || st.Succeeded() || st.StopReason != "preempted by job 7" ||
				!strings.HasPrefix(st.Reason, "stopped (preempted by job 7): ") {
				t.Errorf("stopped %v, succeeded %v, stop reason %q, reason %q",
					st.Stopped(), st.Succeeded(), st.StopReason, st.Reason)
			}
			if out := n.log(key, Stdout); out != tc.out {
				t.Errorf("stdout %q, want %q", out, tc.out)
			}
			if err := n.Stop(key, tc.stop); err != nil {
				t.Errorf("stop of an exited worker: %v", err)
			}
		})
	}
}

func TestSecondStopOnlyShortens(t *testing.T) {
	t.Parallel()
	n, up, never := newNode(t), newFIFO(t, "up"), newFIFO(t, "never")
	key := n.launch(sh(0, `trap 'echo warned >"$1"' USR1; trap '' TERM; echo up >"$1"; while :; do read x <"$2"; done`,
		up.path, never.path))
	up.line()
	for _, stop := range []Stop{{Warn: time.Hour, Grace: time.Hour, Reason: "first"}, {Warn: 2 * time.Hour, Reason: "longer"}} {
		if err := n.Stop(key, stop); err != nil {
			t.Fatal(err)
		}
	}
	if got := up.line(); got != "warned" {
		t.Fatalf("got %q", got)
	}
	if st := n.await(key, "stopping", func(st Status) bool { return st.State == Stopping }); st.StopReason != "first" {
		t.Errorf("stop reason %q, want the first", st.StopReason)
	}
	if err := n.Stop(key, Stop{Reason: "now"}); err != nil {
		t.Fatal(err)
	}
	if st := n.exit(key); st.Signal != "SIGKILL" {
		t.Errorf("got %+v", st)
	}
}

func TestStopPlan(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	// run plays requests at their seconds and records each stage with its second, up to three kill rounds.
	type request struct {
		at   float64
		stop Stop
	}
	run := func(requests ...request) string {
		var p stopPlan
		var log []string
		var now time.Time
		for range 50 {
			next, ok := p.next()
			if len(requests) > 0 && (!ok || at(requests[0].at).Before(next)) {
				now = at(requests[0].at)
				p.request(now, requests[0].stop)
				requests = requests[1:]
			} else if ok {
				now = next
			} else {
				break
			}
			for _, st := range p.due(now) {
				log = append(log, fmt.Sprintf("%s@%g", [...]string{"warn", "term", "kill"}[st], now.Sub(start).Seconds()))
			}
			if p.again >= 2*killAgainMin {
				break
			}
		}
		return strings.Join(log, " ")
	}
	s := time.Second
	for _, tc := range []struct {
		name, want string
		requests   []request
	}{
		{"all stages", "warn@0 term@10 kill@30 kill@30.02", []request{{0, Stop{Warn: 10 * s, Grace: 20 * s}}}},
		{"no warning", "term@0 kill@20 kill@20.02", []request{{0, Stop{Grace: 20 * s}}}},
		{"kill", "kill@0 kill@0.02", []request{{0, Stop{}}}},
		{"no grace", "warn@0 kill@10 kill@10.02", []request{{0, Stop{Warn: 10 * s}}}},
		{"longer changes nothing", "warn@0 term@10 kill@30 kill@30.02", []request{{0, Stop{Warn: 10 * s, Grace: 20 * s}}, {5, Stop{Warn: 100 * s}}}},
		{"shorter term", "warn@0 term@7 kill@27 kill@27.02", []request{{0, Stop{Warn: 10 * s, Grace: 20 * s}}, {5, Stop{Warn: 2 * s, Grace: 20 * s}}}},
		{"shorter kill", "warn@0 term@10 kill@16 kill@16.02", []request{{0, Stop{Warn: 10 * s, Grace: 20 * s}}, {15, Stop{Grace: s}}}},
		{"kill in the middle", "warn@0 kill@5 kill@5.02", []request{{0, Stop{Warn: 10 * s, Grace: 20 * s}}, {5, Stop{}}}},
	} {
		if got := run(tc.requests...); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// What a shell leaves behind that a stop has killed gets the stop's grace, not the short one of what was forgotten.
func TestOrphansOfAStopHaveItsGrace(t *testing.T) {
	t.Parallel()
	s, start := time.Second, time.Unix(1000, 0)
	for _, tc := range []struct {
		name         string
		stop         Stop
		dies         time.Duration // after the stop
		killed       bool
		term, killAt time.Duration
	}{
		{"by the warning", Stop{Warn: 30 * s, Grace: 90 * s}, 0, true, 0, 90 * s},
		{"by SIGTERM", Stop{Warn: 30 * s, Grace: 90 * s}, 30 * s, true, 30 * s, 120 * s},
		{"by SIGTERM, late", Stop{Grace: 90 * s}, 60 * s, true, 0, 90 * s},
		{"by itself", Stop{Warn: 30 * s, Grace: 90 * s}, 10 * s, false, 10 * s, 15 * s},
		{"a short grace", Stop{Warn: 30 * s, Grace: 1 * s}, 0, true, 0, 5 * s},
		{"without a stop", Stop{}, 0, true, 0, 5 * s},
	} {
		var p stopPlan
		if tc.name != "without a stop" {
			p.request(start, tc.stop)
		}
		p.orphans(start.Add(tc.dies), tc.killed)
		if term, kill := p.termAt.Sub(start), p.killAt.Sub(start); term != tc.term || kill != tc.killAt {
			t.Errorf("%s: SIGTERM after %v, SIGKILL after %v, want %v and %v", tc.name, term, kill, tc.term, tc.killAt)
		}
	}
}

// A worker that ends while its children go on is not over before they are: they hold the GPU.
func TestLeftBehindProcessesEndFirst(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, start string }{
		{"in its group", `sh -c "$child" sh "$1" "$2" &`},
		{"in their own session", `setsid sh -c "$child" sh "$1" "$2" &`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n, up, never, end := newNode(t), newFIFO(t, "up"), newFIFO(t, "never"), newFIFO(t, "end")
			// The grandchild says its number; the main process ends when the test has read it.
			key := n.launch(sh(0, `child='trap "echo bye; exit" TERM; echo $$ >"$1"; while :; do read x <"$2"; done'
				`+tc.start+`
				read x <"$3"; exit 4`, up.path, never.path, end.path))
			pid, err := strconv.Atoi(up.line())
			if err != nil {
				t.Fatal(err)
			}
			end.say("go")
			st := n.exit(key)
			if st.ExitCode != 4 || !strings.Contains(st.Reason, "left behind") || st.Stopped() {
				t.Errorf("got %+v", st)
			}
			if p, err := readProcess(pid); err == nil && !p.dead() {
				t.Errorf("the worker counts as exited but process %d lives: %+v", pid, p)
			}
			if out := n.log(key, Stdout); out != "bye\n" {
				t.Errorf("stdout %q: the process left behind got no SIGTERM", out)
			}
		})
	}
}

func TestControlProtocol(t *testing.T) {
	t.Parallel()
	n, never := newNode(t), newFIFO(t, "never")
	key := n.launch(sh(0, `read x <"$1"`, never.path))
	n.await(key, "running", func(st Status) bool { return st.State == Running })
	conn, err := dialControl(t.Context(), n.workerDir(key))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	lines := bufio.NewScanner(conn)
	ask := func(request string) (a controlAnswer) {
		t.Helper()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(request + "\n")); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() {
			t.Fatalf("no answer to %s: %v", request, lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask(`{"op":"status"}`); a.Status == nil || a.Status.State != Running {
		t.Errorf("status: %+v", a)
	}
	if a := ask(`{"op":"dance"}`); !strings.Contains(a.Error, `"dance" is unknown`) {
		t.Errorf("unknown operation: %+v", a)
	}
	if a := ask(`{"op":"stop","stop":{"signal":"SIGNOPE"}}`); !strings.Contains(a.Error, "SIGNOPE") {
		t.Errorf("unknown signal: %+v", a)
	}
	if a := ask(`{"op":"kill","stop":{"reason":"by hand"}}`); a.Error != "" {
		t.Errorf("kill: %+v", a)
	}
	if st := n.exit(key); st.Signal != unix.SignalName(unix.SIGKILL) || st.StopReason != "by hand" {
		t.Errorf("got %+v", st)
	}
}
