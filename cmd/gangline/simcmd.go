package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/replay"
)

func (a *app) simCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate a cluster: the scheduler's own decisions under a virtual clock",
		Args:  noArgs,
	}
	onlyVerbs(cmd)
	cmd.AddCommand(a.simRunCmd(), a.simPlaceCmd(), a.simCompareCmd(), a.simWhatIfCmd(), a.simTestCmd(), a.simFaultsCmd(), a.simCalibrateCmd(), a.simFuzzCmd())
	return cmd
}

// secondsFlag is a time given in seconds, as traces have them ("60"), or with a unit ("1m").
type secondsFlag struct{ d *time.Duration }

func (f secondsFlag) String() string {
	if f.d == nil {
		return "0"
	}
	return strconv.FormatFloat(f.d.Seconds(), 'f', -1, 64)
}

func (f secondsFlag) Type() string { return "seconds" }

// Set implements pflag.Value.
func (f secondsFlag) Set(s string) error {
	if x, err := strconv.ParseFloat(s, 64); err == nil && x >= 0 && x <= 1e9 {
		*f.d = time.Duration(x * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a time such as 60 (seconds) or 1m", s)
	}
	*f.d = d
	return nil
}

// ordersText and scoresText are the names that flags accept.
func ordersText() string {
	return strings.Join([]string{
		string(cluster.OrderGangline), string(cluster.OrderFIFO), string(cluster.OrderLAS), string(cluster.OrderQSSF),
		string(cluster.OrderSJF), string(cluster.OrderSRTF),
	}, ", ")
}

// spareCollector lets the garbage collector come less often, unless the environment says how often: a replay makes much
// and keeps little, and a tenth of its time would go to collecting.
func spareCollector() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(1600) // so the first time at 64 MiB: before, it would find the jobs that were read ahead, and no garbage
	// The first collection finds this object, which nobody knows; from then on it comes less late.
	runtime.AddCleanup(new([64]byte), func(percent int) { debug.SetGCPercent(percent) }, 400)
	debug.SetMemoryLimit(1500 << 20) // from here on it comes as often as it takes
}

// measured is how fast something was that began at a time.
func measured(began time.Time) *replay.Speed {
	sp := &replay.Speed{Wall: time.Since(began)}
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) == nil {
		sp.PeakRSS = use.Maxrss << 10 // Linux counts KiB
	}
	return sp
}
