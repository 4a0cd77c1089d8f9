package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testWorker is a worker's main process, as it told the test by a file: what
// these tests say about workers does not rest on Gangline's own word.
type testWorker struct {
	pid   int
	start string
}

// alive reports whether it is still this very process.
func (w testWorker) alive() bool { return startTime(w.pid) == w.start }

// flag is a file for which workers wait.
type flag string

func (f flag) raise(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(string(f), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// waiting is a worker's script: it tells its process, waits for a flag (at
// most two minutes, so that nothing outlives a test that was killed) and ends
// as told. It also returns the flag.
func (c *testCluster) waiting(name, end string) (string, flag) {
	f := flag(filepath.Join(c.dir, name+".go"))
	return fmt.Sprintf(`echo $$ > %[1]s/%[2]s.tmp.$GANGLINE_EPOCH.$RANK
mv %[1]s/%[2]s.tmp.$GANGLINE_EPOCH.$RANK %[1]s/%[2]s.pid.$GANGLINE_EPOCH.$RANK
i=0
until [ -e %[3]s ] || [ $i -ge 2400 ]; do sleep 0.05; i=$((i+1)); done
%[4]s`, c.dir, name, f, end), f
}

// workers waits until all ranks of an epoch have told their process.
func (c *testCluster) workers(name string, epoch, ranks int) []testWorker {
	c.t.Helper()
	var out []testWorker
	for rank := range ranks {
		path := filepath.Join(c.dir, fmt.Sprintf("%s.pid.%d.%d", name, epoch, rank))
		poll(c.t, fmt.Sprintf("rank %d of %s runs in epoch %d", rank, name, epoch), func() bool {
			_, err := os.Stat(path)
			return err == nil
		})
		b, err := os.ReadFile(path)
		if err != nil {
			c.t.Fatal(err)
		}
		var w testWorker
		if _, err := fmt.Sscan(strings.TrimSpace(string(b)), &w.pid); err != nil {
			c.t.Fatal(err)
		}
		if w.start = startTime(w.pid); w.start == "" {
			c.t.Fatalf("rank %d of %s has ended", rank, name)
		}
		out = append(out, w)
	}
	return out
}

// allAlive fails the test if one of the workers is gone.
func allAlive(t testing.TB, when string, workers []testWorker) {
	t.Helper()
	for rank, w := range workers {
		if !w.alive() {
			t.Fatalf("rank %d (process %d) did not survive %s", rank, w.pid, when)
		}
	}
}
