package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
)

func (a *app) ckptInterval() *cobra.Command {
	var cost, between, least time.Duration
	var gpus int
	cmd := &cobra.Command{
		Use: "interval --cost DURATION", Short: "Say how often to save: what loses the least to saves and failures together", Args: noArgs,
		Long: fmt.Sprintf(`Say how often to save, by Daly's formula: longer intervals repeat more work after a
failure, shorter ones stop the training more often. --cost is how long one save
holds up the training. Failures: --between, the mean time between two of them as the
job sees it; or --gpus, from which it is reckoned at a failure in %.0f GPU-hours,
as Meta reported of Llama 3. Count preemptions as failures if they give no warning.`, float64(checkpoint.GPUHoursPerFailure)),
		RunE: func(*cobra.Command, []string) error {
			if cost <= 0 {
				return usage("--cost is needed: how long one save holds up the training, such as 2s")
			}
			if between < 0 || gpus < 1 || least < 0 {
				return usage("--between and --least must not be negative, --gpus at least 1")
			}
			if between == 0 {
				between = checkpoint.TimeBetweenFailures(gpus, 0)
			}
			every := checkpoint.Interval(cost, between, least)
			lost := cost.Seconds()/(every+cost).Seconds() + every.Seconds()/2/between.Seconds()
			if a.json {
				return json.NewEncoder(a.out).Encode(map[string]any{
					"interval_s": every.Seconds(), "between_failures_s": between.Seconds(), "lost": lost,
				})
			}
			_, err := fmt.Fprintf(a.out, "save each %s: with a failure each %s, about %.2g %% of the time goes to saves and repeated work\n", short(every), short(between), 100*lost)
			return err
		},
	}
	f := cmd.Flags()
	f.DurationVar(&cost, "cost", 0, "how long one save holds up the training")
	f.DurationVar(&between, "between", 0, "mean time between failures of the job (default: from --gpus)")
	f.IntVar(&gpus, "gpus", 1, "GPUs of the job")
	f.DurationVar(&least, "least", 0, "shortest interval: how long a save takes in the background")
	return cmd
}
