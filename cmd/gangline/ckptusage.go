package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	ckptusage "github.com/gangline/gangline/checkpoint/usage"
)

func (a *app) ckptUsage() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use: "usage --root DIR [USER...]", Short: "Show what each user's checkpoints take of the shared storage", Args: cobra.ArbitraryArgs,
		Long: `Show what each user's checkpoints take of the shared storage, which this machine must
have mounted: --root is what agents have as --checkpoint-root. Agents note whose a
job is when they start it. What a user may take says checkpoints.user_limit of the
policy.`,
		RunE: func(cmd *cobra.Command, users []string) error {
			if root == "" {
				return usage("--root is needed: the directory that agents have as --checkpoint-root")
			}
			if len(users) == 0 {
				var err error
				if users, err = ckptusage.Users(root); err != nil {
					return err
				}
			}
			meter := ckptusage.New(root)
			rows := [][]string{{"USER", "SIZE", "CHECKPOINTS", "JOBS", "NOTES"}}
			for _, user := range users {
				use, err := meter.Of(cmd.Context(), user)
				if err != nil {
					return err
				}
				if a.json {
					err := json.NewEncoder(a.out).Encode(map[string]any{
						"user": user, "bytes": use.Bytes, "checkpoints": use.Checkpoints, "jobs": use.Jobs, "unreadable": use.Unreadable,
					})
					if err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{
					user, byteSize(use.Bytes), fmt.Sprint(use.Checkpoints), fmt.Sprint(use.Jobs), mark(use.Unreadable > 0, fmt.Sprintf("%d more cannot be read", use.Unreadable)),
				})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 1:
				a.statef("%s holds no checkpoint of any user", root)
				return nil
			}
			return table(a.out, rows)
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "directory below which the jobs' checkpoints lie")
	return cmd
}
