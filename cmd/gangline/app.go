package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// app is what all verbs share: streams and global flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	args     []string // as typed

	servers []string
	json    bool
	timeout time.Duration
	tls     tlsFlags
}

// execute runs one command line and returns the process's exit code.
func execute(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	a := &app{in: in, out: out, err: errw, args: args}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code, words := exitCode(err)
	if words != "" {
		fmt.Fprintf(errw, "gangline: %s\n", words)
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "gangline",
		Short: "Gangline schedules GPU training jobs: whole gangs, fast, and never killed by the control plane",
		Long: `Gangline schedules GPU training jobs on a cluster of machines.

One binary is the replicated scheduler (server), the node agent (agent), the
command line, a cluster in one process for a laptop (dev), a guided
demonstration (demo) and the simulator (sim).

To begin: "gangline dev" in one terminal, then in another
  gangline run --gpus 2 -- sh -c 'echo rank $RANK of $WORLD_SIZE'`,
		SilenceUsage: true, SilenceErrors: true,
		Version:           version,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return errors.Join(applySettings(cmd), a.checkGlobals()) },
	}
	onlyVerbs(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w: see %q", err, cmd.CommandPath()+" --help")
	})
	f := root.PersistentFlags()
	f.StringSliceVar(&a.servers, "server", []string{"127.0.0.1:7070"}, "addresses of the servers; any one will do")
	f.BoolVar(&a.json, "json", false, "print JSON on standard output, one object, or one for each event")
	f.DurationVar(&a.timeout, "timeout", 20*time.Second, "how long to wait for an answer")
	a.tls.register(f)
	root.AddGroup(&cobra.Group{ID: "jobs", Title: "Jobs:"}, &cobra.Group{ID: "cluster", Title: "Cluster:"}, &cobra.Group{ID: "try", Title: "Try and simulate:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			if c.Args == nil {
				c.Args = noArgs
			}
			c.DisableFlagsInUseLine = true
			root.AddCommand(c)
		}
	}
	add("jobs", a.submitCmd(), a.runCmd(), a.jobsCmd(), a.showCmd(), a.logsCmd(), a.cancelCmd())
	add("jobs", a.whyCmd(), a.planCmd(), a.queuesCmd(), a.reasonsCmd(), a.predictionsCmd(), a.checkpointCmd())
	add("cluster", a.serverCmd(), a.agentCmd(), a.nodesCmd(), a.exportCmd(), a.drainCmd(), a.undrainCmd(), a.policyCmd(), a.versionCmd())
	add("try", a.devCmd(), a.demoCmd(), a.simCmd(), a.benchCmd())
	root.AddCommand(a.workerCmd(), &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp})
	return root
}

// noArgs refuses arguments where a verb has none, instead of ignoring them.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%q takes no arguments, was given %q", cmd.CommandPath(), args)
	}
	return nil
}

// onlyVerbs makes a command that has only further verbs print its help, and
// refuse what is none of them.
func onlyVerbs(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		hint := ""
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf(" (did you mean %q?)", near[0])
		}
		return usage("unknown command %q%s: see %q", args[0], hint, cmd.CommandPath()+" --help")
	}
}

// checkGlobals refuses global flags that no call could work with.
func (a *app) checkGlobals() error {
	if a.timeout <= 0 {
		return usage("--timeout: %s is not a time to wait, such as 20s", a.timeout)
	}
	for _, s := range a.servers {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			return usage("--server: %q is not host:port, such as 127.0.0.1:7070", s)
		}
	}
	return nil
}

func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%q needs %s: see %q", cmd.CommandPath(), what, cmd.CommandPath()+" --help")
		}
		return nil
	}
}

// callContext bounds one call by --timeout.
func (a *app) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.timeout)
}

// userName is who submits, where the connection does not say.
func userName() string {
	for _, v := range []string{"GANGLINE_USER", "USER", "LOGNAME"} {
		if u := os.Getenv(v); u != "" {
			return u
		}
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

// statef prints chatter for people to standard error, never with --json.
func (a *app) statef(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "localhost"
	}
	return strings.ToLower(h)
}
