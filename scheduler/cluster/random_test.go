package cluster

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world draws random commands, sensible and senseless, against a state.
type world struct {
	t     *rapid.T
	s     *State
	index uint64
	now   Time
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, s: &State{}, now: Time(time.Hour)}
	w.s.Apply(1, w.now, &Init{ClusterID: "c", Version: Version})
	return w
}

func gpuNode(i, gpus int) Node {
	n := Node{
		ID: NodeID(fmt.Sprintf("id-%d", i)), Name: fmt.Sprintf("n%d", i), Address: fmt.Sprintf("127.0.0.1:%d", 7000+i), Host: "127.0.0.1",
		BootID: "b", Incarnation: 1, CPUMilli: 8000, MemBytes: 8 << 30,
	}
	for g := range gpus {
		typ := "h100"
		if i%3 == 2 {
			typ = "a100"
		}
		n.GPUs = append(n.GPUs, GPU{UUID: fmt.Sprintf("GPU-%d-%d", i, g), Type: typ, MemBytes: 80 << 30, Healthy: true})
	}
	return n
}

func (w *world) draw() Command {
	job := JobID(rapid.IntRange(1, 8).Draw(w.t, "job"))
	epoch := Epoch(rapid.IntRange(0, 4).Draw(w.t, "epoch"))
	node := NodeID(fmt.Sprintf("id-%d", rapid.IntRange(0, 3).Draw(w.t, "node")))
	if j := w.s.Job(job); j != nil && rapid.Bool().Draw(w.t, "current") {
		epoch = j.Epoch
	}
	switch rapid.IntRange(0, 12).Draw(w.t, "command") {
	case 0, 1:
		user := rapid.SampledFrom([]string{"u", "v"}).Draw(w.t, "user")
		return &SubmitJob{RequestID: fmt.Sprint(rapid.IntRange(1, 12).Draw(w.t, "request")), User: user, Spec: w.drawSpec()}
	case 2:
		return &CancelJob{Job: job, By: "u"}
	case 3, 4, 5:
		return w.drawStart(job)
	case 6:
		n := gpuNode(rapid.IntRange(0, 3).Draw(w.t, "n"), rapid.IntRange(1, 4).Draw(w.t, "gpus"))
		n.Incarnation = uint64(rapid.IntRange(1, 3).Draw(w.t, "incarnation"))
		if rapid.IntRange(0, 3).Draw(w.t, "moved") == 0 {
			n.GPUs = gpuNode(rapid.IntRange(0, 3).Draw(w.t, "from"), 2).GPUs
		}
		n.Labels = rapid.SampledFrom([][]Label{nil, {{"topology.gangline.dev/rack", "r1"}}, {{"topology.gangline.dev/rack", "r2"}, {"zone", "z"}}}).Draw(w.t, "labels")
		n.Taints = rapid.SampledFrom([][]Taint{nil, nil, {{"owner", "nlp"}}}).Draw(w.t, "taints")
		return &RegisterNode{Node: n, Running: []WorkerRef{{Job: job, Epoch: epoch, GPUs: []string{"GPU-0-0"}}}}
	case 7:
		inc := uint64(1)
		if n := w.s.Node(node); n != nil {
			inc = n.Incarnation
		}
		return &LoseNode{Node: node, Incarnation: inc, Reason: "lease"}
	case 8, 9:
		return w.drawReport(job, epoch, node)
	case 10:
		cause := StopCause(rapid.IntRange(0, 10).Draw(w.t, "cause"))
		return &EvictJob{Job: job, Epoch: epoch, Cause: cause, Reason: "evicted"}
	case 11:
		return w.drawPolicy()
	default:
		return rapid.SampledFrom([]Command{
			&DrainNode{Node: node, Reason: "repair", By: "root", Deadline: w.now + 5}, &DrainNode{Node: node, Off: true},
			&KeepNodes{Job: job, Nodes: []NodeID{node}, At: w.now + 9}, &KeepNodes{Job: job},
			&ExplainJobs{Jobs: []JobID{job, 1, 99, job}, Reason: "all alike"},
			&RecordCheckpoint{Job: job, Epoch: epoch, Step: int64(index(w)), Path: "/c"},
			&ForgetJobs{Jobs: []JobID{job}}, &ForgetNode{Node: node}, &ExplainJob{Job: job, Reason: "because"},
		}).Draw(w.t, "other")
	}
}

