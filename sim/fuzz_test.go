package sim

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestFuzzSeeds plays worlds that are drawn as `gangline sim fuzz` draws them; that command plays more of them.
func TestFuzzSeeds(t *testing.T) {
	t.Parallel()
	seeds := uint64(20)
	if testing.Short() || raceEnabled {
		seeds = 3
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		if _, f := Fuzz(seed); f != nil {
			t.Errorf("%v", f.Err)
		}
	}
}

const forgotten = "workers on a lost node are forgotten, and agents do not wait for GPUs"

// plants are bugs of the kinds that a scheduler could have, each found by another check.
func plants() map[string]func(*world) {
	return map[string]func(*world){
		"a follower skips a lost node": func(w *world) {
			w.servers.deaf = func(server int, index uint64) bool {
				for i := range w.servers.entries {
					if e := &w.servers.entries[i]; e.index == index && server != w.servers.leader {
						c, err := cluster.DecodeCommand(e.cmds[0], cluster.Version)
						_, lost := c.(*cluster.LoseNode)
						return err == nil && lost
					}
				}
				return false
			}
		},
		forgotten: func(w *world) {
			w.greedy = true
			w.tamper = func(c cluster.Command) cluster.Command {
				if r, ok := c.(*cluster.RegisterNode); ok {
					bare := *r
					bare.Running = nil
					return &bare
				}
				return c
			}
		},
		"a cancelled job's workers never end for the state": func(w *world) {
			w.tamper = func(c cluster.Command) cluster.Command {
				r, ok := c.(*cluster.ReportWorkers)
				if !ok {
					return c
				}
				some := &cluster.ReportWorkers{Node: r.Node}
				for _, x := range r.Workers {
					if j := w.servers.state().Job(x.Job); j == nil || j.Stop != cluster.StopCancel || !x.State.Ended() {
						some.Workers = append(some.Workers, x)
					}
				}
				return some
			}
		},
	}
}

// TestShrink: what a planted bug shows becomes a scenario of a few lines, which shows it again from its file and not
// without the bug.
func TestShrink(t *testing.T) {
	t.Parallel()
	for name, plant := range plants() {
		if raceEnabled && name != forgotten {
			continue // one is enough for it
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			build := func(sc *Scenario) *world {
				w := newWorld(sc)
				plant(w)
				return w
			}
			var found *Failure
			for seed := uint64(1); seed <= 30 && found == nil; seed++ {
				_, found = fuzz(Draw(FuzzConfig(seed)), build)
			}
			if found == nil {
				t.Fatal("30 seeds do not show it")
			}
			most := 150
			if symptom(found.Err) == "not live" {
				most = 40 // each lasts for hours of virtual time
			}
			small, plays := shrinkWith(found, most, build)
			t.Logf("size %d became %d in %d plays: %s", found.Scenario.Size(), small.Scenario.Size(), plays, small.Scenario.Error)
			if got, most := small.Scenario.Size(), max(found.Scenario.Size()/4, 12); got > most {
				t.Errorf("size %d became %d, want at most %d", found.Scenario.Size(), got, most)
			}
			file, err := small.Scenario.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := ReadScenario(bytes.NewReader(file))
			if err != nil {
				t.Fatalf("%v, of\n%s", err, file)
			}
			_, f := fuzz(again, build)
			if f == nil || f.Err.Error() != small.Err.Error() {
				t.Errorf("from its file it shows %v, want %v", f, small.Err)
			}
			if _, err := Play(again); err != nil {
				t.Errorf("it fails without the bug: %v", err)
			}
		})
	}
}

// TestWrittenDown: a scenario whose mishaps are written down is played as the one that drew them, to the last byte.
func TestWrittenDown(t *testing.T) {
	t.Parallel()
	for seed := uint64(3); seed <= 4; seed++ {
		drawn := Draw(FuzzConfig(seed))
		w := newWorld(drawn)
		r, err := play(w)
		if err != nil {
			t.Fatal(err)
		}
		written := drawn.clone()
		written.Mishaps = &w.luck.struck
		file, errFile := written.Encode()
		read, errRead := ReadScenario(bytes.NewReader(file))
		if errFile != nil || errRead != nil {
			t.Fatal(errFile, errRead)
		}
		again, errPlay := Play(read)
		if errPlay != nil {
			t.Fatal(errPlay)
		}
		if got, want := text(t, again), text(t, r); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// TestPanicIsAFailure: a panic of the scheduler ends the run as any broken rule does.
func TestPanicIsAFailure(t *testing.T) {
	t.Parallel()
	_, f := fuzz(Draw(FuzzConfig(1)), func(sc *Scenario) *world {
		w := newWorld(sc)
		w.tamper = func(cluster.Command) cluster.Command { panic("boom") }
		return w
	})
	if f == nil || !strings.Contains(f.Err.Error(), "panic: boom") {
		t.Errorf("got %v", f)
	}
}

// TestReadScenario: what is wrong with a file is told with its place.
func TestReadScenario(t *testing.T) {
	t.Parallel()
	good, err := Draw(FuzzConfig(1)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, bad, want string }{
		{`"gangline_scenario": 1`, `"gangline_scenario": 9`, "9 is not a format"},
		{`"seed": 1`, `"sede": 1`, `unknown field "sede"`},
		{`"seed": 1`, `"seed": {}`, "line 3, column"},
		{`"servers":`, `"servers":9`, "servers"},
		{`"node":1,`, `"node":-1,`, "node -1"},
	} {
		bad := strings.Replace(string(good), c.old, c.bad, 1)
		if _, err := ReadScenario(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want it to say %q", c.bad, err, c.want)
		}
	}
	sc, err := ReadScenario(bytes.NewReader(good))
	if err != nil || !slices.Equal(sc.Machines, Draw(FuzzConfig(1)).Machines) {
		t.Errorf("a good file is refused: %v", err)
	}
}
