package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

const intro = `# Results on public traces

What Gangline does with recorded workloads, beside what others published or what their programs gave when they were run. Written by ` + "`make results`" + `; nothing here is typed in but others' figures, each with its source.

The replay drives the functions that decide in production. Nobody tells the planner how long a job runs, but where a row says "exact lengths". One set of constants serves all traces. The traces are public (Microsoft's Philly,
Alibaba's openb); they are not part of this repository. Single runs are chaotic by about 1 % of the average and 2 % of the 99th percentile: judge by the copies too.

Times are in seconds; JCT is from a job's submission to its end, wait what of it is not service. Goodput is GPU time of work, of all there is between the first and the last submission. Fairness is the 99th percentile of finish-time
fairness (Themis, NSDI 2020): JCT divided by what it would have been on an equal part of the cluster; below 1 nobody loses by sharing. A dash: not published. Rows in italics are others', or those of a small model (` + "`bench/results/model`" + `) of orders that no scheduler can have.
`

// page is the whole document.
func page(all []section) string {
	var b strings.Builder
	b.WriteString(intro)
	for i := range all {
		s := &all[i]
		fmt.Fprintf(&b, "\n## %s\n\n", s.title)
		if s.text != "" {
			fmt.Fprintf(&b, "%s\n\n", s.text)
		}
		if s.place {
			s.placeTable(&b)
		} else {
			s.runTable(&b)
		}
		if s.teams {
			s.teamTable(&b)
		}
		s.commands(&b)
	}
	b.WriteString("\n## Where Gangline loses\n\nEach figure, of others or of another order of its own, that is better than that of Gangline's default on the same workload.\n\n")
	lost := losses(all)
	if len(lost) == 0 {
		lost = []string{"Nowhere in these tables."}
	}
	for _, l := range lost {
		fmt.Fprintf(&b, "- %s\n", l)
	}
	return b.String()
}

// runTable shows completion times.
func (s *section) runTable(b *strings.Builder) {
	b.WriteString("| policy | average JCT | p50 | p99 | average wait | goodput | fairness | preemptions | source |\n|---|---|---|---|---|---|---|---|---|\n")
	for i := range s.rows {
		r := &s.rows[i]
		f := &r.got
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.title(), whole(f.AvgJCT), whole(f.P50JCT), whole(f.P99JCT), whole(f.AvgWait),
			decimals(f.Goodput, 3), decimals(f.Fairness, 2), whole(float64(f.Preemptions)), r.from(i))
	}
}

// placeTable shows what was allocated.
func (s *section) placeTable(b *strings.Builder) {
	b.WriteString("| score | GPUs allocated, % | 8-GPU pods placed | of no use to the mix, % | source |\n|---|---|---|---|---|\n")
	for i := range s.rows {
		r := &s.rows[i]
		eight := "–"
		if r.got.Placed != nil {
			eight = whole(float64(r.got.Placed["8"]))
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", r.title(), decimals(r.got.Allocated, 2), eight, decimals(r.got.Fragmented, 2), r.from(i))
	}
}

// teamTable holds the waits of teams that share against those in partitions.
func (s *section) teamTable(b *strings.Builder) {
	shared, apart := s.rows[0].got.PerQueue, s.rows[1].got.PerQueue
	b.WriteString("\nAverage wait of each team:\n\n| team | jobs | with quotas | in its partition |\n|---|---|---|---|\n")
	var names, worse []string
	for name := range shared {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(b, "| %s | %d | %s | %s |\n", name, shared[name].Jobs, whole(shared[name].AvgWait), whole(apart[name].AvgWait))
		if shared[name].AvgWait > apart[name].AvgWait {
			worse = append(worse, name)
		}
	}
	if len(worse) > 0 {
		fmt.Fprintf(b, "\nWorse off by sharing: %s.\n", strings.Join(worse, ", "))
		return
	}
	b.WriteString("\nNo team waits longer than in a partition of its own.\n")
}

// commands lists what gives the rows that are ours.
func (s *section) commands(b *strings.Builder) {
	b.WriteString("\n```\n")
	for i := range s.rows {
		if r := &s.rows[i]; len(r.args) > 0 && r.copy == 0 {
			fmt.Fprintf(b, "%s   # %d\n", r.command(), i+1)
		}
	}
	b.WriteString("```\n")
}

func (r *row) title() string {
	switch {
	case r.source != "":
		return "*" + r.name + "*"
	case r.ours:
		return "**" + r.name + "**"
	default:
		return r.name
	}
}

// from is a row's source: the number of its command, or who says so.
func (r *row) from(i int) string {
	switch {
	case r.source != "":
		return r.source
	case r.copy > 0:
		return "the first command, on a copy"
	default:
		return fmt.Sprintf("command %d", i+1)
	}
}

// losses are the figures of others that are better than ours.
func losses(all []section) []string {
	var out []string
	for i := range all {
		s := &all[i]
		k := slices.IndexFunc(s.rows, func(r row) bool { return r.ours })
		if k < 0 {
			continue
		}
		ours := &s.rows[k].got
		for j := range s.rows {
			r := &s.rows[j]
			if j == k || r.copy > 0 {
				continue
			}
			if lost := lostTo(ours, &r.got, s.place); len(lost) > 0 {
				out = append(out, fmt.Sprintf("%s: %s has %s", s.title, r.name+by(r), strings.Join(lost, ", ")))
			}
		}
	}
	return out
}

// by tells whether a rival is of others, or of the model.
func by(r *row) string {
	switch {
	case r.model != nil:
		return " (a model)"
	case r.source != "":
		return " (others)"
	default:
		return ""
	}
}

// lostTo says in which figures a rival is better than ours by more than 0.1 %.
func lostTo(ours, rival *figures, place bool) []string {
	var out []string
	if place {
		if rival.Allocated > ours.Allocated {
			out = append(out, fmt.Sprintf("%.2f %% allocated against %.2f", rival.Allocated, ours.Allocated))
		}
		if rival.Placed["8"] > ours.Placed["8"] {
			out = append(out, fmt.Sprintf("%d 8-GPU pods placed against %d", rival.Placed["8"], ours.Placed["8"]))
		}
		return out
	}
	for _, f := range []struct {
		name        string
		rival, ours float64
	}{
		{"an average JCT of", rival.AvgJCT, ours.AvgJCT},
		{"a median of", rival.P50JCT, ours.P50JCT},
		{"a 99th percentile of", rival.P99JCT, ours.P99JCT},
		{"a fairness of", rival.Fairness, ours.Fairness},
	} {
		if f.rival < 0 || f.rival >= f.ours*(1-1e-3) {
			continue
		}
		text := whole
		if f.ours < 1000 {
			text = func(x float64) string { return decimals(x, 2) }
		}
		out = append(out, fmt.Sprintf("%s %s against %s", f.name, text(f.rival), text(f.ours)))
	}
	return out
}

// whole writes a number with commas between thousands.
func whole(x float64) string {
	if x < 0 {
		return "–"
	}
	digits := fmt.Sprintf("%.0f", math.Round(x))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func decimals(x float64, n int) string {
	if x < 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f", n, x)
}
