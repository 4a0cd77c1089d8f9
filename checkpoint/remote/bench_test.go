package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
	"github.com/gangline/gangline/checkpoint/remote/s3test"
)

// BenchmarkPush pushes 256 MiB to a real server, against minio-go's own PutObject of the same bytes in the same run.
func BenchmarkPush(b *testing.B) {
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
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(m.Bytes())
		for b.Loop() {
			if err := remote.Push(b.Context(), bucket, s, m); err != nil {
				b.Fatal(err)
			}
			if err := remote.Remove(b.Context(), bucket, "job-9", m.Ref(), false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("native", func(b *testing.B) {
		b.SetBytes(m.Bytes())
		n := 0
		for b.Loop() {
			n++
			if err := plainPut(b.Context(), client, fmt.Sprintf("raw-%d", n), bytes.NewReader(raw), int64(len(raw))); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// plainClient is the server's own kind of client, as people use it.
func plainClient(endpoint string) (*minio.Client, error) {
	return minio.New(strings.TrimPrefix(endpoint, "http://"), &minio.Options{Creds: credentials.NewStaticV4(s3test.Access, s3test.Secret, ""), Region: "us-east-1"})
}

func plainPut(ctx context.Context, c *minio.Client, name string, r io.Reader, n int64) error {
	_, err := c.PutObject(ctx, "checkpoints", name, r, n, minio.PutObjectOptions{PartSize: 16 << 20, NumThreads: 4})
	return err
}
