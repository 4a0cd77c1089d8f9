package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/forecast"
)

func (a *app) whyCmd() *cobra.Command {
	var quick, stale bool
	cmd := &cobra.Command{
		Use:   "why JOB",
		Short: "Say why a job waits, when it starts, and what would start it sooner",
		Long: `Say what a job waits for, with the numbers of now: which queue's quota or limit,
which GPUs in which rack, held by whom and until about when; its place among all
jobs that wait; when it is expected to start; and which changes of the job would
start it sooner.

When is found by letting the scheduler itself run forward, several times, with
lengths of jobs as jobs like them have needed. Jobs that are submitted later and
nodes that fail are not foreseen. What a change would do is tried, not guessed;
to make it, cancel the job and submit it changed, at the end of the line.`,
		Example: `  gangline why 17
  gangline why --quick 17`,
		Args: exactArgs(1, "one job number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseJobID(args[0])
			if err != nil {
				return err
			}
			var got *schedulerv1.WhyResponse
			err = a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
				got, err = c.Why(ctx, &schedulerv1.WhyRequest{Id: id, Quick: quick, Stale: stale})
				return err
			})
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(got)
			}
			return a.printWhy(got)
		},
	}
	cmd.Flags().BoolVar(&quick, "quick", false, "say why only, not when and what would help")
	cmd.Flags().BoolVar(&stale, "stale", false, "take what the server asked has, without asking the leader")
	return cmd
}

func (a *app) planCmd() *cobra.Command {
	var flags specFlags
	var quick, stale bool
	cmd := &cobra.Command{
		Use:   "plan [FLAGS] (FILE | - | -- COMMAND [ARG...])",
		Short: "Say what would become of a job, without submitting it",
		Long: `Say what would become of a job, without submitting it: whether the cluster would
take it, on which nodes it would start now, which jobs would be stopped for it
and what that would cost, or else what "gangline why" would say of it. It takes
what "gangline submit" takes.`,
		Example: `  gangline plan train.yaml
  gangline plan --gpus 64 --gpu-type h100 train.yaml`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := flags.spec(cmd, args, a.in)
			if err != nil {
				return err
			}
			var got *schedulerv1.PlanResponse
			err = a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
				got, err = c.Plan(ctx, &schedulerv1.PlanRequest{Spec: spec, User: userName(), Quick: quick, Stale: stale})
				return err
			})
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(got)
			} else if got.GetRefused() == "" {
				err = a.printPlan(got)
			}
			if err == nil && got.GetRefused() != "" {
				err = &exitError{exitRefused, fmt.Errorf("it would be refused: %s", got.GetRefused())}
			}
			return err
		},
	}
	flags.register(cmd.Flags())
	cmd.Flags().BoolVar(&quick, "quick", false, "say why only, not when and what would help")
	cmd.Flags().BoolVar(&stale, "stale", false, "take what the server asked has, without asking the leader")
	return cmd
}

// printWhy answers in the first line; what follows are the details.
func (a *app) printWhy(got *schedulerv1.WhyResponse) error {
	j, p := got.GetJob(), got.GetProspects()
	if p == nil {
		fmt.Fprintf(a.out, "Job %d does not wait, it is %s: %s\n", j.GetId(), stateName(j.GetState()), j.GetReason())
		return nil
	}
	fmt.Fprintf(a.out, "Job %d %s\n", j.GetId(), answerText(p, "starts", "waits"))
	return table(a.out, prospectRows(p))
}

func (a *app) printPlan(got *schedulerv1.PlanResponse) error {
	p := got.GetProspects()
	fmt.Fprintf(a.out, "The job %s\n", answerText(p, "would start", "would wait"))
	rows := prospectRows(p)
	for _, w := range got.GetWarnings() {
		rows = append(rows, []string{"Warning", w})
	}
	return table(a.out, rows)
}

// answerText is the answer in one line: when, and why not now.
func answerText(p *schedulerv1.Prospects, starts, waits string) string {
	if fit := p.GetFit(); fit != nil {
		return starts + " now" + fitText(fit)
	}
	text, e := p.GetConstraint().GetText(), p.GetStart()
	when, unknown := strings.CutPrefix(e.GetText(), "unknown: ")
	if e.GetRuns() > 0 && !unknown {
		return fmt.Sprintf("%s %s: it %s", starts, when, text)
	}
	if !strings.HasPrefix(text, waits) {
		text = waits + ": it " + text
	}
	if unknown {
		text += "; when it starts is not known: " + when
	}
	return text
}

