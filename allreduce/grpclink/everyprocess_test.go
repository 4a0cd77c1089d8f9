//go:build unix

package grpclink_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/gangline/gangline/allreduce/grpclink"
)

// everyLoss has TestProcessesLostAnywhere lose ranks at each of their points, which takes an hour: "make losses".
const everyLoss = "GANGLINE_EVERY_LOSS"

// TestProcessesLostAnywhere: processes of ranks kill or stop themselves at points that are spread over all of a ring's life, from the first greeting to
// the last word, on every path. All others name the lost one. They go on in their processes with another in its place; one that was stopped wakes
// while the next ring forms, and does it no harm.
func TestProcessesLostAnywhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path          grpclink.Path
		ranks, losses int
	}{{grpclink.PathGRPC, 3, 4}, {grpclink.PathTCP, 3, 4}, {grpclink.PathUnix, 3, 4}, {grpclink.PathShared, 3, 8}, {grpclink.PathNodes, 4, 8}} {
		t.Run(string(c.path), func(t *testing.T) {
			t.Parallel()
			if os.Getenv(everyLoss) != "" {
				loseEverywhere(t, c.path, c.ranks)
				return
			}
			g := startGang(t, c.path, c.ranks)
			points := g.whole(t)
			for i := range c.losses {
				victim, signal := i%c.ranks, syscall.SIGKILL
				if i%4 == 3 {
					signal = syscall.SIGSTOP
				}
				g.lose(t, victim, 1+points[victim]*int64(2*i+1)/int64(2*c.losses), signal)
			}
			g.whole(t)
		})
	}
}

// loseEverywhere loses each rank at each of its points, by either signal. Most of the time is spent waiting for what a stopped rank does not say; so
// several gangs share the points of a path.
func loseEverywhere(t *testing.T, path grpclink.Path, ranks int) {
	t.Helper()
	const gangs = 4
	for part := range gangs {
		t.Run(fmt.Sprint("part ", part), func(t *testing.T) {
			t.Parallel()
			g := startGang(t, path, ranks)
			points := g.whole(t)
			lost := 0
			for victim := range ranks {
				for at := int64(1 + part); at <= points[victim] && !t.Failed(); at += gangs {
					for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
						g.lose(t, victim, at, signal)
						if lost++; lost%50 == 0 {
							t.Logf("%d losses; rank %d of %d, point %d of %d", lost, victim, ranks, at, points[victim])
						}
					}
				}
			}
			g.whole(t)
			t.Logf("%s: points of the ranks %v; %d losses in this part", path, points, lost)
		})
	}
}

// startGang starts the ranks' processes, which end with the test.
func startGang(t *testing.T, path grpclink.Path, ranks int) *gang {
	t.Helper()
	g := &gang{path: path}
	t.Cleanup(func() {
		for _, p := range g.ranks {
			p.end()
		}
	})
	for range ranks {
		g.ranks = append(g.ranks, startRank(t))
	}
	return g
}

// whole is a round in which nobody is lost. It returns how many points each rank passed.
func (g *gang) whole(t *testing.T) (points []int64) {
	t.Helper()
	for r, w := range g.round(t, -1, 0, 0) {
		if w.Err != "" {
			t.Fatalf("formation %d: rank %d, while all are there: %s", g.formation, r, w.Err)
		}
		points = append(points, w.Points)
	}
	return points
}

// lose is a round in which a rank is lost at a point of its work. Another takes its place.
func (g *gang) lose(t *testing.T, victim int, at int64, signal syscall.Signal) {
	t.Helper()
	for r, w := range g.round(t, victim, at, signal) {
		if r != victim && w.Err != "" && w.Lost != victim {
			t.Errorf("formation %d: rank %d got %v at its point %d; rank %d: %s", g.formation, victim, signal, at, r, w.Err)
		}
	}
	lost := g.ranks[victim]
	g.ranks[victim] = startRank(t)
	if signal == syscall.SIGSTOP {
		_ = lost.cmd.Process.Signal(syscall.SIGCONT) // it had not been stopped, if its work was shorter this time
		g.whole(t)
		lost.hear(t, victim) // it does not hang, whatever it makes of its ring
	}
	lost.end()
}
