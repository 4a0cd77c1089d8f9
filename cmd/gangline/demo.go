package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gangline/gangline/cmd/gangline/internal/demo"
)

func (a *app) demoCmd() *cobra.Command {
	cfg := demo.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it all: train on real data while a leader and a node are killed",
		Long: `Start a cluster of real processes on this machine (3 schedulers, 4 agents with 8
emulated GPUs each), train a small network on real data by ring all-reduce on 8
of them, and meanwhile kill the leading scheduler and then a whole node. The
job resumes from its checkpoint and finishes. Everything is cleaned up.

The exit status is 0 only if all that is shown really held. Run it by
"make demo", which builds what it needs.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			cfg.Gangline, cfg.Out = self, a.out
			if cfg.Digits == "" {
				cfg.Digits = filepath.Join(filepath.Dir(self), "digits")
			}
			if err := absolute(&cfg.Digits); err != nil {
				return err
			}
			if f, ok := a.out.(*os.File); ok {
				cfg.TTY = term.IsTerminal(int(f.Fd()))
			}
			if err := demo.Run(cmd.Context(), cfg); err != nil {
				return fmt.Errorf("the demo did not hold: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Report, "report", "", "write what was measured to this file, as JSON")
	f.StringVar(&cfg.Digits, "digits", "", "the training program (default: digits, beside this program)")
	f.DurationVar(&cfg.Limit, "limit", cfg.Limit, "give up after this long")
	return cmd
}
