package nodeagent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint/remote"
	"github.com/gangline/gangline/checkpoint/remote/s3test"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// stored is an agent whose copies go to a real S3 server, and a job that saves 40 MiB, which is three parts, in each epoch.
type stored struct {
	*running
	s     *scheduler
	cfg   Config
	index uint64
}

// saveLarge prints the sum of what it resumes from, saves anew, prints the sum of that, and waits to be let go.
const saveLarge = `cd "$GANGLINE_CHECKPOINT_DIR"; rm -f stop
test -z "$GANGLINE_RESUME_FROM" || echo "from $(cksum <"$GANGLINE_RESUME_FROM/model")"
mkdir tmp; head -c 41943040 /dev/urandom >tmp/model; echo "to $(cksum <tmp/model)"; mv tmp step-$GANGLINE_EPOCH
while ! test -e stop; do sleep 0.02; done`

// newStored starts one, with its S3 at an endpoint and an address.
func newStored(t *testing.T, endpoint, address string) *stored {
	t.Helper()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.CheckpointRoot, cfg.CheckpointRemote, cfg.CheckpointEndpoint = t.TempDir(), address, endpoint
	return &stored{running: start(t, cfg), s: s, cfg: cfg, index: 9}
}

// begin starts an epoch of the job; resume is the checkpoint that the scheduler knows of.
func (r *stored) begin(epoch uint64, resume string) {
	r.t.Helper()
	as := r.script(7, epoch, saveLarge)
	as.ResumeFrom, as.Checkpoints, as.CheckpointKeep = resume, &agentv1.CheckpointPolicy{PushNth: 1}, 1
	r.index++
	r.s.order(1, r.index, as)
}

// finish lets the job go and gives what it printed.
func (r *stored) finish(epoch uint64) string {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.jobDir(), "stop"), nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	key := fmt.Sprintf("7-%d-0", epoch)
	r.s.awaitWorker(key, isExited)
	return r.output(key, nil)
}

func (r *stored) jobDir() string { return filepath.Join(r.cfg.CheckpointRoot, "job-7") }

// saved waits until the epoch's checkpoint is told, copied says for its copy too.
func (r *stored) saved(epoch uint64, copied bool) {
	r.t.Helper()
	r.s.await(fmt.Sprintf("the checkpoint of epoch %d, copied: %t", epoch, copied), func() bool {
		c := r.s.find(fmt.Sprintf("7-%d-0", epoch)).GetCheckpoint()
		return c.GetStep() == int64(epoch) && (!copied || c.GetRemoteStep() == int64(epoch)) //nolint:gosec // small
	})
}

// lose removes all that the shared storage has of the job.
func (r *stored) lose() {
	r.t.Helper()
	if err := os.RemoveAll(r.jobDir()); err != nil {
		r.t.Fatal(err)
	}
}

// wantResumed checks that an epoch went on from what the one before saved.
func (r *stored) wantResumed(before, after string) {
	r.t.Helper()
	sum, ok := strings.CutPrefix(before[strings.LastIndex(before, "to "):], "to ")
	if !ok || !strings.HasPrefix(after, "from "+sum) {
		r.t.Errorf("one epoch printed %q, the next %q", before, after)
	}
}

// TestAgentsAndARealServer has agents copy to a real S3 server and start from it, and lets it fail in each way: it is one test, for the keys are in
// the process's environment.
func TestAgentsAndARealServer(t *testing.T) {
	server := s3test.Start(t)
	s3test.Env(t)
	t.Run("cut in the middle of a part", func(t *testing.T) {
		t.Parallel()
		link := server.Link()
		r := newStored(t, link.Endpoint, "s3://"+s3test.Bucket+"/cut")
		link.CutAfter(25 << 20)
		r.begin(1, "")
		r.saved(1, true)
		if link.Cuts() != 1 {
			t.Errorf("the link was cut %d times", link.Cuts())
		}
		first := r.finish(1)
		r.lose()
		r.begin(2, "/gone/step-0000000001.epoch-1")
		r.saved(2, true)
		r.wantResumed(first, r.finish(2))
		contains(t, r.log.String(), "the shared storage held no checkpoint: one was brought from the object store")
		r.awaitLog("older copies are removed from the object store")
		b, err := remote.OpenS3("s3://"+s3test.Bucket+"/cut", server.Endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if objects, err := b.List(t.Context(), ""); err != nil || len(objects) != 2 { // the newest copy's file and manifest
			t.Errorf("left in the bucket: %v, %v", objects, err)
		}
	})
	t.Run("killed in the middle of a part", killedServer)
	t.Run("wrong keys", func(t *testing.T) {
		r := newStored(t, server.Endpoint, "s3://"+s3test.Bucket+"/keys")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "another")
		r.refused("check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	})
	t.Run("no bucket", func(t *testing.T) {
		newStored(t, server.Endpoint, "s3://nowhere/x").refused("the bucket is not there: make it first")
	})
}

// killedServer has the server die while it takes a part, and stay away for a while: the job trains on, its start from an empty storage waits, and
// all is as it should be once the server is back.
func killedServer(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	link := server.Link()
	r := newStored(t, link.Endpoint, "s3://"+s3test.Bucket+"/killed")
	link.CutAfter(25 << 20)
	r.begin(1, "")
	r.s.await("the cut", func() bool { return link.Cuts() == 1 })
	server.Kill()
	r.saved(1, false)
	r.awaitLog("a checkpoint is not copied to the object store yet")
	server.Restart()
	r.saved(1, true)
	first := r.finish(1)
	r.lose()
	server.Kill()
	r.begin(2, "/gone/step-0000000001.epoch-1")
	failed := r.s.awaitWorker("7-2-0", isExited)
	contains(t, failed.GetMessage(), "the shared storage holds no checkpoint, and the object store gives none")
	server.Restart()
	r.begin(3, "/gone/step-0000000001.epoch-1")
	r.saved(3, true)
	r.wantResumed(first, r.finish(3))
}

// refused has a store refuse all: the job saves and trains on, the log says what to do, and a start that needs a copy does not begin from nothing.
func (r *stored) refused(words string) {
	r.t.Helper()
	r.begin(1, "")
	r.saved(1, false)
	r.awaitLog("a checkpoint is not copied to the object store yet")
	contains(r.t, r.log.String(), words)
	r.finish(1)
	r.lose()
	r.begin(2, "/gone/step-0000000001.epoch-1")
	failed := r.s.awaitWorker("7-2-0", isExited)
	contains(r.t, failed.GetMessage(), "the object store gives none", words)
}
