package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// Binding is what stands between a job and its GPUs.
type Binding uint8

// Bindings, in the order in which they are looked for: each means that none of
// those above it holds the job back. The zero Binding is that of none.
const (
	BindNothing   Binding = 0  // it starts with the next plan
	BindBackOff   Binding = 1  // its last epoch failed: it waits a while
	BindArray     Binding = 2  // as many members of its array run as may
	BindQuota     Binding = 3  // it may not be preempted, and its queue's quota is used up
	BindLimit     Binding = 4  // a queue's limit, of one type or of all
	BindUserLimit Binding = 5  // a queue's limit of one user
	BindStrict    Binding = 6  // the policy starts jobs strictly in order, and another comes first
	BindType      Binding = 7  // no node has such GPUs
	BindAlive     Binding = 8  // too few of them are healthy, on live nodes that take jobs
	BindFree      Binding = 9  // too few are free
	BindShape     Binding = 10 // free, but on too few nodes with as many as each must have
	BindLabel     Binding = 11 // free, but on nodes that are not for the job
	BindCPU       Binding = 12 // free, but without the CPUs or the memory
	BindDomain    Binding = 13 // free, but not within one domain of the level
	BindKept      Binding = 14 // free, but kept for another job
	BindWindow    Binding = 15 // free, but reserved, or about to be under maintenance
	BindAfter     Binding = 16 // it is to start after other jobs; looked for first of all
)

var bindingNames = [...]string{ //nolint:gochecknoglobals // table
	"nothing", "back-off", "array", "quota", "limit", "user-limit", "strict-order", "type", "alive", "free",
	"shape", "label", "cpu", "domain", "kept", "window", "after",
}

// String returns the binding in a word, as tests and programs read it.
func (b Binding) String() string {
	if int(b) < len(bindingNames) {
		return bindingNames[b]
	}
	return "unknown"
}

// bindingOf is what an obstacle of the fleet is called here.
var bindingOf = map[fleet.Lack]Binding{ //nolint:gochecknoglobals // table
	fleet.LackNothing: BindNothing, fleet.LackType: BindType, fleet.LackAlive: BindAlive, fleet.LackFree: BindFree,
	fleet.LackShape: BindShape, fleet.LackLabel: BindLabel, fleet.LackCPU: BindCPU, fleet.LackDomain: BindDomain, fleet.LackKept: BindKept,
}

// Explanation is why a job waits, with the numbers of now.
type Explanation struct {
	Binding Binding
	Text    string        // a sentence
	GPUType string        // of the GPUs that it lacks; empty: of any
	Level   string        // BindDomain: the level, and its domain with the most room
	Domain  string        //
	Queue   string        // BindQuota and limits: the queue whose they are
	Behind  cluster.JobID // BindKept, BindStrict and BindAfter: the job that comes first
	Lacks   int64         // milli-GPUs that must come free for it, if a number says it
	// Until is the end of the back-off, when the job that comes first is expected
	// to start, or when the reservation ends; 0: not known. From is when a
	// reservation begins.
	From, Until cluster.Time
	Holders     []Holder // who has most of what it lacks, the largest first; at most maxHolders
	// Clear is when as much as it lacks is expected to have been let go, whoever
	// gets it then; 0: not known. Sampled: found by looking at some of the nodes.
	Clear   cluster.Time
	Sampled bool
}

