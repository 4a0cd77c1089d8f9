package replay

import (
	"math"
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// TestOpenb holds the scores to figures on the published trace openb: FGD with the mix known gives what its authors
// published for this order, and gangline, which learns the mix, allocates more without losing more of the largest pods.
func TestOpenb(t *testing.T) {
	t.Parallel()
	pods, err := trace.ReadOrder(traces(t, "openb_fgd_order_seed42.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	on, err := trace.ReadNodes(traces(t, "openb_nodes.csv"))
	if err != nil {
		t.Fatal(err)
	}
	place := func(score cluster.ScoreName, known bool) *PlaceReport {
		cfg := DefaultPlaceConfig()
		cfg.Score, cfg.Known = score, known
		r, err := Place(cfg, pods, on)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	fgd, ours := place(cluster.ScoreFGD, true), place(cluster.ScoreGangline, false)
	const published = 95.29
	if math.Abs(fgd.Allocated-published) > .25 {
		t.Errorf("fgd allocates %.2f %%, its authors' scheduler %.2f", fgd.Allocated, published)
	}
	if ours.Allocated < 96.2 || ours.Placed["8"] < fgd.Placed["8"] {
		t.Errorf("gangline allocates %.2f %% with %d 8-GPU pods: want 96.2 %% and the %d of fgd", ours.Allocated, ours.Placed["8"], fgd.Placed["8"])
	}
}
