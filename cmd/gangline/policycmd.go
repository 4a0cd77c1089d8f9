package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/policyfile"
)

func (a *app) policyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show, check and set the policy: queues, quotas, fair share, preemption",
		Long: `The policy says who may have how much, who comes first, and what may be stopped
for it. It is one YAML file, described in docs/policy.md, and changes at run time.`,
	}
	onlyVerbs(cmd)
	cmd.AddCommand(a.policyShow(), a.policyCheck(), a.policySet())
	return cmd
}

func (a *app) policyShow() *cobra.Command {
	var stale bool
	cmd := &cobra.Command{
		Use: "show", Short: "Print the policy that holds, as a file", Args: noArgs,
		Long: `Print the policy that holds, as a file with every field: edit it and give it to
"gangline policy set". What of it cannot come true on the nodes as they are goes
to standard error.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			got, err := a.getPolicy(cmd.Context(), stale)
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(got)
			}
			a.warn(got.GetWarnings())
			_, err = io.WriteString(a.out, got.GetYaml())
			return err
		},
	}
	cmd.Flags().BoolVar(&stale, "stale", false, "take what the server asked has, without asking the leader")
	return cmd
}

func (a *app) policyCheck() *cobra.Command {
	var simulator bool
	cmd := &cobra.Command{
		Use: "check (FILE | -)", Short: "Check a policy file without a cluster", Args: exactArgs(1, "one policy file"),
		Long: `Check a policy file without a cluster: all its problems are told at once, with
line and column. "gangline policy set --dry-run FILE" also compares it with the
cluster's nodes and jobs.`,
		RunE: func(_ *cobra.Command, args []string) error {
			_, p, err := a.readPolicy(args[0])
			if err != nil {
				return err
			}
			if err := policyfile.ForServers(p); err != nil && !simulator {
				return usage("%s: %w (--simulator checks a file for it)", args[0], err)
			}
			a.statef("%s is a valid policy", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&simulator, "simulator", false, "allow the orders that only the simulator has: sjf and srtf")
	return cmd
}

func (a *app) policySet() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "set (FILE | -)", Short: "Replace the policy, at once and without a restart", Args: exactArgs(1, "one policy file"),
		Long: `Replace the policy, at once and without a restart. What the file does not name is
as by default, not as it was: begin with "gangline policy show". Prints what
changes, and warns of what cannot come true on the nodes as they are. Nothing is
done if somebody else changes the policy meanwhile.`,
		Example: `  gangline policy show > policy.yaml
  gangline policy set --dry-run policy.yaml
  gangline policy set policy.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			data, p, err := a.readPolicy(args[0])
			if err != nil {
				return err
			}
			if err := policyfile.ForServers(p); err != nil {
				return usage("%s: %w", args[0], err)
			}
			return a.setPolicy(cmd.Context(), data, p, dry)
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would change and warn, but set nothing")
	return cmd
}

// setPolicy tells what changes from the policy that holds, and sets it unless
// that is another one by then.
func (a *app) setPolicy(ctx context.Context, data []byte, p *cluster.Policy, dry bool) error {
	was, err := a.getPolicy(ctx, false)
	if err != nil {
		return err
	}
	var done *schedulerv1.SetPolicyResponse
	err = a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
		index := was.GetPolicyIndex()
		done, err = c.SetPolicy(ctx, &schedulerv1.SetPolicyRequest{Yaml: data, WasIndex: &index, DryRun: dry, User: userName()})
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	old, err := policyfile.Parse([]byte(was.GetYaml()))
	if err != nil {
		a.statef("the changes cannot be told, the servers are of another release: %v", err)
		old = p
	}
	for _, c := range policyfile.Changes(old, p) {
		fmt.Fprintln(a.out, changeText(c))
	}
	a.warn(done.GetWarnings())
	switch {
	case !done.GetChanged():
		a.statef("this policy holds already: nothing is changed")
	case dry:
		a.statef("the policy would change; without --dry-run it does")
	default:
		a.statef("the policy holds from now on (index %d)", done.GetPolicyIndex())
	}
	return nil
}

func changeText(c policyfile.Change) string {
	switch {
	case c.Was == "":
		return fmt.Sprintf("+ %s: %s", c.Field, c.Is)
	case c.Is == "":
		return fmt.Sprintf("- %s: %s", c.Field, c.Was)
	default:
		return fmt.Sprintf("~ %s: %s -> %s", c.Field, c.Was, c.Is)
	}
}

func (a *app) warn(warnings []string) {
	for _, w := range warnings {
		a.statef("warning: %s", w)
	}
}

func (a *app) getPolicy(ctx context.Context, stale bool) (got *schedulerv1.GetPolicyResponse, err error) {
	err = a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (err error) {
		got, err = c.GetPolicy(ctx, &schedulerv1.GetPolicyRequest{Stale: stale})
		return err
	})
	return got, err
}

// readPolicy reads and checks a policy file; "-" is standard input. Each
// problem names the file.
func (a *app) readPolicy(path string) ([]byte, *cluster.Policy, error) {
	in := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, usage("policy file: %w", err)
		}
		defer func() { _ = f.Close() }() // read only
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, policyfile.MaxBytes+1))
	if err != nil {
		return nil, nil, usage("policy file: %w", err)
	}
	p, err := policyfile.Parse(data)
	if err == nil {
		return data, p, nil
	}
	problems := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		problems = joined.Unwrap()
	}
	for i := range problems {
		problems[i] = fmt.Errorf("%s: %w", path, problems[i])
	}
	return nil, nil, &exitError{exitUsage, errors.Join(problems...)}
}
