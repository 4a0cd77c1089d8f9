package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// traceLen is how many of the last happenings an error shows: enough to see a cause, few enough to read.
const traceLen = 24

// happening is one line of the trace, put into words only if somebody reads it.
type happening struct {
	at   cluster.Time
	what string
	cmd  cluster.Command
	node int // agent's number, or -1
}

// trace remembers the last happenings.
type trace struct {
	ring [traceLen]happening
	n    int
}

// note remembers that something happened; cmd may be nil, node -1.
func (w *world) note(what string, cmd cluster.Command, node int) {
	w.trace.ring[w.trace.n%traceLen] = happening{at: w.clock.now, what: what, cmd: cmd, node: node}
	w.trace.n++
}

// lines returns the last happenings, the oldest first.
func (t *trace) lines() []string {
	var out []string
	for i := max(0, t.n-traceLen); i < t.n; i++ {
		h := &t.ring[i%traceLen]
		words := []string{fmt.Sprintf("%14s", h.at.Sub(genesis).Round(time.Millisecond))}
		if h.node >= 0 {
			words = append(words, fmt.Sprintf("n%d", h.node))
		}
		if h.what != "" {
			words = append(words, h.what)
		}
		if h.cmd != nil {
			words = append(words, describe(h.cmd))
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

// describe puts a command into a few words.
func describe(c cluster.Command) string {
	switch c := c.(type) {
	case *cluster.SubmitJob:
		return fmt.Sprintf("SubmitJob %s: %s", c.RequestID, c.Spec.Wants())
	case *cluster.CancelJob:
		return fmt.Sprintf("CancelJob %d", c.Job)
	case *cluster.StartJob:
		return fmt.Sprintf("StartJob %d epoch %d, %d workers, first on %s", c.Job, c.Epoch, len(c.Workers), c.Workers[0].Node)
	case *cluster.ExplainJob:
		return fmt.Sprintf("ExplainJob %d: %s", c.Job, c.Reason)
	case *cluster.RegisterNode:
		return fmt.Sprintf("RegisterNode %s (%s) incarnation %d, running %s", c.Node.Name, c.Node.ID, c.Node.Incarnation, refs(c.Running))
	case *cluster.LoseNode:
		return fmt.Sprintf("LoseNode %s incarnation %d", c.Node, c.Incarnation)
	case *cluster.ReportWorkers:
		return fmt.Sprintf("ReportWorkers %s: %s", c.Node, reports(c.Workers))
	case *cluster.EvictJob:
		return fmt.Sprintf("EvictJob %d epoch %d: %s", c.Job, c.Epoch, c.Reason)
	case *cluster.RecordCheckpoint:
		return fmt.Sprintf("RecordCheckpoint %d epoch %d step %d", c.Job, c.Epoch, c.Step)
	case *cluster.ForgetJobs:
		return fmt.Sprintf("ForgetJobs %v", c.Jobs)
	case *cluster.ForgetNode:
		return fmt.Sprintf("ForgetNode %s", c.Node)
	default:
		return fmt.Sprintf("%T", c)
	}
}

func refs(ws []cluster.WorkerRef) string {
	out := make([]string, 0, len(ws))
	for _, w := range ws {
		out = append(out, fmt.Sprintf("%d-%d-%d", w.Job, w.Epoch, w.Rank))
	}
	return "[" + strings.Join(out, " ") + "]"
}

func reports(ws []cluster.WorkerReport) string {
	out := make([]string, 0, len(ws))
	for _, w := range ws {
		out = append(out, fmt.Sprintf("%d-%d-%d %s code %d signal %d", w.Job, w.Epoch, w.Rank, w.State, w.ExitCode, w.Signal))
	}
	return strings.Join(out, ", ")
}
