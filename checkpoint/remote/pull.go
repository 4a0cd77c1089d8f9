package remote

import (
	"context"
	"errors"
	"fmt"
	"path"
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
		if m.OfEarlier(name) {
			return b.Read(ctx, job+"/"+name, at, dst)
		}
		return b.Read(ctx, prefix+name, at, dst)
	})
}

// Remove removes a checkpoint from the bucket: its manifest first, so that no Pull sees half of it. A missing one is no error. Files that
// other checkpoints there refer to stay, until the last of those is removed. No Push of the job may run meanwhile: what it is about
// to refer to can not be seen.
func Remove(ctx context.Context, b Bucket, job string, ref checkpoint.Ref) error {
	if err := remove(ctx, b, job, ref); err != nil {
		return fmt.Errorf("remove %s of %s: %w", ref, job, err)
	}
	return nil
}

func remove(ctx context.Context, b Bucket, job string, ref checkpoint.Ref) error {
	name := prefixOf(job, ref) + manifestName
	gone := map[string]bool{prefixOf(job, ref): true} // prefixes whose files may go
	if data, err := readAll(ctx, b, name); err == nil {
		if m, err := checkpoint.ParseManifest(data); err == nil {
			for _, r := range m.Refs() {
				gone[prefixOf(job, r)] = true
			}
		}
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	if err := b.Remove(ctx, []string{name}); err != nil {
		return err
	}
	objects, err := b.List(ctx, job+"/")
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, o := range objects {
		dir, base := path.Split(o.Name)
		if base != manifestName {
			continue
		}
		delete(gone, dir)
		data, err := readAll(ctx, b, o.Name)
		if err != nil {
			return err
		}
		m, err := checkpoint.ParseManifest(data)
		if err != nil {
			return fmt.Errorf("what %s refers to can not be known, so no file is removed: %w", o.Name, err)
		}
		for _, f := range m.FileNames() {
			if m.OfEarlier(f.Name) {
				needed[job+"/"+f.Name] = true
			}
		}
	}
	var names []string
	for _, o := range objects {
		if below(o.Name, gone) && !needed[o.Name] {
			names = append(names, o.Name)
		}
	}
	return b.Remove(ctx, names)
}

// below says whether an object lies below one of the prefixes.
func below(name string, prefixes map[string]bool) bool {
	for p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
