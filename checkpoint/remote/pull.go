package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gangline/gangline/checkpoint"
)

// List gives a job's complete checkpoints in the bucket, the one that a resume prefers first.
func List(ctx context.Context, b Bucket, job string) ([]checkpoint.Ref, error) {
	objects, err := b.List(ctx, job+"/")
	if err != nil {
		return nil, fmt.Errorf("list checkpoints of %s: %w", job, err)
	}
	var refs []checkpoint.Ref
	for _, o := range objects {
		dir, ok := strings.CutSuffix(strings.TrimPrefix(o.Name, job+"/"), "/"+manifestName)
		if ref, err := checkpoint.ParseRef(dir); ok && err == nil {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b checkpoint.Ref) int { return b.Compare(a) })
	return refs, nil
}

// Pull brings a checkpoint from the bucket into the store's directory, every chunk verified, where it is complete when Pull returns; one that is
// there already is left. A missing one gives checkpoint.ErrNone. Other errors: those of Store.Receive; what lacks in the bucket counts as damage.
// It leases the copy, where it may write to the bucket.
func Pull(ctx context.Context, b Bucket, s *checkpoint.Store, job string, ref checkpoint.Ref) (checkpoint.Manifest, error) {
	var m checkpoint.Manifest
	release, err := Lease(ctx, b, job, ref)
	if errors.Is(err, ErrRemoving) {
		return m, fmt.Errorf("pull: %w: %w", checkpoint.ErrNone, err)
	}
	if err == nil {
		defer release() //nolint:errcheck // it runs out by itself
	} // else keys that may only read, or a bucket that does not answer: the next call says so
	prefix := prefixOf(job, ref)
	manifest, err := readAll(ctx, b, prefix+manifestName)
	if errors.Is(err, ErrNotFound) {
		return m, fmt.Errorf("pull %s of %s: %w", ref, job, checkpoint.ErrNone)
	}
	if err != nil {
		return m, fmt.Errorf("pull %s: %w", ref, err)
	}
	m, err = checkpoint.ParseManifest(manifest)
	if err == nil && m.Ref() != ref {
		err = fmt.Errorf("its manifest is of %s", m.Ref())
	}
	if err != nil {
		return checkpoint.Manifest{}, fmt.Errorf("pull %s: %w", ref, &checkpoint.CorruptError{Path: prefix + manifestName, Chunk: -1, Want: "its manifest", Got: err.Error()})
	}
	return s.Receive(ctx, manifest, func(ctx context.Context, name string, at int64, dst []byte) error {
		object := prefix + name
		if m.OfEarlier(name) {
			object = job + "/" + name
		}
		err := b.Read(ctx, object, at, dst)
		if errors.Is(err, ErrNotFound) {
			err = errors.Join(err, &checkpoint.CorruptError{Path: object, Chunk: -1, Want: "an object", Got: "none"})
		}
		return err
	})
}
