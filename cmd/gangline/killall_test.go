package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// massacre is a digits job during which everything is killed, again and again.
type massacre struct {
	*testCluster
	digits string
	args   []string
	id     uint64
	every  int64 // steps between two saves
}

// setting reads a whole number from the environment.
func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%s is not a number", name, text)
	}
	return n
}

// TestKillEverything: the server, agents, supervisors and workers die by SIGKILL at random moments, in random order, and are started again.
// The job goes on each time from the newest checkpoint, so that it repeats at most the work since then, and ends with the bytes of
// a training that nobody disturbed. "make kills" does it 50 times.
func TestKillEverything(t *testing.T) {
	t.Parallel()
	kills, seed := setting(t, "KILLS", 3), setting(t, "KILL_SEED", 1)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	m := &massacre{every: 10}
	m.testCluster = newTestCluster(t, shape{servers: 1, agents: 2, gpus: 1, local: setting(t, "KILL_LOCAL", random.IntN(2)) == 1})
	m.digits = filepath.Join(m.dir, "bin", "digits")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", m.digits, "../../examples/digits").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.args = []string{"-hidden", "16", "-epochs", fmt.Sprint(6 * (kills + 1))}
	want := m.undisturbed(t)

	args := append([]string{m.digits, "-step-delay", "5ms"}, m.args...)
	if random.IntN(2) == 0 {
		args = append(args, "-checkpoint-async")
	}
	t.Logf("%d kills, seed %d: %v", kills, seed, args[1:])
	m.id = m.submit(append([]string{"--gpus", "2", "--gpus-per-node", "1", "--checkpoint", fmt.Sprintf("interval=%d steps,keep=2", m.every), "--"}, args...)...)
	saved := map[uint64]int64{} // by the newest epoch at a kill: the step that was committed by then
	epoch := uint64(0)
	for i := range kills {
		if i == 0 || random.IntN(4) > 0 { // the others may come while servers and agents have not found each other yet
			poll(t, "the job is launched again", func() bool { return m.newestEpoch(t) > epoch })
		}
		time.Sleep(time.Duration(random.Int64N(int64(1500 * time.Millisecond)))) // the moment is the point
		m.killAll(t, random)
		epoch = m.newestEpoch(t)
		step := m.newestStep(t)
		saved[epoch] = step
		t.Logf("kill %d: in epoch %d, step %d is committed", i+1, epoch, step)
		for _, p := range append(m.servers, m.agents...) {
			m.start(p)
		}
	}
	m.await(m.id, "Succeeded", func(j *schedulerv1.Job) bool { return stateName(j.GetState()) == "Succeeded" })
	m.checkStarts(t, saved)
	if on, _ := filepath.Glob(filepath.Join(m.dir, "n*-disk", "own", "job-*", "step-*", "shard-*")); m.shape.local != (len(on) > 0) {
		t.Errorf("with disks of the nodes' own %v, on them lies %v", m.shape.local, on)
	}
	if got := m.model(t, filepath.Join(m.dir, "checkpoints", fmt.Sprintf("job-%d", m.id)), fmt.Sprintf("job-%d", m.id)); !bytes.Equal(got, want) {
		t.Error("the model is another one than that of a training that nobody disturbed")
	}
}