func index(w *world) uint64 { return w.index }

func (w *world) drawSpec() *JobSpec {
	sp := &JobSpec{
		Name: "j", Queue: rapid.SampledFrom([]string{"q", "q/r", "s"}).Draw(w.t, "queue"),
		GPUs: int32(rapid.IntRange(1, 5).Draw(w.t, "gpus")), Launch: LaunchPerGPU, Command: []string{"x"},
		Retries: int32(rapid.IntRange(0, 2).Draw(w.t, "retries")), CPUPerGPU: 1000, MemPerGPU: 1 << 30,
		Tolerations: rapid.SampledFrom([][]string{nil, {"owner"}, {"owner=nlp", "x"}}).Draw(w.t, "tolerations"),
	}
	switch rapid.IntRange(0, 5).Draw(w.t, "kind") {
	case 0:
		sp.GPUs, sp.GPUMilli = 1, int32(rapid.SampledFrom([]int{1, 250, 400, 999, 1000, 1001}).Draw(w.t, "share"))
	case 1:
		sp.MinGPUs = int32(rapid.IntRange(1, 6).Draw(w.t, "min"))
		sp.OnFailure = OnFailure(rapid.SampledFrom([]int{0, 1, 1, 2}).Draw(w.t, "on failure"))
	case 2:
		sp.Array = ArraySpec{First: 3, Last: int32(rapid.IntRange(2, 7).Draw(w.t, "last")), Step: 2, Parallel: 1}
	case 3:
		sp.Topology = TopologyWish{Level: rapid.SampledFrom([]string{"rack", "node", "moon"}).Draw(w.t, "level"), Required: rapid.Bool().Draw(w.t, "required")}
	case 4:
		sp.Selector = []Label{{"zone", "z"}}
	}
	for range rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(w.t, "dependencies") {
		if sp.After == nil {
			sp.After = &Conditions{}
		}
		sp.After.All = append(sp.After.All, Dependency{
			Job: JobID(rapid.IntRange(1, 8).Draw(w.t, "after")), Index: int32(rapid.SampledFrom([]int{0, 3, 5}).Draw(w.t, "index")),
			Cond: Condition(rapid.IntRange(1, 3).Draw(w.t, "condition")), Scope: Scope(rapid.IntRange(0, 2).Draw(w.t, "scope")),
		})
	}
	return sp
}

func (w *world) drawPolicy() Command {
	p := DefaultPolicy()
	p.HalfLife = rapid.SampledFrom([]time.Duration{time.Minute, time.Hour}).Draw(w.t, "half-life")
	p.Weights = []TypeWeight{{"h100", 1500}}
	switch rapid.IntRange(0, 2).Draw(w.t, "queues") {
	case 0:
		p.Queues = []QueuePolicy{{Path: "q", Weight: 1000, Limit: []TypeCount{{"", 4}}}, {Path: "q/r", Weight: 2000, UserLimit: 3}, {Path: "s", Weight: 1, Closed: true}}
	case 1:
		p.Queues = []QueuePolicy{{Path: "q/r", Weight: 0}}
	}
	if rapid.Bool().Draw(w.t, "placed") {
		p.Levels[1].Domains = []LevelDomain{{Name: "r1", Nodes: []string{"n[0-1]"}}, {Name: "r3", Nodes: []string{"n3", "n7"}}}
	}
	was := w.s.PolicyIndex()
	if rapid.IntRange(0, 3).Draw(w.t, "stale") == 0 {
		was++
	}
	return &SetPolicy{Policy: p, By: "root", Was: was, Any: rapid.Bool().Draw(w.t, "any")}
}

// drawStart places a job on the first free GPUs of one type, or draws nonsense.
func (w *world) drawStart(id JobID) Command {
	j := w.s.Job(id)
	if j == nil {
		return &StartJob{Job: id, Epoch: 1, Workers: []Placement{{Node: "id-0", GPUs: []string{"GPU-0-0"}}}}
	}
	c := &StartJob{Job: id, Epoch: j.Epoch + 1}
	typ := rapid.SampledFrom([]string{"h100", "a100"}).Draw(w.t, "type")
	steal := rapid.IntRange(0, 9).Draw(w.t, "steal") == 0
	most := j.Spec.GPUs
	if j.Spec.Elastic() {
		most = rapid.Int32Range(j.Spec.MinGPUs, j.Spec.GPUs).Draw(w.t, "size")
	}
	w.s.EachNode(func(n *Node) bool {
		for g := range n.GPUs {
			free := n.UsableMilli(g) >= j.Spec.Share() && n.Admits(j.Spec) == ""
			if int32(len(c.Workers)) < most && n.GPUs[g].Type == typ && (steal || free) {
				c.Workers = append(c.Workers, Placement{Rank: Rank(len(c.Workers)), Node: n.ID, GPUs: []string{n.GPUs[g].UUID}})
			}
		}
		return true
	})
	return c
}

