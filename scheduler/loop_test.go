package scheduler

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/replica"
)

// gang is the start of a job with one worker on each of n GPUs, 8 on a node,
// with ids of the given length.
func gang(n, idBytes int) *cluster.StartJob {
	start := &cluster.StartJob{Job: 1, Epoch: 1}
	for r := range n {
		start.Workers = append(start.Workers, cluster.Placement{
			Rank: cluster.Rank(r), Node: cluster.NodeID(fmt.Sprintf("%0*d", idBytes, r/8)),
			GPUs: []string{fmt.Sprintf("GPU-%0*d", idBytes, r)},
		})
	}
	return start
}

// TestOversizedGang: the largest gang fits into a log entry, and one whose ids
// make it too large gets a reason instead of holding up the other commands.
func TestOversizedGang(t *testing.T) {
	t.Parallel()
	usual, long := gang(cluster.MaxGPUs, 36), gang(cluster.MaxGPUs, 100)
	back, err := cluster.DecodeCommand(cluster.AppendCommand(nil, usual), cluster.Version)
	if diff := cmp.Diff(cluster.Command(usual), back); err != nil || diff != "" {
		t.Fatalf("a gang's start is read back otherwise: %v\n%s", err, diff)
	}
	evict := &cluster.EvictJob{Job: 2}
	cmds := []cluster.Command{usual, long, evict}
	explainOversized(cmds)
	explain, ok := cmds[1].(*cluster.ExplainJob)
	if !ok || explain.Job != 1 || !strings.Contains(explain.Reason, "log entry") {
		t.Errorf("the oversized start became %T %+v", cmds[1], explain)
	}
	if cmds[0] != cluster.Command(usual) || cmds[2] != cluster.Command(evict) {
		t.Error("other commands were replaced")
	}
	for _, c := range cmds {
		if n := len(cluster.AppendCommand(nil, c)); n > replica.MaxCommandBytes {
			t.Errorf("%T takes %d bytes, a log entry holds %d", c, n, replica.MaxCommandBytes)
		}
	}
}
