package replay

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/gangline/gangline/sim/trace"
)

// TestPlaceStopped: a placement that is stopped says so and reports what had arrived; every arrival is told of.
func TestPlaceStopped(t *testing.T) {
	t.Parallel()
	pods := []trace.Job{pod(8, 1000, 8), pod(4, 1000, 8), pod(8, 1000, 1), pod(1, 1000, 0)}
	for _, load := range []float64{0, 0.5} {
		cfg := DefaultPlaceConfig()
		cfg.Departures = load
		told := []string{}
		cfg.Pod = func(_ *trace.Job, node string) error { told = append(told, node); return nil }
		calls := 0
		cfg.Progress = func(part float64) bool {
			if calls++; part < 0 || part > 2 {
				t.Errorf("part %g", part)
			}
			return calls < 3
		}
		r, err := Place(cfg, pods, machines())
		if err != nil {
			t.Fatal(err)
		}
		if !r.Partial || r.Pods != 3 || len(told) != 3 {
			t.Errorf("load %g: partial %v, %d arrived, told %q", load, r.Partial, r.Pods, told)
		}
		if load == 0 && strings.Join(told, ",") != "node0,node1," {
			t.Errorf("told %q", told)
		}
		var text bytes.Buffer
		if err := r.WriteText(&text, nil); err != nil || !strings.HasPrefix(text.String(), "PARTIAL") {
			t.Errorf("%v: %s", err, text.String())
		}
	}
	broken := errors.New("disk full")
	cfg := DefaultPlaceConfig()
	cfg.Pod = func(*trace.Job, string) error { return broken }
	if _, err := Place(cfg, pods, machines()); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}
