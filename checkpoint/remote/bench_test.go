package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
	"github.com/gangline/gangline/checkpoint/remote/s3test"
)

// BenchmarkCopies pushes 256 MiB to a real server and pulls them back, against minio-go's own PutObject and FGetObject of the same bytes in the same run.
func BenchmarkCopies(b *testing.B) {
	endpoint := s3test.Start(b).Endpoint
	s3test.Env(b)
	bucket, err := remote.OpenS3("s3://checkpoints/bench", endpoint)
	if err != nil {
		b.Fatal(err)
	}
	fsys, err := checkpoint.NewDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s, err := checkpoint.Open(checkpoint.Config{FS: fsys, Job: "job-9"})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Fence(b.Context(), 1); err != nil {
		b.Fatal(err)
	}
	w := make([]float32, 64<<20)
	for i := range w {
		w[i] = float32(i)
	}
	for rank := range 2 {
		if _, err := s.WriteShard(b.Context(), checkpoint.ShardWrite{Epoch: 1, Step: 1, Rank: rank, WorldSize: 2, Tensors: []checkpoint.Tensor{checkpoint.Share("w", w, rank, 2)}}); err != nil {
			b.Fatal(err)
		}
	}
	m, err := s.Commit(b.Context(), checkpoint.CommitRequest{Epoch: 1, Step: 1, WorldSize: 2})
	if err != nil {
		b.Fatal(err)
	}
	raw := make([]byte, m.Bytes())
	client, err := plainClient(endpoint)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("push/ours", func(b *testing.B) {
		b.SetBytes(m.Bytes())
		for b.Loop() {
			if err := remote.Push(b.Context(), bucket, s, m); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := remote.Remove(b.Context(), bucket, "job-9", m.Ref(), false); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	n := 0
	b.Run("push/native", func(b *testing.B) {
		b.SetBytes(m.Bytes())
		for b.Loop() {
			n++
			if err := plainPut(b.Context(), client, fmt.Sprintf("raw-%d", n), bytes.NewReader(raw), int64(len(raw))); err != nil {
				b.Fatal(err)
			}
		}
	})
	if n == 0 { // only pulls are asked for
		if err := plainPut(b.Context(), client, "raw-0", bytes.NewReader(raw), int64(len(raw))); err != nil {
			b.Fatal(err)
		}
	}
	pullBench(b, bucket, s, m, client, fmt.Sprintf("raw-%d", n))
}

// pullBench pulls what lies there, and has the server's own client fetch the same number of bytes to the same disk, durably too.
func pullBench(b *testing.B, bucket remote.Bucket, s *checkpoint.Store, m checkpoint.Manifest, client *minio.Client, object string) {
	if err := remote.Push(b.Context(), bucket, s, m); err != nil {
		b.Fatal(err)
	}
	b.Run("pull/ours", func(b *testing.B) {
		b.SetBytes(m.Bytes())
		for b.Loop() {
			fsys, err := checkpoint.NewDir(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			to, err := checkpoint.Open(checkpoint.Config{FS: fsys, Job: "job-9"})
			if err == nil {
				_, err = remote.Pull(b.Context(), bucket, to, "job-9", m.Ref())
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("pull/native", func(b *testing.B) {
		b.SetBytes(m.Bytes())
		for b.Loop() {
			to := filepath.Join(b.TempDir(), "raw")
			err := client.FGetObject(b.Context(), "checkpoints", object, to, minio.GetObjectOptions{})
			if err == nil {
				err = syncFile(to)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// plainClient is the server's own kind of client, as people use it.
func plainClient(endpoint string) (*minio.Client, error) {
	return minio.New(strings.TrimPrefix(endpoint, "http://"), &minio.Options{Creds: credentials.NewStaticV4(s3test.Access, s3test.Secret, ""), Region: "us-east-1"})
}

func plainPut(ctx context.Context, c *minio.Client, name string, r io.Reader, n int64) error {
	_, err := c.PutObject(ctx, "checkpoints", name, r, n, minio.PutObjectOptions{PartSize: 16 << 20, NumThreads: 4})
	return err
}
