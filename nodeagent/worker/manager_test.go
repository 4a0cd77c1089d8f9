package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, script, signal, reason string
		code                         int
	}{
		{"zero", "echo out; echo err >&2", "", "exited with code 0", 0},
		{"one", "exit 1", "", "exited with code 1", 1},
		{"own 127", "exit 127", "", "exited with code 127", 127},
		{"signal", "kill -SEGV $$", "SIGSEGV", "killed by SIGSEGV", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			st := n.exit(n.launch(sh(0, tc.script)))
			if st.ExitCode != tc.code || st.Signal != tc.signal || st.Reason != tc.reason || st.LaunchError != "" || st.Lost {
				t.Errorf("got %+v, want code %d signal %q reason %q", st, tc.code, tc.signal, tc.reason)
			}
			if st.Succeeded() != (tc.code == 0) || st.Stopped() || st.PID == 0 || st.StartTicks == 0 {
				t.Errorf("succeeded %v, stopped %v, pid %d, ticks %d", st.Succeeded(), st.Stopped(), st.PID, st.StartTicks)
			}
			if st.StartedAt.IsZero() || st.ExitedAt.Before(st.StartedAt) || st.MaxRSSBytes == 0 {
				t.Errorf("times %v to %v, max rss %d", st.StartedAt, st.ExitedAt, st.MaxRSSBytes)
			}
		})
	}
}

func TestWorkerSeesItsSpecOnly(t *testing.T) {
	t.Parallel()
	n, dir := newNode(t), t.TempDir()
	spec := sh(0, `pwd; env | sort; ls /proc/self/fd | tr '\n' ' '; readlink /proc/self/fd/0; cat; echo "to stderr" >&2`)
	spec.Dir, spec.Env, spec.GPUs = dir, []string{"A=1", "B=two words"}, []string{"GPU-1"}
	spec.Labels = map[string]string{"name": "digits"}
	key := n.launch(spec)
	st := n.exit(key)
	out := n.log(key, Stdout)
	for _, want := range []string{dir + "\n", "A=1\n", "B=two words\n", tokenEnv + "=", "/dev/null\n", "\n0 1 2 3 /dev/null\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("stdout lacks %q:\n%s", want, out)
		}
	}
	for _, leak := range []string{"GOMAXPROCS", "HOME=", "USER="} {
		if strings.Contains(out, leak) {
			t.Errorf("the agent's %s leaked into the worker:\n%s", leak, out)
		}
	}
	if got := n.log(key, Stderr); got != "to stderr\n" {
		t.Errorf("stderr = %q", got)
	}
	if len(st.GPUs) != 1 || st.Labels["name"] != "digits" {
		t.Errorf("GPUs %v, labels %v", st.GPUs, st.Labels)
	}
	path, err := n.LogPath(key, Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != out {
		t.Errorf("LogPath file = %q, %v", data, err)
	}
}

func TestLaunchErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	n := newNode(t)
	for i, tc := range []struct {
		command, dir string
		env          []string
		want         []string
	}{
		{"pythn", "/", []string{"PATH=/usr/bin:/bin"}, []string{`no such command in PATH "/usr/bin:/bin"`, "check the spelling"}},
		{"pythn", "/", nil, []string{"no such command in PATH " + strconv.Quote(defaultPath)}},
		{"./no-such", dir, nil, []string{"there is no file " + dir + "/no-such", "check the path"}},
		{file("plain.py", "print(1)\n", 0o644), "/", nil, []string{"cannot be executed", "chmod +x"}},
		{dir, "/", nil, []string{"cannot be executed", "directory"}},
		{file("text", "just text\n", 0o755), "/", nil, []string{"no program for this machine", `"#!"`}},
		{file("script", "#!/no/such/interp\n", 0o755), "/", nil, []string{"interpreter"}},
		{"true", filepath.Join(dir, "none"), nil, []string{"working directory", "does not exist on this node"}},
		{"true", filepath.Join(dir, "text"), nil, []string{"is a file"}},
	} {
		key := n.launch(Spec{Key: Key{Job: 9, Epoch: 1, Rank: i}, Command: []string{tc.command}, Dir: tc.dir, Env: tc.env})
		st := n.exit(key)
		if st.ExitCode != -1 || st.PID != 0 || st.Lost || st.Succeeded() {
			t.Errorf("%s in %s: %+v", tc.command, tc.dir, st)
		}
		for _, want := range tc.want {
			if !strings.Contains(st.LaunchError, want) {
				t.Errorf("%s in %s: launch error %q lacks %q", tc.command, tc.dir, st.LaunchError, want)
			}
		}
	}
}