// Explain says why a job waits. The job may be one that the state does not have:
// what would be. It costs less than a millisecond however large the cluster is,
// changes nothing, and goes by the last plan: call it after Plan.
func (x *Index) Explain(j *cluster.Job) Explanation {
	if r := x.jobs.run(j.ID); r != nil && r.planned && j.State == cluster.Pending {
		return Explanation{Text: "fits, and starts at once"}
	}
	if j.Unmet != 0 {
		return x.explainAfter(j)
	}
	if j.NotBefore > x.now {
		return Explanation{Binding: BindBackOff, Text: j.Reason, Until: j.NotBefore}
	}
	e := x.imagine(j)
	l := e.lane
	if x.atArrayBound(j) {
		ex := Explanation{Binding: BindArray, Text: arrayText(j.Spec)}
		s := x.search(nil)
		if x.jobs.holding <= maxScan {
			for r := range x.jobs.runs() {
				if r.job.Array == j.Array {
					s.parts = append(s.parts, heldPart{job: r.job, milli: r.milli})
				}
			}
		}
		ex.Lacks = 1 // the first member that ends makes room for the next
		x.sumUp(&ex, s)
		return ex
	}
	types, blocked := x.allowed(l)
	if blocked != nil {
		return x.explainQuota(l, j, blocked)
	}
	if first := x.strictlyBefore(l); first != nil {
		return x.explainStrict(first)
	}
	q := x.query(j, types)
	ob := x.fleet.Why(l.shape.Shape, l.shape.Least, &q)
	ex := Explanation{Binding: bindingOf[ob.Lack], Text: ob.Detail(j.Spec), GPUType: ob.Type}
	if ob.Fits() {
		ex.Text = "fits, and starts at once"
		return ex
	}
	ex.Lacks = max(int64(ob.Size)-ob.Left, 0) * int64(l.shape.Share)
	switch ex.Binding {
	case BindAlive:
		ex.Text += x.absentText(ob.Type)
	case BindDomain:
		ex.Level, ex.Domain = ob.Level, ob.Domain
	case BindKept:
		x.explainKept(&ex, &ob)
	default:
	}
	x.holdersOfRoom(&ex, j)
	if j.Kept != nil {
		ex.Text += keptText(len(j.Kept.Nodes))
	}
	return ex
}

// explainAfter says which jobs must end first, and when those that run are
// expected to.
func (x *Index) explainAfter(j *cluster.Job) Explanation {
	ex := Explanation{Binding: BindAfter, Text: j.Reason}
	first := x.state.Waits(j)
	if len(first) == 0 {
		return ex
	}
	ex.Behind = first[0]
	s := x.search(nil)
	if x.jobs.holding <= maxScan {
		for r := range x.jobs.runs() {
			if slices.Contains(first, r.job.ID) || (r.job.Array != 0 && slices.Contains(first, r.job.Array)) {
				s.parts = append(s.parts, heldPart{job: r.job, milli: r.milli})
			}
		}
	}
	x.sumUp(&ex, s)
	if len(first) == 1 && len(ex.Holders) == 1 && ex.Holders[0].Job == first[0] {
		ex.Until = ex.Holders[0].Until
	}
	return ex
}

func (x *Index) explainQuota(l *lane, j *cluster.Job, r *refusal) Explanation {
	ex := Explanation{Text: quotaText(l, r), GPUType: r.gpuType, Lacks: r.Need - r.Have}
	q := r.Blocker
	switch r.Cause {
	case quota.OwnQuota:
		q = l.q
		ex.Binding = BindQuota
		most, ofAny := x.tree.Quota(q, r.gpuType)
		held, of := x.tree.Used(q, r.gpuType), " of type "+r.gpuType
		if ofAny {
			held, of, ex.GPUType = x.tree.Used(q, ""), "", ""
		}
		ex.Lacks = max(held+r.Need-most, 0)
		ex.Text += fmt.Sprintf(" (its quota is %s GPUs%s, and it holds %s)", gpus(most), of, gpus(held))
		if r.Need > most {
			ex.Text += ": it never starts like this, since the quota is smaller than the gang"
		}
	case quota.UserLimit:
		ex.Binding, ex.GPUType = BindUserLimit, ""
		ex.Text += fmt.Sprintf(" (%s of them are left)", gpus(r.Have))
	case quota.TotalLimit:
		ex.Binding, ex.GPUType = BindLimit, ""
		ex.Text += fmt.Sprintf(" (%s of them are left)", gpus(r.Have))
	default:
		ex.Binding = BindLimit
		ex.Text += fmt.Sprintf(" (%s of them are left)", gpus(r.Have))
	}
	ex.Queue = q.Path
	user := ""
	if ex.Binding == BindUserLimit {
		user = j.User
	}
	x.holdersOfQueue(&ex, q, user)
	return ex
}

