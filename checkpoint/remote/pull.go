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
// there already is left. A missing one gives checkpoint.ErrNone. Other errors: those of Store.Receive.
func Pull(ctx context.Context, b Bucket, s *checkpoint.Store, job string, ref checkpoint.Ref) (checkpoint.Manifest, error) {
	prefix := prefixOf(job, ref)
	manifest, err := readAll(ctx, b, prefix+manifestName)
	if errors.Is(err, ErrNotFound) {
		return checkpoint.Manifest{}, fmt.Errorf("pull %s of %s: %w", ref, job, checkpoint.ErrNone)
	}
	if err != nil {
		return checkpoint.Manifest{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	m, err := checkpoint.ParseManifest(manifest)
	if err == nil && m.Ref() != ref {
		err = fmt.Errorf("its manifest is of %s", m.Ref())
	}
	if err != nil {
		return checkpoint.Manifest{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	return s.Receive(ctx, manifest, func(ctx context.Context, name string, at int64, dst []byte) error {
		return b.Read(ctx, prefix+name, at, dst)
	})
}

// Remove removes a checkpoint from the bucket: its manifest first, so that no Pull sees half of it. A missing one is no error.
func Remove(ctx context.Context, b Bucket, job string, ref checkpoint.Ref) error {
	prefix := prefixOf(job, ref)
	if err := b.Remove(ctx, []string{prefix + manifestName}); err != nil {
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	objects, err := b.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	names := make([]string, 0, len(objects))
	for _, o := range objects {
		names = append(names, o.Name)
	}
	if err := b.Remove(ctx, names); err != nil {
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	return nil
}
