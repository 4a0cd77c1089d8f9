package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// versionTimeout is short: people ask for the version to see whether anything is there.
const versionTimeout = 3 * time.Second

func (a *app) versionCmd() *cobra.Command {
	var client bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the release of this program and of the cluster",
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := struct {
				Client  string                          `json:"client"`
				Go      string                          `json:"go"`
				Cluster *schedulerv1.GetClusterResponse `json:"cluster,omitempty"`
			}{Client: version, Go: runtime.Version()}
			var err error
			if !client {
				if !cmd.Flags().Changed("timeout") {
					a.timeout = versionTimeout
				}
				err = a.call(cmd.Context(), func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
					out.Cluster, err = c.GetCluster(ctx, &schedulerv1.GetClusterRequest{})
					return err
				})
			}
			if a.json {
				if err := json.NewEncoder(a.out).Encode(out); err != nil {
					return err
				}
				return err
			}
			fmt.Fprintf(a.out, "gangline %s (%s)\n", version, runtime.Version())
			if err != nil || client {
				return err
			}
			fmt.Fprintf(a.out, "cluster %s, server %s runs %s, index %d, state %s\n", out.Cluster.GetClusterId(), out.Cluster.GetServerId(),
				out.Cluster.GetVersion(), out.Cluster.GetAppliedIndex(), out.Cluster.GetStateHash())
			rows := [][]string{{"SERVER", "ADDRESS", "ROLE"}}
			for _, s := range out.Cluster.GetServers() {
				role := "follower"
				if s.GetLeader() {
					role = "leader"
				}
				rows = append(rows, []string{s.GetId(), s.GetAddress(), role})
			}
			return table(a.out, rows)
		},
	}
	cmd.Flags().BoolVar(&client, "client", false, "only this program's release")
	return cmd
}
