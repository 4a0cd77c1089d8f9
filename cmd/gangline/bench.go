package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/cmd/gangline/internal/benchring"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

func (a *app) benchCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure this machine: all-reduce beside Gloo and Open MPI, checkpoints beside the disk and PyTorch"}
	onlyVerbs(cmd)
	cmd.AddCommand(a.benchAllReduceCmd(), a.benchRankCmd(), a.benchCheckpoint(), a.benchRankCheckpoint())
	return cmd
}

// rankVerb runs one rank of a measurement; people never type it.
const rankVerb = "allreduce-rank"

func (a *app) benchAllReduceCmd() *cobra.Command {
	cfg := benchring.Config{Ranks: 2, Type: "float32", Path: "auto", Wire: "exact", Rounds: 3}
	bytes := "64MiB"
	cmd := &cobra.Command{
		Use:   "allreduce",
		Short: "Time all-reduce on this machine, and check each result",
		Long: `Time all-reduce between processes of this machine, one for each rank. Each call is
timed by its slowest rank, after a barrier; told is the median over all calls of
all rounds. Each result is checked.

With --peer, Gloo (PyTorch) and Open MPI do the same with float32, in turn with
ours, so that all meet the same machine. Both come from Debian's packages
(python3-torch; openmpi-bin, libopenmpi-dev); what is missing is said and left out.

With --wire fewer bytes travel: bf16 sends 2 for each float32, int8 1, and both lose
some of the value, within a bound that each result is checked against; ours with all
bytes is then measured too. With --rate each rank has a network namespace of its
own, with a link of that rate (needs root and iproute2; path tcp or grpc).

Paths: shm is memory that all ranks share, nodes memory that the ranks of each machine
share and a ring over machines, unix a Unix socket, tcp a connection of
its own, grpc the stream of the gRPC session; auto is the fastest that works.`,
		Example: `  gangline bench allreduce --ranks 4 --bytes 64MiB
  gangline bench allreduce --ranks 2 --bytes 4KiB --path tcp --peer gloo,ompi --json
  gangline bench allreduce --path tcp --wire int8 --rate 1gbit --peer gloo`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			if cfg.Bytes, err = bytesOf(bytes); err != nil {
				return usage("--bytes: %w", err)
			}
			cfg.Command, cfg.Log = []string{self, "bench", rankVerb}, a.err
			if err := cfg.Validate(); err != nil {
				return usage("%w", err)
			}
			report, err := benchring.Run(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if a.json {
				return json.NewEncoder(a.out).Encode(report)
			}
			return printRing(a.out, report)
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Ranks, "ranks", cfg.Ranks, "processes, 1 to 64")
	f.StringVar(&bytes, "bytes", bytes, "size of the vector, such as 4KiB or 64MiB")
	f.StringVar(&cfg.Type, "dtype", cfg.Type, "element: float32, float64, float16, bfloat16, int8, int32, int64")
	f.StringVar(&cfg.Path, "path", cfg.Path, "auto, shm, nodes, unix, tcp or grpc")
	f.StringVar(&cfg.Wire, "wire", cfg.Wire, "form in which our float32 travel: exact, bf16 or int8")
	f.IntVar(&cfg.Machines, "machines", 1, "machines that our ranks take themselves to be on, to try the path nodes on one")
	f.StringVar(&cfg.Rate, "rate", "", "of each rank's link, such as 1gbit (empty: loopback)")
	f.BoolVar(&cfg.Alloc, "alloc", false, "let gangline allocate the vectors, in shared memory if the ranks have any: no copies")
	f.StringSliceVar(&cfg.Peers, "peer", nil, "measure these too: gloo, ompi")
	f.IntVar(&cfg.Rounds, "rounds", cfg.Rounds, "how often each runs, in turn, in new processes")
	f.IntVar(&cfg.Calls, "calls", 0, "calls of a round that count (0: about a second's worth)")
	return cmd
}

// bytesOf reads a number of bytes, or a size with a unit.
func bytesOf(text string) (int, error) {
	if n, err := strconv.Atoi(text); err == nil {
		return n, nil
	}
	n, err := yamlfile.ParseBytes(text)
	return int(n), err
}

func (a *app) benchRankCmd() *cobra.Command {
	return &cobra.Command{
		Use: rankVerb, Short: "One rank of a measurement", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return benchring.Rank(cmd.Context(), a.in, a.out) },
	}
}

// printRing is the report for people.
func printRing(w io.Writer, r *benchring.Report) error {
	how := ""
	if r.Wire != "exact" {
		how = ", " + r.Wire + " on the wire"
	}
	if r.Rate != "" {
		how += ", links of " + r.Rate
	}
	fmt.Fprintf(w, "all-reduce of %d bytes of %s over %d ranks by %s%s: %d calls in each of %d rounds, each result checked\n\n",
		r.Bytes, r.Type, r.Ranks, r.Path, how, r.Calls, r.Rounds)
	rows := [][]string{{"", "MEDIAN", "BUS GB/S", "TIMES OURS"}}
	bus := func(seconds float64) string {
		return fmt.Sprintf("%.2f", 2*float64(r.Ranks-1)/float64(r.Ranks)*float64(r.Bytes)/seconds/1e9)
	}
	rows = append(rows, []string{"gangline", fmt.Sprintf("%.1f us", r.Median*1e6), bus(r.Median), "1"})
	for _, name := range []string{"gangline-exact", "gloo", "ompi-tcp", "ompi-shm"} {
		if p, ok := r.Peers[name]; ok {
			rows = append(rows, []string{name, fmt.Sprintf("%.1f us", p.Median*1e6), bus(p.Median), fmt.Sprintf("%.2f", p.Ratio)})
		}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nprocessor time of all ranks of gangline: %.2f s for 10^9 bytes\n", r.CPU)
	for _, m := range slices.Sorted(slices.Values(r.Missing)) {
		fmt.Fprintln(w, m)
	}
	return nil
}
