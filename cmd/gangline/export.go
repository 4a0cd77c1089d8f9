package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) exportCmd() *cobra.Command {
	var jobs, nodes, rack string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write what ran here and on which nodes, as files that \"gangline sim run\" replays",
		Long: `Write the cluster's ended jobs and its nodes as CSV files that "gangline sim run"
and "gangline sim compare" read, to ask what another policy or cluster would
have changed.

A job's length is the GPU time that it had in all its epochs, divided by the
GPUs that it asked for. Jobs that have not ended, or never ran, are left out and
counted on standard error; so are jobs that the cluster has forgotten, which
nobody can count. A node has the type of its first GPU.`,
		Example: `  gangline export --jobs jobs.csv --nodes nodes.csv
  gangline sim compare --jobs jobs.csv --nodes nodes.csv --with order=fifo`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if jobs == "" && nodes == "" {
				return usage("name a file to write: --jobs FILE, --nodes FILE or both")
			}
			if jobs != "" {
				if err := a.exportJobs(cmd.Context(), jobs); err != nil {
					return err
				}
			}
			if nodes != "" {
				return a.exportNodes(cmd.Context(), nodes, rack)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&jobs, "jobs", "", "write the ended jobs to this file")
	cmd.Flags().StringVar(&nodes, "nodes", "", "write the nodes to this file")
	cmd.Flags().StringVar(&rack, "rack-label", "topology.gangline.dev/rack", "label of nodes that names their rack")
	return cmd
}

// exportJobs writes the jobs that ran and have ended, by submission.
func (a *app) exportJobs(ctx context.Context, path string) error {
	var ended []*schedulerv1.Job
	others := 0
	req := &schedulerv1.ListJobsRequest{PageSize: 1000}
	err := a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
		for {
			page, err := c.ListJobs(ctx, req)
			if err != nil {
				return err
			}
			for _, j := range page.GetJobs() {
				if j.GetFinishedUnixNs() != 0 && j.GetAttainedGpuSeconds() > 0 && j.GetSpec().GetGpus() > 0 {
					ended = append(ended, j)
				} else {
					others++
				}
			}
			if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(ended, func(x, y *schedulerv1.Job) int {
		return cmp.Or(cmp.Compare(x.GetSubmittedUnixNs(), y.GetSubmittedUnixNs()), cmp.Compare(x.GetId(), y.GetId()))
	})
	rows := [][]string{{"job_id", "submit_s", "duration_s", "gpus", "gpu_milli", "gpu_type", "cpu", "mem_mib", "user", "queue"}}
	for _, j := range ended {
		rows = append(rows, exportedJob(j, ended[0].GetSubmittedUnixNs()))
	}
	a.statef("%d jobs in %s; %d left out that have not ended or never ran", len(ended), path, others)
	return writeCSV(path, rows)
}

// exportedJob is a job as a row of the simulator's file.
func exportedJob(j *schedulerv1.Job, since int64) []string {
	s := j.GetSpec()
	share := int64(1000)
	if m := s.GetGpuMilli(); m > 0 {
		share = int64(m)
	}
	gpus := float64(s.GetGpus())
	return []string{
		strconv.FormatUint(j.GetId(), 10),
		number(time.Duration(j.GetSubmittedUnixNs() - since).Seconds()),
		number(j.GetAttainedGpuSeconds() / (gpus * float64(share) / 1000)),
		strconv.Itoa(int(s.GetGpus())), strconv.FormatInt(share, 10), strings.Join(s.GetGpuTypes(), "|"),
		number(gpus * float64(s.GetCpuMilliPerGpu()) / 1000), number(gpus * float64(s.GetMemoryBytesPerGpu()) / (1 << 20)),
		j.GetUser(), s.GetQueue(),
	}
}

// exportNodes writes all nodes that have GPUs, by name.
func (a *app) exportNodes(ctx context.Context, path, rack string) error {
	var resp *schedulerv1.ListNodesResponse
	err := a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
		resp, err = c.ListNodes(ctx, &schedulerv1.ListNodesRequest{})
		return err
	})
	if err != nil {
		return err
	}
	rows := [][]string{{"node", "gpus", "gpu_type", "cpu", "mem_mib", "rack"}}
	for _, n := range resp.GetNodes() {
		if len(n.GetGpus()) == 0 {
			continue
		}
		rows = append(rows, []string{
			n.GetName(), strconv.Itoa(len(n.GetGpus())), n.GetGpus()[0].GetType(),
			number(float64(n.GetCpuMilli()) / 1000), number(float64(n.GetMemoryBytes()) / (1 << 20)), n.GetLabels()[rack],
		})
	}
	a.statef("%d nodes in %s", len(rows)-1, path)
	return writeCSV(path, rows)
}

// number writes a number with at most six digits after the point, never as a power of ten.
func number(x float64) string {
	s := strconv.FormatFloat(x, 'f', 6, 64)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

func writeCSV(path string, rows [][]string) error {
	f, err := os.Create(path) //nolint:gosec // G304: the user names the file
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return errors.Join(csv.NewWriter(f).WriteAll(rows), f.Close())
}