func (w *world) drawReport(id JobID, epoch Epoch, node NodeID) Command {
	c := &ReportWorkers{Node: node}
	if j := w.s.Job(id); j != nil && len(j.Workers) > 0 {
		c.Node = j.Workers[rapid.IntRange(0, len(j.Workers)-1).Draw(w.t, "worker")].Node
	}
	for r := range 7 { // those that take the places of others too
		c.Workers = append(c.Workers, WorkerReport{
			Job: id, Epoch: epoch, Rank: Rank(r), State: WorkerState(rapid.IntRange(2, 4).Draw(w.t, "state")),
			ExitCode: int32(rapid.IntRange(0, 1).Draw(w.t, "code")), PeerLost: rapid.Bool().Draw(w.t, "peer"), Stopped: rapid.Bool().Draw(w.t, "stopped"),
			Arrived: rapid.Bool().Draw(w.t, "arrived"),
			Asks:    int32(rapid.IntRange(0, 4).Draw(w.t, "asks")), Names: int32(rapid.IntRange(0, 7).Draw(w.t, "names")),
			Silence:  Silence(rapid.IntRange(0, 2).Draw(w.t, "silence")),
			Progress: &Progress{Step: 1, Metrics: []Metric{{Name: "a", Value: 0.5}}},
		})
	}
	return c
}

// TestRandomCommands holds the laws of Apply against random command sequences.
func TestRandomCommands(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		twin := &State{}
		twin.Apply(1, w.now, &Init{ClusterID: "c", Version: Version})
		requests := map[string]JobID{}
		for range rapid.IntRange(1, 60).Draw(t, "length") {
			w.index++
			w.now += Time(rapid.IntRange(-1000, 100_000).Draw(t, "ms")) * Time(time.Millisecond)
			cmd := w.draw()
			before, beforeHash := w.s.Snapshot(), w.s.Hash()
			decoded, err := DecodeCommand(AppendCommand(nil, cmd), Version)
			if err != nil {
				t.Fatalf("command %+v does not survive the log: %v", cmd, err)
			}
			res := w.s.Apply(w.index, w.now, cmd)
			twin.Apply(w.index, w.now, decoded)
			w.hold(before, beforeHash, twin, cmd, res)
			if c, ok := cmd.(*SubmitJob); ok && res.Code == OK {
				if was, seen := requests[c.RequestID]; seen && was != res.Job {
					t.Fatalf("request %q made job %d and job %d", c.RequestID, was, res.Job)
				}
				requests[c.RequestID] = res.Job
			}
		}
	})
}

// hold checks what must be true after each command.
func (w *world) hold(before *State, beforeHash uint64, twin *State, cmd Command, res Result) {
	if err := w.s.Check(); err != nil {
		w.t.Fatalf("after %T %+v: %v", cmd, cmd, err)
	}
	if err := before.Check(); before.Hash() != beforeHash || err != nil {
		w.t.Fatalf("%T changed an earlier snapshot: %v", cmd, err)
	}
	if w.s.Hash() != twin.Hash() {
		w.t.Fatalf("%T: two states that applied the same commands differ", cmd)
	}
	if w.s.Now() < before.Now() {
		w.t.Fatalf("the clock went back from %d to %d", before.Now(), w.s.Now())
	}
	var bytes []byte
	_ = w.s.Encode(func(b []byte) error { bytes = append(bytes, b...); return nil })
	restored, err := Decode(bytes, Version)
	if err != nil || restored.Hash() != w.s.Hash() || restored.Check() != nil {
		w.t.Fatalf("state does not survive a snapshot: %v, check %v", err, restored.Check())
	}
	w.holdChanges(before, cmd, res)
}

