package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"
)

const (
	// partsAtOnce is how many parts of one object are under way: enough for a 10 Gbit link at 20 ms.
	partsAtOnce = 4
	// tries is how often a part is sent, and retries how often the client repeats each request, with growing waits: about 2 s in all where a server
	// is down. Who pushes or starts a job tries again later, and says meanwhile what is wrong.
	tries   = 3
	retries = 5
	// defaultEndpoint is Amazon's.
	defaultEndpoint = "https://s3.amazonaws.com"
)

// S3 is a bucket of an S3 server, below a prefix.
type S3 struct {
	core   *minio.Core
	bucket string
	prefix string
}

// OpenS3 gives the bucket that an address such as s3://bucket/some/prefix names. endpoint is the server's URL; empty: AWS_ENDPOINT_URL, else Amazon's.
// Credentials come from where AWS's own tools look: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, the
// machine's role. The region is AWS_REGION. It connects to nothing yet.
func OpenS3(address, endpoint string) (*S3, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.RawQuery != "" {
		return nil, fmt.Errorf("%q is not like s3://bucket/prefix", address)
	}
	if endpoint == "" {
		endpoint = os.Getenv("AWS_ENDPOINT_URL")
	}
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	server, err := url.Parse(endpoint)
	if err != nil || server.Host == "" || server.Scheme != "http" && server.Scheme != "https" || strings.Trim(server.Path, "/") != "" {
		return nil, fmt.Errorf("endpoint %q is not like https://s3.example.org:9000", endpoint)
	}
	core, err := minio.NewCore(server.Host, &minio.Options{
		Secure: server.Scheme == "https", Region: os.Getenv("AWS_REGION"), MaxRetries: retries,
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Client: http.DefaultClient},
		}),
	})
	if err != nil {
		return nil, err
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	return &S3{core: core, bucket: u.Host, prefix: prefix}, nil
}

// Upload stores an object: a small one at once, a large one in parts, several under way.
func (b *S3) Upload(ctx context.Context, name string, parts int, partBytes int64, part func(context.Context, int, []byte) ([]byte, error)) error {
	key := b.prefix + name
	if parts == 1 {
		data, err := part(ctx, 0, make([]byte, partBytes))
		if err != nil {
			return err
		}
		_, err = b.core.PutObject(ctx, b.bucket, key, bytes.NewReader(data), int64(len(data)), "", "", minio.PutObjectOptions{})
		return explain(key, err)
	}
	id, err := b.core.NewMultipartUpload(ctx, b.bucket, key, minio.PutObjectOptions{})
	if err != nil {
		return explain(key, err)
	}
	done := make([]minio.CompletePart, parts)
	group, gctx := errgroup.WithContext(ctx)
	bufs := make(chan []byte, partsAtOnce)
	for range min(partsAtOnce, parts) {
		bufs <- make([]byte, partBytes)
	}
	group.SetLimit(partsAtOnce)
	for i := range parts {
		group.Go(func() error {
			buf := <-bufs
			defer func() { bufs <- buf }()
			data, err := part(gctx, i, buf)
			if err != nil {
				return err
			}
			done[i], err = b.putPart(gctx, key, id, i+1, data)
			return err
		})
	}
	err = group.Wait()
	if err == nil {
		_, err = b.core.CompleteMultipartUpload(ctx, b.bucket, key, id, done, minio.PutObjectOptions{})
	}
	if err != nil {
		// Parts of uploads that nobody ends cost money; the caller's context may be over.
		return errors.Join(explain(key, err), explain(key, b.core.AbortMultipartUpload(context.WithoutCancel(ctx), b.bucket, key, id)))
	}
	return nil
}

