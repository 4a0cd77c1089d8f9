package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the stories of testdata/script against one cluster of real
// processes: one server and one agent with 8 emulated GPUs. Each script is a
// person at a terminal; "exits CODE COMMAND..." is an exec with this exit code.
func TestScripts(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 8})
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("story", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir:                 "testdata/script",
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("GANGLINE_SERVER", c.address())
				env.Setenv("USER", "tester")
				env.Setenv("XDG_STATE_HOME", env.WorkDir+"/state")
				env.Setenv("EXAMPLES", examples)
				env.Setenv("NOBODY", freeAddress(t)) // where no server is
				env.Setenv("TAKEN", c.servers[0].addr)
				return nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		})
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("exits: %v", err)
	}
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("exits: %v", err)
	}
	if code != want {
		ts.Fatalf("%q: exit code %d, want %d", args[1:], code, want)
	}
}
