package api

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// TestGangFormsAnew: of a gang that may shrink a rank is killed; the others meet again without it, at new addresses and with another secret, and a
// third time with the one that takes its place.
func TestGangFormsAnew(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		f.node("a", 3)
		id := f.submit(func(s *cluster.JobSpec) {
			s.GPUs, s.MinGPUs, s.Retries, s.OnFailure = 3, 2, 1, cluster.FailureShrinks
		})
		f.start(id, "a:0", "a:1", "a:2")
		a := f.agent(hello("a", 1))
		at := func(rank, least, met int32) *agentv1.WorkerStatus {
			w := runs(1, 1, rank)
			w.RendezvousAddress, w.RendezvousShare = fmt.Sprintf("h%d:%d", rank, max(least, met, 1)), []byte{byte(rank)} //nolint:gosec // small
			w.RendezvousLeast, w.RendezvousMet = least, met
			return w
		}
		told := func(formation int32, members, peers string) []byte {
			f.t.Helper()
			got := a.last().GetAssignments()[0]
			if got.GetFormation() != formation || fmt.Sprint(got.GetMembers()) != members || fmt.Sprint(got.GetPeers()) != peers || !got.GetShrinks() {
				f.t.Errorf("want formation %d of %s at %s, got %d of %v at %v", formation, members, peers, got.GetFormation(), got.GetMembers(), got.GetPeers())
			}
			return got.GetRingSecret()
		}
		a.report(at(0, 0, 0), at(1, 0, 0), at(2, 0, 0))
		first := told(1, "[0 1 2]", "[h0:1 h1:1 h2:1]")
		killed := proto.CloneOf(exited(1, 1, 1, 0))
		killed.Signal = 9
		a.report(at(0, 0, 1), killed, at(2, 0, 1))
		told(2, "[0 2]", "[]") // their addresses were for the first
		a.report(at(0, 2, 0), killed, at(2, 2, 0), at(3, 0, 0))
		// What takes the place had come already: it makes them three again before they are two.
		told(3, "[0 2 3]", "[h0:2 h2:2 h3:1]")
		a.report(at(0, 0, 3), killed, at(2, 0, 3), at(3, 0, 3))
		if again := told(3, "[0 2 3]", "[h0:3 h2:3 h3:3]"); string(again) == string(first) || len(again) != 32 {
			f.t.Errorf("secrets %x and %x", first, again)
		}
	})
}