func TestLaunchRefusesNonsense(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for name, spec := range map[string]Spec{
		"no command":     {},
		"negative rank":  {Key: Key{Rank: -1}, Command: []string{"true"}},
		"relative dir":   {Command: []string{"true"}, Dir: "work"},
		"NUL":            {Command: []string{"true", "a\x00b"}},
		"unknown signal": {Command: []string{"true"}, WarnSignal: "SIGNOPE"},
	} {
		if err := n.Launch(spec); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if got := n.Workers(); len(got) != 0 {
		t.Errorf("refused specs left workers: %v", got)
	}
	if err := n.Stop(Key{Job: 5}, Stop{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("stop of a stranger: %v", err)
	}
}

func TestSupervisorThatCannotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m, err := Open(dir, Config{Supervisor: []string{"/no/such/gangline"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Launch(sh(0, "true")); err == nil || !strings.Contains(err.Error(), "/no/such/gangline") {
		t.Errorf("launch: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Launch(sh(0, "true")); !errors.Is(err, ErrClosed) {
		t.Errorf("launch after close: %v", err)
	}
	// Nothing had been started, so the same key may be launched now.
	n := openNode(t, dir)
	if st := n.exit(n.launch(sh(0, "true"))); !st.Succeeded() {
		t.Errorf("got %+v", st)
	}
}

func TestLaunchTwiceStartsOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n, ran := openNode(t, dir), filepath.Join(t.TempDir(), "ran")
	spec := sh(0, `echo ran >>"$1"`, ran)
	errs := make(chan error)
	for range 8 {
		go func() { errs <- n.Launch(spec) }()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	n.exit(spec.Key)
	n.launch(spec)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, dir) // a restarted agent knows it as well
	n.launch(spec)
	if err := n.Ack(spec.Key); err != nil {
		t.Fatal(err)
	}
	if got, err := n.Collect(0, 0); got != 1 || err != nil {
		t.Fatalf("collect: %d, %v", got, err)
	}
	if err := n.Launch(spec); !errors.Is(err, ErrCollected) {
		t.Errorf("launch after collect: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, dir)
	if err := n.Launch(spec); !errors.Is(err, ErrCollected) {
		t.Errorf("launch after collect and restart: %v", err)
	}
	if data, err := os.ReadFile(ran); err != nil || string(data) != "ran\n" {
		t.Errorf("the worker ran %q, %v, want once", data, err)
	}
}

func TestSecondManagerIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := openNode(t, dir)
	_, err := Open(dir, Config{Supervisor: []string{"x"}})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", os.Getpid())) {
		t.Errorf("second Open: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	openNode(t, dir)
}

func TestAckAndCollect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n, hold := openNode(t, dir), newFIFO(t, "hold")
	live := n.launch(sh(9, `read x <"$1"`, hold.path))
	n.await(live, "running", func(st Status) bool { return st.State == Running })
	if err := n.Ack(live); err == nil || !strings.Contains(err.Error(), "not exited") {
		t.Errorf("ack of a running worker: %v", err)
	}
	for rank := range 3 {
		n.exit(n.launch(sh(rank, "head -c 10000 /dev/zero")))
		if rank < 2 {
			if err := n.Ack(Key{Job: 1, Epoch: 1, Rank: rank}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := n.Collect(time.Hour, 1<<30); got != 0 || err != nil {
		t.Errorf("nothing is due: %d, %v", got, err)
	}
	if got, err := n.Collect(time.Hour, 15_000); got != 1 || err != nil {
		t.Errorf("one is too much for 15 kB: %d, %v", got, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, dir)
	var left []string
	for _, st := range n.Workers() {
		left = append(left, fmt.Sprintf("%v acked=%v", st.Key, st.Acked))
	}
	if got, want := strings.Join(left, ", "), "1-1-1 acked=true, 1-1-2 acked=false, 1-1-9 acked=false"; got != want {
		t.Errorf("after restart: %s, want %s", got, want)
	}
	if got, err := n.Collect(0, 0); got != 1 || err != nil {
		t.Errorf("only the acknowledged one goes: %d, %v", got, err)
	}
	hold.say("go")
	n.exit(live)
}

func TestManyQuickWorkers(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const count = 200
	for i := range count {
		n.launch(Spec{Key: Key{Job: 2, Epoch: 1, Rank: i}, Command: []string{"true"}})
	}
	for i := range count {
		if st := n.exit(Key{Job: 2, Epoch: 1, Rank: i}); !st.Succeeded() {
			t.Errorf("rank %d: %+v", i, st)
		}
	}
}

// BenchmarkLaunch measures "true" from Launch to the durable exit, with as many launches at once as an agent makes.
func BenchmarkLaunch(b *testing.B) {
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			n := newNode(b)
			began := time.Now()
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					for i := c; i < b.N; i += callers {
						if err := n.Launch(Spec{Key: Key{Job: 2, Epoch: 1, Rank: i}, Command: []string{"true"}}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			for i := range b.N {
				n.exit(Key{Job: 2, Epoch: 1, Rank: i})
			}
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "workers/s")
		})
	}
}

// The list of workers that are gone stays bounded while the agent runs, and keeps its newest.
func TestCollectedIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var list strings.Builder
	for rank := range maxCollected {
		fmt.Fprintln(&list, Key{Job: 9, Epoch: 1, Rank: rank})
	}
	if err := os.WriteFile(filepath.Join(dir, collectedFile), []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n := openNode(t, dir)
	key := n.launch(sh(0, "true"))
	n.exit(key)
	if err := n.Ack(key); err != nil {
		t.Fatal(err)
	}
	if got, err := n.Collect(0, 0); got != 1 || err != nil {
		t.Fatalf("%d, %v", got, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if size := len(n.collected); size != maxCollected/2 || !n.collected[key] || n.collected[Key{Job: 9, Epoch: 1}] {
		t.Errorf("%d keys are remembered, the newest %v", size, n.collected[key])
	}
}