// shown is what people and agents see of a job. What is expected of it changes
// as time goes by, with whatever command comes next.
func shown(j *Job) string {
	return fmt.Sprint(j.State, j.Reason, j.Epoch, j.Workers, j.Stop, j.StopReason, j.Blamed, j.Checkpoint, j.Progress, j.Failures, j.Requeues,
		j.NotBefore, j.RunningAt, j.Attained, j.Rate, j.Preemptions, j.Avoid, j.Kept, j.Reformed)
}

// whole is what no minor change of a job is of.
func whole(j *Job) string {
	return fmt.Sprint(j.State, j.Epoch, j.Spec, j.StartedAt, j.PendingAt, j.NotBefore, j.Unmet, j.Stop, j.Kept, j.Workers)
}

// facts are what no minor change of a node is of.
func facts(n *Node) string {
	out := fmt.Sprint(n.Name, n.Incarnation, n.State, n.Drain, n.Labels, n.Taints, n.ChangedAt)
	for i := range n.GPUs {
		out += fmt.Sprint(n.GPUs[i].UUID, n.GPUs[i].Healthy)
	}
	return out
}

// holdChanges: the journal names all that a command changed, the result says
// so of jobs and nodes, and a refused command changed nothing.
func (w *world) holdChanges(before *State, cmd Command, res Result) {
	journal, known := w.s.ChangesSince(before.Cursor())
	if before.Cursor() == (Cursor{}) {
		journal, known = w.s.journal.changes, true // nothing had changed before
	}
	if !known {
		w.t.Fatalf("%T: what changed since a moment ago is not known", cmd)
	}
	noted, said, minor := map[Change]bool{}, map[Change]bool{}, map[Change]bool{}
	for _, c := range journal {
		slight := c.Minor
		c.Minor = false
		minor[c] = slight && (minor[c] || !noted[c])
		noted[c] = true
	}
	for _, c := range res.Changes {
		said[c] = true
	}
	check := func(c Change, result bool) {
		if !noted[c] || (result && (!said[c] || res.Code != OK)) {
			w.t.Fatalf("%T (code %d) changed %+v: the journal says so %v, the result %v", cmd, res.Code, c, noted[c], said[c])
		}
	}
	w.s.EachJob(func(j *Job) bool {
		old := before.Job(j.ID)
		if old != j {
			check(Change{Job: j.ID}, old == nil || shown(old) != shown(j))
			if minor[Change{Job: j.ID}] && whole(old) != whole(j) {
				w.t.Fatalf("%T: a minor change of %s made %s", cmd, whole(old), whole(j))
			}
		}
		if old != nil && old.State != j.State && !Legal(old.State, j.State) {
			w.t.Fatalf("%T took job %d from %s to %s", cmd, j.ID, old.State, j.State)
		}
		return true
	})
	before.EachJob(func(j *Job) bool {
		if w.s.Job(j.ID) == nil {
			check(Change{Job: j.ID}, true)
		}
		return true
	})
	w.s.EachNode(func(n *Node) bool {
		if before.Node(n.ID) != n {
			check(Change{Node: n.ID}, true)
			if minor[Change{Node: n.ID}] && facts(before.Node(n.ID)) != facts(n) {
				w.t.Fatalf("%T: a minor change of %s made %s", cmd, facts(before.Node(n.ID)), facts(n))
			}
		}
		return true
	})
	before.EachNode(func(n *Node) bool {
		if w.s.Node(n.ID) == nil {
			check(Change{Node: n.ID}, true)
		}
		return true
	})
	if w.s.Policy() != before.Policy() {
		check(Change{Policy: true}, true)
		return // accounts are all counted anew
	}
	w.s.EachAccount(func(a *Account) bool {
		if before.Account(a.Queue, a.User) != a {
			if check(Change{Account: a}, false); res.Code != OK {
				w.t.Fatalf("%T was refused (%s) and yet charged %+v", cmd, res.Message, a)
			}
		}
		return true
	})
}

// FuzzDecode: no bytes may make the decoders panic or loop.
func FuzzDecode(f *testing.F) {
	f.Add(AppendCommand(nil, &SubmitJob{RequestID: "r", Spec: &JobSpec{Name: "n", Command: []string{"x"}}}), uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, version uint32) {
		if cmd, err := DecodeCommand(b, version); err == nil {
			if again, err := DecodeCommand(AppendCommand(nil, cmd), version); err != nil || again == nil {
				t.Fatalf("decoded %T does not encode and decode again: %v", cmd, err)
			}
		}
		if s, err := Decode(b, version); err == nil {
			_ = s.Hash()
		}
	})
}