// undisturbed trains without a cluster and gives the model's bytes.
func (m *massacre) undisturbed(t *testing.T) []byte {
	t.Helper()
	dir := filepath.Join(m.dir, "reference")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(m.digits, append([]string{"-dir", dir, "-checkpoint-every", "1000000"}, m.args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return m.model(t, dir, "digits")
}

func openJob(t *testing.T, dir, name string) *checkpoint.Store {
	t.Helper()
	d, err := checkpoint.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := checkpoint.Open(checkpoint.Config{FS: d, Job: name})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// model gives the newest checkpoint's step and tensors, to the last bit.
func (m *massacre) model(t *testing.T, dir, name string) []byte {
	t.Helper()
	s := openJob(t, dir, name)
	newest, _, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := []byte(fmt.Sprintln("step", newest.Step))
	for _, tensor := range []string{"params", "velocity"} {
		values := make([]float32, size(&newest, tensor))
		if err := s.ReadTensor(t.Context(), newest, tensor, values); err != nil {
			t.Fatal(err)
		}
		out = fmt.Appendf(out, "%s %x\n", tensor, values)
	}
	return out
}

// size is how many elements a tensor of one dimension has.
func size(m *checkpoint.Manifest, tensor string) int64 {
	for _, info := range m.Shards[0].Tensors {
		if info.Name == tensor {
			return info.Global[0]
		}
	}
	return 0
}

// killAll kills all that runs, in random order, until nothing is left.
func (m *massacre) killAll(t *testing.T, random *rand.Rand) {
	t.Helper()
	poll(t, "all is dead", func() bool {
		pids := processesOf(m.dir)
		random.Shuffle(len(pids), func(i, j int) { pids[i], pids[j] = pids[j], pids[i] })
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		return len(pids) == 0
	})
	for _, p := range append(m.servers, m.agents...) {
		<-p.done
	}
}

// newestEpoch is the highest epoch of which a node knows.
func (m *massacre) newestEpoch(t *testing.T) (newest uint64) {
	t.Helper()
	for _, a := range m.agents {
		entries, err := os.ReadDir(filepath.Join(a.dir, "workers"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			var job, epoch, rank uint64
			if _, err := fmt.Sscanf(e.Name(), "%d-%d-%d", &job, &epoch, &rank); err == nil && job == m.id {
				newest = max(newest, epoch)
			}
		}
	}
	return newest
}

// newestStep is the step of the newest checkpoint that is complete, on the shared storage or on the nodes' own disks; 0: none is.
func (m *massacre) newestStep(t *testing.T) int64 {
	t.Helper()
	dir := filepath.Join(m.dir, "checkpoints", fmt.Sprintf("job-%d", m.id))
	if _, err := os.Stat(dir); err != nil {
		return 0
	}
	s := openJob(t, dir, fmt.Sprintf("job-%d", m.id))
	refs, err := s.Undrained(t.Context())
	if err == nil && len(refs) == 0 {
		refs, err = s.List(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(refs) == 0 {
		return 0
	}
	return int64(refs[0].Step)
}

var (
	trainingLine = regexp.MustCompile(`(?m)^training: .* steps (\d+) to \d+$`)
	stepLine     = regexp.MustCompile(`(?m) step (\d+)/\d+ `)
)

// checkStarts reads what rank 0 of each epoch has printed: where it began, and how far it came.
func (m *massacre) checkStarts(t *testing.T, saved map[uint64]int64) {
	t.Helper()
	trained, last := 0, m.job(m.id).GetEpoch()
	for epoch := uint64(1); epoch <= last; epoch++ {
		text := m.printed(t, epoch)
		line := trainingLine.FindStringSubmatch(text)
		if line == nil {
			continue // it was killed before it began
		}
		trained++
		began, _ := strconv.ParseInt(line[1], 10, 64)
		for before, step := range saved {
			if before < epoch && began < step {
				t.Errorf("epoch %d began at step %d, though step %d was committed in epoch %d or before:\n%s", epoch, began, step, before, text)
			}
		}
		all := stepLine.FindAllStringSubmatch(text, -1)
		if step, killed := saved[epoch]; killed && len(all) > 0 {
			// One save may be under way, and one more copied behind the training.
			if came, _ := strconv.ParseInt(all[len(all)-1][1], 10, 64); step < came-2*m.every {
				t.Errorf("epoch %d was killed after step %d, and only step %d was committed, at a save each %d steps", epoch, came, step, m.every)
			}
		}
	}
	if trained < 2 && len(saved) > 2 {
		t.Errorf("only %d of %d epochs began to train: the kills came too early to show anything", trained, last)
	}
	t.Logf("%d epochs, %d of them trained", last, trained)
}

// printed is what rank 0 of an epoch has printed, as its node keeps it.
func (m *massacre) printed(t *testing.T, epoch uint64) string {
	t.Helper()
	for _, a := range m.agents {
		found, err := filepath.Glob(filepath.Join(a.dir, "workers", fmt.Sprintf("%d-%d-0", m.id, epoch), "stdout.[0-9]*"))
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, path := range found {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(b)
		}
		if len(found) > 0 {
			return text.String()
		}
	}
	return ""
}