// fitText says where a job goes: " on h100 GPUs of node-1 (8) and node-2 (8)".
func fitText(fit *schedulerv1.Fit) string {
	const few = 8
	var nodes []string
	for _, n := range fit.GetNodes() {
		if len(nodes) == few {
			nodes = append(nodes, fmt.Sprintf("%d more nodes", len(fit.GetNodes())-few))
			break
		}
		name := n.GetNode()
		if n.GetGpus() > 0 {
			name += fmt.Sprintf(" (%d)", n.GetGpus())
		}
		nodes = append(nodes, name)
	}
	return fmt.Sprintf(" on %s GPUs of %s", fit.GetGpuType(), strings.Join(nodes, ", "))
}

// prospectRows are the details behind the answer; only what there is.
func prospectRows(p *schedulerv1.Prospects) [][]string {
	var rows [][]string
	row := func(name, format string, args ...any) {
		if len(rows) > 0 && rows[len(rows)-1][0] == name || name == "" {
			name = ""
		}
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	list := func(name string, lines []string) {
		for i, l := range lines {
			if i > 0 {
				name = ""
			}
			row(name, "%s", l)
		}
	}
	c := p.GetConstraint()
	if p.GetFit() == nil {
		row("Place", "%s%d of %d that wait", mark(p.GetAbout(), "about "), p.GetPlace(), p.GetWaiting())
		if by := time.Duration(p.GetSetbackMs()) * time.Millisecond; by > 0 {
			row("Fair share", "has had more than the fair part: stands as if submitted %s later", forecast.Brief(by))
		} else if by < 0 {
			row("Fair share", "has had less than the fair part: stands as if submitted %s earlier", forecast.Brief(-by))
		}
		var held []string
		for _, h := range c.GetHolders() {
			held = append(held, h.GetText())
		}
		list("Held by", held)
		if at := c.GetClearUnixNs(); at != 0 {
			row("Comes free", "enough of it in about %s, whoever gets it then", span(p, at))
		}
		if at := c.GetUntilUnixNs(); at != 0 {
			row("Until", "about %s from now", span(p, at))
		}
		if by := basisText(p.GetStart()); by != "" {
			row("Estimated", "%s", by)
		}
	}
	list("Would stop", victimLines(p.GetVictims()))
	var sooner []string
	for _, alt := range p.GetAlternatives() {
		where := ""
		if alt.GetFit() != nil {
			where = "," + fitText(alt.GetFit())
		}
		sooner = append(sooner, alt.GetChange()+": "+alt.GetText()+where)
	}
	list("Sooner", sooner)
	if len(sooner) > 0 {
		row("In short", "%s", p.GetSummary())
	}
	return rows
}

func victimLines(victims []*schedulerv1.Victim) []string {
	const few = 5
	var lines []string
	for i, v := range victims {
		if i == few {
			return append(lines, fmt.Sprintf("and %d more jobs", len(victims)-few))
		}
		lines = append(lines, fmt.Sprintf("job %d, which would lose %.2f GPU-hours: %s", v.GetJob(), v.GetLostGpuSeconds()/3600, v.GetReason()))
	}
	return lines
}

// span is how long after now a moment is.
func span(p *schedulerv1.Prospects, at int64) string {
	return forecast.Brief(time.Duration(at - p.GetNowUnixNs()))
}

// basisText says what an estimate goes by.
func basisText(e *schedulerv1.StartEstimate) string {
	if e.GetRuns() == 0 {
		return ""
	}
	by := map[schedulerv1.EstimateBasis]string{
		schedulerv1.EstimateBasis_ESTIMATE_BASIS_LIMITS:  "by time limits alone: too few jobs have ended here to learn from",
		schedulerv1.EstimateBasis_ESTIMATE_BASIS_LEARNED: "by what jobs like those that run have needed",
		schedulerv1.EstimateBasis_ESTIMATE_BASIS_EXACT:   "by exact lengths",
	}[e.GetBasis()]
	if by == "" {
		return ""
	}
	if e.GetRuns() > 1 {
		by += fmt.Sprintf(", in %d runs", e.GetRuns())
	}
	return by
}
