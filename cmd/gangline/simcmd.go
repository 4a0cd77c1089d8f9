package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/sim"
)

func (a *app) simCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate a cluster: the scheduler's own decisions under a virtual clock",
		Args:  noArgs,
	}
	cmd.AddCommand(a.simRunCmd())
	return cmd
}

var (
	_ = json.Marshal
	_ = fmt.Sprint
	_ = time.Now
	_ = sim.Run
)
