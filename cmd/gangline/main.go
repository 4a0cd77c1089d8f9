// Command gangline is the whole product in one binary: scheduler server, node
// agent, the researcher's command line, the demo and the simulator. Each verb
// is a file of this directory; main.go and app.go wire them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/gangline/gangline/nodeagent/gpu/nvml"
	"github.com/gangline/gangline/nodeagent/worker"
)

// version is the release, set by the linker.
var version = "dev"

func main() {
	// The two helpers that agents start must stay small and must not parse
	// what a person types: they are served before everything else.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "supervise":
			if len(os.Args) == 3 {
				os.Exit(worker.Supervise(os.Args[2]))
			}
		case "gpu-probe":
			os.Exit(nvml.ProbeMain(os.Stdin, os.Stdout))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