// putPart sends one part, again if that fails.
func (b *S3) putPart(ctx context.Context, key, id string, number int, data []byte) (minio.CompletePart, error) {
	var err error
	for range tries {
		var p minio.ObjectPart
		p, err = b.core.PutObjectPart(ctx, b.bucket, key, id, number, bytes.NewReader(data), int64(len(data)), minio.PutObjectPartOptions{})
		if err == nil {
			return minio.CompletePart{PartNumber: number, ETag: p.ETag}, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return minio.CompletePart{}, explain(fmt.Sprintf("%s part %d", key, number), err)
}

// PutNew stores a small object under the condition that there is none of that name.
func (b *S3) PutNew(ctx context.Context, name string, data []byte) error {
	key := b.prefix + name
	opts := minio.PutObjectOptions{}
	opts.SetMatchETagExcept("*") // If-None-Match
	_, err := b.core.PutObject(ctx, b.bucket, key, bytes.NewReader(data), int64(len(data)), "", "", opts)
	return explain(key, err)
}

// Read fills dst from a place on, again from where it stopped if the connection breaks.
func (b *S3) Read(ctx context.Context, name string, at int64, dst []byte) error {
	key := b.prefix + name
	if len(dst) == 0 {
		return nil
	}
	var err error
	for range tries {
		opts := minio.GetObjectOptions{}
		if err := opts.SetRange(at, at+int64(len(dst))-1); err != nil {
			return err
		}
		var body io.ReadCloser
		if body, _, _, err = b.core.GetObject(ctx, b.bucket, key, opts); err == nil {
			var n int
			n, err = io.ReadFull(body, dst)
			err = errors.Join(err, body.Close())
			if err == nil {
				return nil
			}
			dst, at = dst[n:], at+int64(n)
		}
		if ctx.Err() != nil || minio.ToErrorResponse(err).Code == minio.NoSuchKey {
			break
		}
	}
	return explain(key, err)
}

// List gives the objects whose names begin so.
func (b *S3) List(ctx context.Context, prefix string) ([]Object, error) {
	var out []Object
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing if it is left early
	for o := range b.core.Client.ListObjects(ctx, b.bucket, minio.ListObjectsOptions{Prefix: b.prefix + prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, explain(b.prefix+prefix, o.Err)
		}
		out = append(out, Object{Name: strings.TrimPrefix(o.Key, b.prefix), Bytes: o.Size})
	}
	return out, nil
}

// Remove removes objects, one after the other: a checkpoint has few, and some servers know no other way.
func (b *S3) Remove(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := b.core.RemoveObject(ctx, b.bucket, b.prefix+name, minio.RemoveObjectOptions{}); err != nil {
			return explain(b.prefix+name, err)
		}
	}
	return nil
}

// EndUploads ends uploads in parts below a prefix that were begun before a time and never completed: their parts cost money, and nobody sees them. Where the
// server does not list them, or not with these keys, the bucket's own life-cycle rules have to.
func (b *S3) EndUploads(ctx context.Context, prefix string, before time.Time) error {
	key, id := "", ""
	for {
		found, err := b.core.ListMultipartUploads(ctx, b.bucket, b.prefix+prefix, key, id, "", 1000)
		if resp := minio.ToErrorResponse(err); err != nil && (resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusNotImplemented) {
			return nil
		}
		if err != nil {
			return explain(b.prefix+prefix, err)
		}
		for _, u := range found.Uploads {
			if !u.Initiated.Before(before) {
				continue
			}
			if err := b.core.AbortMultipartUpload(ctx, b.bucket, u.Key, u.UploadID); err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
				return explain(u.Key, err)
			}
		}
		if !found.IsTruncated {
			return nil
		}
		key, id = found.NextKeyMarker, found.NextUploadIDMarker
	}
}

// explain names the object, and turns the server's words into our errors.
func explain(key string, err error) error {
	if err == nil {
		return nil
	}
	resp := minio.ToErrorResponse(err)
	switch {
	case resp.StatusCode == http.StatusPreconditionFailed || resp.Code == minio.PreconditionFailed:
		return fmt.Errorf("%s: %w", key, ErrExists)
	case resp.Code == minio.NoSuchKey:
		return fmt.Errorf("%s: %w", key, ErrNotFound)
	case resp.Code == minio.NoSuchBucket:
		return fmt.Errorf("%s: the bucket is not there: make it first: %w", key, err)
	case resp.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%s: the server refuses: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: %w", key, err)
	}
	return fmt.Errorf("%s: %w", key, err)
}
