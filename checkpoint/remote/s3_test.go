package remote_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
	"github.com/gangline/gangline/checkpoint/remote"
	"github.com/gangline/gangline/checkpoint/remote/s3test"
)

// TestAgainstAServer does all that a bucket is asked for with a real server: it is one test, for the environment is the process's.
func TestAgainstAServer(t *testing.T) {
	endpoint := s3test.Start(t).Endpoint
	s3test.Env(t)
	b, err := remote.OpenS3("s3://checkpoints/some/prefix", endpoint)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, b)
	t.Run("conditional put", func(t *testing.T) {
		for _, want := range []error{nil, remote.ErrExists} {
			if err := b.PutNew(t.Context(), "job-1/x", []byte("first")); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		got := make([]byte, 3)
		if err := b.Read(t.Context(), "job-1/x", 2, got); err != nil || string(got) != "rst" {
			t.Errorf("%q, %v", got, err)
		}
		if err := b.Read(t.Context(), "job-1/none", 0, got); !errors.Is(err, remote.ErrNotFound) {
			t.Errorf("a missing object: %v", err)
		}
	})
	t.Run("many parts", func(t *testing.T) {
		s, err := checkpoint.Open(checkpoint.Config{FS: faultfs.New(), Job: "job-9"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Fence(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		w := make([]float32, 10<<20) // 40 MiB: three parts, the last one short
		for i := range w {
			w[i] = float32(i)
		}
		if _, err := s.WriteShard(t.Context(), checkpoint.ShardWrite{Epoch: 1, Step: 1, WorldSize: 1, Tensors: []checkpoint.Tensor{checkpoint.Whole("w", w, int64(len(w)))}}); err != nil {
			t.Fatal(err)
		}
		m, err := s.Commit(t.Context(), checkpoint.CommitRequest{Epoch: 1, Step: 1, WorldSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Push(t.Context(), b, s, m); err != nil {
			t.Fatal(err)
		}
		back, err := checkpoint.Open(checkpoint.Config{FS: faultfs.New(), Job: "job-9"})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(w))
		m, err = remote.Pull(t.Context(), b, back, "job-9", m.Ref())
		if err == nil {
			err = back.ReadTensor(t.Context(), m, "w", got)
		}
		if err != nil || !slices.Equal(got, w) {
			t.Errorf("what came back is not what went: %v", err)
		}
	})
	t.Run("collect", func(t *testing.T) { collectOnAServer(t, endpoint) })
	t.Run("no bucket", func(t *testing.T) {
		b, err := remote.OpenS3("s3://nowhere/x", endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.PutNew(t.Context(), "a", nil); err == nil {
			t.Error("a bucket that is not there was written to")
		}
	})
}

// collectOnAServer removes old copies, and an upload in parts that nobody completed.
func collectOnAServer(t *testing.T, endpoint string) {
	b, err := remote.OpenS3("s3://checkpoints/collect", endpoint)
	if err != nil {
		t.Fatal(err)
	}
	s, ms := tuned(t, 4)
	for _, m := range ms {
		if err := remote.Push(t.Context(), b, s, m); err != nil {
			t.Fatal(err)
		}
	}
	c, err := plainClient(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	core := minio.Core{Client: c}
	if _, err := core.NewMultipartUpload(t.Context(), "checkpoints", "collect/job-7/step-0000000009.epoch-1/x", minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	uploads := func() int {
		t.Helper()
		found, err := core.ListMultipartUploads(t.Context(), "checkpoints", "collect/", "", "", "", 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(found.Uploads)
	}
	for i, want := range []int{1, 0} { // a young one may still be going on
		r := checkpoint.CollectRequest{Keep: 2, Now: time.Now().Add(time.Duration(i) * 25 * time.Hour)}
		if _, err := collect(t, b, r); err != nil || steps(t, b) != "4 3" || uploads() != want {
			t.Errorf("there are %s, and %d uploads, want %d; %v", steps(t, b), uploads(), want, err)
		}
	}
	if got := left(t, b); len(got) != 5 { // two shards, their manifests, and the shard of step 1 that both need
		t.Errorf("left are %v", got)
	}
	wantPulled(t, b, ms[3])
}
