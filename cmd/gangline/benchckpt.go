package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/cmd/gangline/internal/ckptbench"
)

// benchRank is the hidden verb of the processes that a benchmark starts.
const benchRank = "checkpoint-rank"

// benchRankCheckpoint runs such a process.
func (a *app) benchRankCheckpoint() *cobra.Command {
	return &cobra.Command{
		Use: benchRank, Hidden: true, Args: noArgs, Short: "A rank of a benchmark",
		RunE: func(cmd *cobra.Command, _ []string) error { return ckptbench.RankMain(cmd.Context(), a.in, a.out) },
	}
}

func (a *app) benchCheckpoint() *cobra.Command {
	cfg := ckptbench.Config{Log: a.statef}
	var size string
	var peers []string
	cmd := &cobra.Command{
		Use: "checkpoint", Short: "Save, load and stall of checkpoints, beside the disk's own rate and PyTorch", Args: noArgs,
		Long: `Measure checkpoints on the storage of --dir: a durable, verified save by several
processes, cold and hot loads, and the stall of an asynchronous save. In the same
rounds: the disk's own rate (O_DIRECT and fsync), and with --peer torch torch.save
with fsync and torch.load, and PyTorch's distributed checkpoint (torch_dcp), by one
process with the whole state and by as many as ranks with a part each. What the
PyTorch that is there does not have is said and left out. Rates are medians, in GB (1e9 bytes) a second; on a busy
machine look at their proportions.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := bytesOf(size)
			if err != nil {
				return usage("--bytes: %w", err)
			}
			cfg.Bytes = int64(n)
			for _, p := range peers {
				if p != "torch" {
					return usage("--peer: %q is not known: torch is", p)
				}
			}
			cfg.Torch = slices.Contains(peers, "torch")
			self, err := os.Executable()
			if err != nil {
				return err
			}
			cfg.Self = []string{self, "bench", benchRank}
			report, err := ckptbench.Run(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if a.json {
				return json.NewEncoder(a.out).Encode(report)
			}
			return a.printBench(report)
		},
	}
	f := cmd.Flags()
	f.StringVar(&size, "bytes", "1GiB", "size of the state, all ranks together")
	f.IntVar(&cfg.Ranks, "ranks", 4, "processes that save and load")
	f.StringVar(&cfg.Dir, "dir", ".", "a directory on the storage to measure; four times the bytes must be free, with --peer seven times")
	f.IntVar(&cfg.Rounds, "rounds", 3, "how often everything is measured")
	f.IntVar(&cfg.Small, "small", 10000, "also save this many small tensors of the same bytes; 0: do not")
	f.StringSliceVar(&peers, "peer", nil, "measure beside it: torch")
	f.StringVar(&cfg.Python, "python", "", "program with PyTorch (default: python3, or /usr/bin/python3)")
	return cmd
}

func (a *app) printBench(r ckptbench.Report) error {
	rows := [][]string{
		{"WHAT", "GB/S", "AGAINST", "RATIO"},
		{"save, durable and verified", gbs(r.SaveGBs), "the disk's " + gbs(r.DiskWriteGBs), gbs(r.SaveGBs / r.DiskWriteGBs)},
		{"load, cold, verified", gbs(r.LoadColdGBs), "the disk's " + gbs(r.DiskReadGBs), gbs(r.LoadColdGBs / r.DiskReadGBs)},
		{"load, hot, verified", gbs(r.LoadHotGBs), "", ""},
		{"stall of an asynchronous save", fmt.Sprintf("%.3f s", r.StallS), fmt.Sprintf("one copy, %.3f s", r.MemcpyS), gbs(r.StallS / r.MemcpyS)},
	}
	if r.Small != nil {
		rows = append(rows, []string{fmt.Sprintf("save of %d small tensors", r.Small.Tensors), "", "one large, time to time", gbs(r.Small.Ratio)})
	}
	for _, name := range ckptbench.PeerNames() {
		if p := r.Peers[name]; p != nil {
			rows = append(rows,
				[]string{name, gbs(p.SaveGBs), "ours is faster by", gbs(p.Ratio)},
				[]string{"  its load, cold and hot", gbs(p.LoadGBs) + " and " + gbs(p.LoadHotGBs), "our stall is shorter by", gbs(p.StallRatio)})
		}
	}
	return table(a.out, rows)
}

func gbs(v float64) string { return fmt.Sprintf("%.2f", v) }
