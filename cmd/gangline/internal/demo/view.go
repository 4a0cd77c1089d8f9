package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// view tells a person what happens: events on lines of their own, and on a
// terminal one live line below them.
type view struct {
	mu    sync.Mutex
	out   io.Writer
	tty   bool
	began time.Time
	live  string
}

func newView(out io.Writer, tty bool) *view {
	return &view{out: out, tty: tty, began: time.Now()}
}

// say prints an event.
func (v *view) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	fmt.Fprintf(v.out, "%6.1fs  %s\n", time.Since(v.began).Seconds(), fmt.Sprintf(format, args...))
	v.draw()
}

// title prints what comes next.
func (v *view) title(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	fmt.Fprintf(v.out, "\n%s\n", fmt.Sprintf(format, args...))
	v.draw()
}

// lines prints lines as they are.
func (v *view) lines(lines []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	fmt.Fprintln(v.out, strings.Join(lines, "\n"))
	v.draw()
}

// status sets the live line; without a terminal it is printed now and then by the caller's rhythm.
func (v *view) status(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.tty {
		fmt.Fprintf(v.out, "%6.1fs  %s\n", time.Since(v.began).Seconds(), line)
		return
	}
	v.clear()
	v.live = line
	v.draw()
}

func (v *view) clear() {
	if v.tty && v.live != "" {
		fmt.Fprint(v.out, "\r\x1b[2K")
	}
}

func (v *view) draw() {
	if v.tty && v.live != "" {
		fmt.Fprint(v.out, v.live)
	}
}

func (v *view) endLive() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	v.live = ""
}

// table prints rows in columns.
func (v *view) table(rows [][]string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	t := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, "  "+strings.Join(r, "\t"))
	}
	_ = t.Flush() // to a terminal or a file: nothing to do about it
	v.draw()
}

const barWidth = 30

// progressLine draws a job's progress.
func progressLine(p *schedulerv1.Progress, held, gpus int, running, waiting int) string {
	share := 0.0
	if p.GetTotalSteps() > 0 {
		share = min(1, float64(p.GetStep())/float64(p.GetTotalSteps()))
	}
	full := int(share * barWidth)
	line := fmt.Sprintf("digits [%s%s] step %d/%d", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), p.GetStep(), p.GetTotalSteps())
	if acc, ok := p.GetMetrics()["test_accuracy"]; ok {
		line += fmt.Sprintf("  accuracy %.3f", acc)
	}
	return line + fmt.Sprintf("  GPUs %d/%d  running %d  waiting %d", held, gpus, running, waiting)
}

func stateName(j *schedulerv1.Job) string {
	return strings.ToLower(strings.TrimPrefix(j.GetState().String(), "JOB_STATE_"))
}

// describe is one line for a job's change, or "" if it is not worth one.
func describe(old, j *schedulerv1.Job) string {
	if old != nil && old.GetState() == j.GetState() && old.GetEpoch() == j.GetEpoch() {
		return ""
	}
	name := fmt.Sprintf("job %d %s", j.GetId(), j.GetSpec().GetName())
	switch j.GetState() {
	case schedulerv1.JobState_JOB_STATE_PENDING:
		if old == nil {
			return ""
		}
		return fmt.Sprintf("%s is pending again: %s", name, j.GetReason())
	case schedulerv1.JobState_JOB_STATE_STARTING:
		return fmt.Sprintf("%s %s", name, j.GetReason())
	case schedulerv1.JobState_JOB_STATE_RUNNING:
		return fmt.Sprintf("%s runs (epoch %d): %s", name, j.GetEpoch(), j.GetReason())
	case schedulerv1.JobState_JOB_STATE_STOPPING:
		return fmt.Sprintf("%s %s", name, j.GetReason())
	default:
		return fmt.Sprintf("%s %s: %s", name, stateName(j), j.GetReason())
	}
}
