package fleet

import (
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestConsolidated: only the rest of a gang that is on a node already goes elsewhere than by best fit.
func TestConsolidated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		score cluster.ScoreName
		gpus  int32
		want  string
	}{
		{cluster.ScoreBestFit, 2, "d:2"},
		{cluster.ScoreConsolidated, 2, "d:2"},
		{cluster.ScoreBestFit, 10, "b:8 d:2"},
		{cluster.ScoreConsolidated, 10, "b:8 c:2"},
		{cluster.ScoreConsolidated, 18, "b:8 c:8 a:2"},
	} {
		f := New(c.score, nil)
		for _, line := range []string{"a 3", "b 8", "c 8", "d 2"} {
			f.Put(node8(t, line))
		}
		sh := f.Shape(&cluster.JobSpec{GPUs: c.gpus})
		if got := show(f.Place(sh, sh.GPUs, &Query{})); got != c.want {
			t.Errorf("%s, %d GPUs: got %q, want %q", c.score, c.gpus, got, c.want)
		}
	}
}