// gpus writes milli-GPUs as GPUs.
func gpus(milli int64) string { return fmt.Sprintf("%g", float64(milli)/cluster.WholeGPU) }

// strictlyBefore returns the job that holds back all behind it, if the policy
// has no backfill and the job is before a lane's.
func (x *Index) strictlyBefore(l *lane) *entry {
	if !x.policy.Backfill.Off {
		return nil
	}
	first := x.firstBlocked()
	if first == nil || first.jobs.top().job.ID == l.jobs.top().job.ID || !first.before(l) {
		return nil
	}
	return first.jobs.top()
}

func (x *Index) explainStrict(first *entry) Explanation {
	j := first.job
	ex := x.Explain(j)
	return Explanation{
		Binding: BindStrict, Behind: j.ID, GPUType: ex.GPUType, Lacks: ex.Lacks, Until: x.keptAt(j.ID),
		Text:    fmt.Sprintf("waits its turn behind job %d: the policy starts jobs strictly in order (backfill is off), and that job %s", j.ID, ex.Text),
		Holders: ex.Holders, Clear: ex.Clear, Sampled: ex.Sampled,
	}
}

// explainKept says for whom GPUs are kept that are free.
func (x *Index) explainKept(ex *Explanation, ob *fleet.Obstacle) {
	if id := ob.Keeper.Job; id != 0 {
		ex.Behind, ex.Until = id, x.keptAt(id)
		if first := x.state.Job(id); first != nil {
			ex.Text += fmt.Sprintf("; job %d (priority %d, %s) comes first", id, first.Spec.Priority, first.Spec.Wants())
		}
		return
	}
	ex.Binding = BindWindow
	for i := range x.policy.Windows {
		w := &x.policy.Windows[i]
		if w.Queue == ob.Keeper.Queue && w.Start == ob.Keeper.At && x.now < w.End {
			ex.From, ex.Until = w.Start, w.End
			ex.Text += fmt.Sprintf(" (reservation %s)", w.Name)
			if w.Start > x.now {
				ex.Text += fmt.Sprintf(", which begins in %s: only what is sure to have ended by then may start there", w.Start.Sub(x.now).Round(1e9))
			}
			return
		}
	}
}

func keptText(nodes int) string {
	if nodes == 1 {
		return "; what comes free on one node is kept for it"
	}
	return fmt.Sprintf("; what comes free on %d nodes is kept for it", nodes)
}

// keptAt is when a job for which nodes are kept is expected to start, or 0: also
// if the nodes are kept only until then, since nobody knows, see reservation.
func (x *Index) keptAt(id cluster.JobID) cluster.Time {
	k := x.kept[id]
	if k == nil || k.kept.At <= x.now {
		return 0
	}
	for _, name := range k.kept.Nodes {
		n := x.state.Node(name)
		for i := 0; n != nil && i < len(n.GPUs); i++ {
			foretold := true
			n.GPUs[i].EachHolder(func(id cluster.JobID, _ cluster.Epoch) { foretold = foretold && x.endsAt(id) < x.now.Add(farFuture) })
			if !foretold {
				return 0
			}
		}
	}
	return k.kept.At
}

// maxAbsent bounds the nodes that are named.
const maxAbsent = 3

// absentText names some of the nodes whose GPUs of a type are out of reach.
func (x *Index) absentText(gpuType string) string {
	var said []string
	more := 0
	x.fleet.EachNode(gpuType, func(n *cluster.Node, _, alive int32) bool {
		why := ""
		switch {
		case n.State != cluster.NodeReady:
			why = "lost"
		case n.Drain != nil:
			why = strings.TrimSpace("drained " + n.Drain.Reason)
		case int(alive) < len(n.GPUs):
			why = "has GPUs that are not healthy"
		}
		if why == "" {
			return true
		}
		if more++; more <= maxAbsent {
			said = append(said, fmt.Sprintf("%s (%s)", n.Name, why))
		}
		return more <= maxAbsent
	})
	if len(said) == 0 {
		return ""
	}
	if more > maxAbsent {
		said = append(said, "more")
	}
	return "; not there: " + strings.Join(said, ", ")
}
