package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint/remote/s3test"
)

// TestVerbsOnABucket uses a job's copies in a real S3 server as a directory. It is not parallel, for the keys are in the environment.
func TestVerbsOnABucket(t *testing.T) {
	server := s3test.Start(t)
	s3test.Env(t)
	t.Setenv("AWS_ENDPOINT_URL", server.Endpoint)
	dir := filepath.Join(t.TempDir(), "job-17")
	bucket := "s3://" + s3test.Bucket + "/a"
	must := func(args ...string) string {
		t.Helper()
		r := runCLI(append([]string{"checkpoint"}, args...)...)
		if r.code != 0 {
			t.Fatalf("%v: %d, %s", args, r.code, r.err)
		}
		return r.out
	}
	for _, step := range []string{"1", "2", "3", "4"} {
		tmp := filepath.Join(dir, "tmp")
		if err := os.MkdirAll(tmp, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tmp, "model"), []byte("of step "+step), 0o600); err != nil {
			t.Fatal(err)
		}
		must("commit", tmp, "--dir", dir, "--step", step, "--metric", "loss=0."+step)
		must("push", step, "--dir", dir, "--to", bucket)
	}
	copies := bucket + "/job-17"
	steps := func() string {
		t.Helper()
		var out []string
		for _, line := range strings.Split(strings.TrimSpace(must("ls", "--dir", copies)), "\n")[1:] {
			out = append(out, strings.Fields(line)[0])
		}
		return strings.Join(out, " ")
	}
	if got := steps(); got != "4 3 2 1" {
		t.Errorf("ls: %s", got)
	}
	if out := must("verify", "--all", "--dir", copies); strings.Count(out, "good") != 4 {
		t.Errorf("verify: %s", out)
	}
	to := filepath.Join(t.TempDir(), "out")
	must("export", "3", "--to", to, "--dir", copies)
	if b, err := os.ReadFile(filepath.Join(to, "model")); err != nil || string(b) != "of step 3" {
		t.Errorf("export: %q, %v", b, err)
	}
	must("pin", "2", "--dir", copies)
	must("gc", "--keep", "1", "--best", "loss:min", "--dir", copies)
	if got := steps(); got != "4 2 1" {
		t.Errorf("after gc: %s", got)
	}
	for _, step := range []string{"4", "2"} { // the newest, and a pinned one
		if r := runCLI("checkpoint", "rm", step, "--dir", copies); r.code != exitRefused {
			t.Errorf("rm %s: %d, %s", step, r.code, r.err)
		}
	}
	must("rm", "2", "--force", "--dir", copies)
	if got := steps(); got != "4 1" {
		t.Errorf("after rm: %s", got)
	}
	file := filepath.Join(server.Root, s3test.Bucket, "a/job-17/step-0000000004.epoch-1/model")
	if err := os.WriteFile(file, []byte("of step 5"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := runCLI("checkpoint", "verify", "--dir", copies); r.code != 1 || !strings.Contains(r.out, "is corrupt") {
		t.Errorf("verify of a damaged copy: %d, %s", r.code, r.out)
	}
	if r := runCLI("checkpoint", "import", "x", "--dir", copies); r.code != exitUsage {
		t.Errorf("import into a bucket: %d, %s", r.code, r.err)
	}
}
