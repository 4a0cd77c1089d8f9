package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
	ckptusage "github.com/gangline/gangline/checkpoint/usage"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) ckptUsage() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use: "usage [USER...]", Short: "Show what each user's checkpoints take of the shared storage, and may take", Args: cobra.ArbitraryArgs,
		Long: `Show what each user's complete checkpoints take of the shared storage, and what they
may take: checkpoints.user_limit of the policy. The leader says what agents have last
measured, after a save and when a job starts; of users who have no job since the
leader leads it knows nothing.

With --root (what agents have as --checkpoint-root) this machine, which must have
the storage mounted, measures all users itself, and asks no server.`,
		RunE: func(cmd *cobra.Command, users []string) error {
			if root != "" {
				return a.measureUsage(cmd.Context(), root, users)
			}
			return a.askUsage(cmd.Context(), users)
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "measure here: the directory below which the jobs' checkpoints lie")
	return cmd
}

// usageView is what one user has, as --json prints it.
type usageView struct {
	User        string `json:"user"`
	Bytes       int64  `json:"bytes"`
	Limit       *int64 `json:"limit_bytes,omitempty"` // 0: none; left out: not asked
	Checkpoints int64  `json:"checkpoints"`
	Jobs        int64  `json:"jobs"`
	Unreadable  int64  `json:"unreadable"`
	MeasuredMS  int64  `json:"measured_unix_ms,omitempty"` // left out: now, or nothing is known
}

func (a *app) askUsage(ctx context.Context, users []string) error {
	var resp *schedulerv1.ListCheckpointUsageResponse
	err := a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
		resp, err = c.ListCheckpointUsage(ctx, &schedulerv1.ListCheckpointUsageRequest{Users: users})
		return err
	})
	if err != nil {
		return err
	}
	var all []usageView
	for _, u := range resp.GetUsers() {
		limit := u.GetLimitBytes()
		all = append(all, usageView{
			u.GetUser(), u.GetBytes(), &limit, u.GetCheckpoints(), u.GetJobs(), u.GetUnreadable(), u.GetMeasuredUnixNs() / int64(time.Millisecond),
		})
	}
	if len(all) == 0 && !a.json {
		text := "no limit"
		if n := resp.GetLimitBytes(); n > 0 {
			text = checkpoint.BytesText(n)
		}
		a.statef("no agent has told of any user's checkpoints since this leader leads (each may take: %s); --root measures the storage itself", text)
		return nil
	}
	return a.printUsage(all, true)
}

func (a *app) measureUsage(ctx context.Context, root string, users []string) error {
	if len(users) == 0 {
		var err error
		if users, err = ckptusage.Users(root); err != nil {
			return err
		}
	}
	meter := ckptusage.New(root)
	var all []usageView
	for _, user := range users {
		use, err := meter.Of(ctx, user)
		if err != nil {
			return err
		}
		all = append(all, usageView{user, use.Bytes, nil, int64(use.Checkpoints), int64(use.Jobs), int64(use.Unreadable), 0})
	}
	if len(all) == 0 && !a.json {
		a.statef("%s holds no checkpoint of any user", root)
		return nil
	}
	return a.printUsage(all, false)
}

// printUsage prints one line for each user; told: by the leader.
func (a *app) printUsage(all []usageView, told bool) error {
	if a.json {
		for _, v := range all {
			if err := json.NewEncoder(a.out).Encode(v); err != nil {
				return err
			}
		}
		return nil
	}
	head := []string{"USER", "SIZE", "CHECKPOINTS", "JOBS", "NOTES"}
	if told {
		head = []string{"USER", "SIZE", "LIMIT", "", "CHECKPOINTS", "JOBS", "MEASURED", "NOTES"}
	}
	rows := [][]string{head}
	for _, v := range all {
		size, row := checkpoint.BytesText(v.Bytes), []string{v.User}
		switch {
		case told && v.MeasuredMS == 0:
			size = "?"
			row = append(row, size, limitText(*v.Limit), "", "?", "?", "-", "nothing is known since this leader leads")
		case told:
			bar := ""
			if *v.Limit > 0 {
				bar = partBar(float64(v.Bytes) / float64(*v.Limit))
			}
			row = append(row, size, limitText(*v.Limit), bar, fmt.Sprint(v.Checkpoints), fmt.Sprint(v.Jobs), age(v.MeasuredMS*int64(time.Millisecond))+" ago")
			row = append(row, v.notes())
		default:
			row = append(row, size, fmt.Sprint(v.Checkpoints), fmt.Sprint(v.Jobs), v.notes())
		}
		rows = append(rows, row)
	}
	return table(a.out, rows)
}

func limitText(bytes int64) string {
	if bytes == 0 {
		return "-"
	}
	return checkpoint.BytesText(bytes)
}

func (v *usageView) notes() string {
	note := mark(v.Unreadable > 0, fmt.Sprintf("the size of %d more is not known: their manifests cannot be used", v.Unreadable))
	if v.Limit != nil && *v.Limit > 0 && v.Bytes > *v.Limit {
		if note != "" {
			note = ", " + note
		}
		note = "over the limit: what is left is each job's newest, pinned or in use" + note
	}
	return note
}
