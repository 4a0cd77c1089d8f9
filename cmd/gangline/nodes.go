package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) nodesCmd() *cobra.Command {
	var stale, gpus bool
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List nodes, their GPUs and who holds them",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var resp *schedulerv1.ListNodesResponse
			err := a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
				resp, err = c.ListNodes(ctx, &schedulerv1.ListNodesRequest{Stale: stale})
				return err
			})
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(resp)
			case gpus:
				return a.printGPUs(resp.GetNodes())
			default:
				return a.printNodes(resp.GetNodes())
			}
		},
	}
	cmd.Flags().BoolVar(&gpus, "gpus", false, "one line for each GPU")
	cmd.Flags().BoolVar(&stale, "stale", false, "take what the server asked has, without asking the leader")
	return cmd
}

// skewShown is the clock difference from which a node's clock is worth a word.
const skewShown = 2 * time.Second

func (a *app) printNodes(nodes []*schedulerv1.Node) error {
	rows := [][]string{{"NODE", "STATE", "GPUS", "HELD", "TYPE", "JOBS", "CPUS", "MEMORY", "HEARTBEAT", "NOTE"}}
	for _, n := range nodes {
		held, bad := 0.0, 0
		var types []string
		for _, g := range n.GetGpus() {
			held += heldOf(g)
			if !g.GetHealthy() {
				bad++
			}
			if !slices.Contains(types, g.GetType()) {
				types = append(types, g.GetType())
			}
		}
		notes := nodeNotes(n)
		if bad > 0 {
			notes = append(notes, fmt.Sprintf("%d GPUs unhealthy", bad))
		}
		if skew := time.Duration(n.GetClockSkewMs()) * time.Millisecond; skew.Abs() > skewShown {
			notes = append(notes, fmt.Sprintf("clock is off by %s", skew))
		}
		if n.GetReason() != "" {
			notes = append(notes, n.GetReason())
		}
		beat := "-"
		if n.GetHeartbeatAgeMs() >= 0 {
			beat = (time.Duration(n.GetHeartbeatAgeMs()) * time.Millisecond).Round(100 * time.Millisecond).String()
		}
		rows = append(rows, []string{
			n.GetName(), nodeState(n), fmt.Sprint(len(n.GetGpus())), gpuCount(held), strings.Join(types, ","),
			orDash(strings.Join(jobsOn(n), ",")), fmt.Sprintf("%g", float64(n.GetCpuMilli())/1000), checkpoint.BytesText(n.GetMemoryBytes()), beat, strings.Join(notes, "; "),
		})
	}
	return table(a.out, rows)
}

func (a *app) printGPUs(nodes []*schedulerv1.Node) error {
	rows := [][]string{{"NODE", "GPU", "TYPE", "MEMORY", "ISLAND", "NUMA", "JOB", "UTIL", "NOTE"}}
	for _, n := range nodes {
		for _, g := range n.GetGpus() {
			util := "-"
			if g.Utilization != nil {
				util = fmt.Sprintf("%.0f %%", 100*g.GetUtilization())
			}
			note := g.GetReason()
			if n.GetState() == schedulerv1.NodeState_NODE_STATE_LOST {
				note = "node lost"
			}
			numa := "-"
			if g.NumaNode != nil {
				numa = fmt.Sprint(g.GetNumaNode())
			}
			rows = append(rows, []string{n.GetName(), g.GetUuid(), g.GetType(), checkpoint.BytesText(g.GetMemoryBytes()), fmt.Sprint(g.GetIsland()), numa, holders(g), util, note})
		}
	}
	return table(a.out, rows)
}

// heldOf is how much of a GPU jobs hold.
func heldOf(g *schedulerv1.GPU) float64 {
	if g.GetJobId() != 0 {
		return 1
	}
	milli := int32(0)
	for _, s := range g.GetShares() {
		milli += s.GetMilli()
	}
	return float64(milli) / 1000
}

// holders names the jobs that hold a GPU, with their shares.
func holders(g *schedulerv1.GPU) string {
	if g.GetJobId() != 0 {
		return fmt.Sprint(g.GetJobId())
	}
	var parts []string
	for _, s := range g.GetShares() {
		parts = append(parts, fmt.Sprintf("%d (%g)", s.GetJobId(), float64(s.GetMilli())/1000))
	}
	return orDash(strings.Join(parts, ", "))
}

// nodeState is a node's state in a word: a node that is drained says so.
func nodeState(n *schedulerv1.Node) string {
	switch {
	case n.GetDrain() == nil || n.GetState() != schedulerv1.NodeState_NODE_STATE_READY:
		return nodeStateName(n.GetState())
	case len(jobsOn(n)) > 0:
		return "Draining"
	default:
		return "Drained"
	}
}

// nodeNotes says what keeps jobs off a node.
func nodeNotes(n *schedulerv1.Node) []string {
	var notes []string
	if d := n.GetDrain(); d != nil {
		note := fmt.Sprintf("drained by %s: %s", orDash(d.GetBy()), d.GetReason())
		if at := d.GetDeadlineUnixNs(); at != 0 {
			note += fmt.Sprintf(" (empty by %s)", timestamp(at))
		}
		notes = append(notes, note)
	}
	if p := n.GetStorageProblem(); p != "" {
		notes = append(notes, p)
	}
	for _, k := range slices.Sorted(maps.Keys(n.GetTaints())) {
		notes = append(notes, "taint "+label(k, n.GetTaints()[k]))
	}
	return notes
}

func label(key, value string) string {
	if value == "" {
		return key
	}
	return key + "=" + value
}

func nodeStateName(s schedulerv1.NodeState) string {
	name := strings.TrimPrefix(s.String(), "NODE_STATE_")
	return name[:1] + strings.ToLower(name[1:])
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
