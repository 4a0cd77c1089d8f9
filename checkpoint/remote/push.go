package remote

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/checkpoint"
)

const (
	manifestName = "MANIFEST.json"
	// minPart is the size of a part of an upload: S3 asks for 5 MiB at least, and each costs a round trip.
	minPart = 16 << 20
	// maxParts is how many parts S3 allows.
	maxParts = 10_000
	// filesAtOnce is how many files are uploaded at the same time; each has several parts under way.
	filesAtOnce = 2
)

// prefixOf is where a checkpoint's objects lie.
func prefixOf(job string, ref checkpoint.Ref) string { return job + "/" + ref.String() + "/" }

// Push copies a complete checkpoint to the bucket, verified on the way. Files of earlier checkpoints that it refers to go where those have
// them, JOB/EARLIER/FILE, once for all that refer to them. The manifest comes last: a Push that was cut short leaves objects that
// no Pull sees, and the next one replaces them. One that is there already, with the same manifest, is no error; with
// another, ErrExists: a checkpoint never changes. Other errors: *checkpoint.CorruptError, the bucket's, the context's.
//
// It leases the copy and those that it refers to: what it uploads, and what it finds there, is not removed meanwhile. ErrRemoving says that one of
// them is just being removed: try again.
func Push(ctx context.Context, b Bucket, s *checkpoint.Store, m checkpoint.Manifest) error {
	release, err := Lease(ctx, b, m.Job, append(m.Refs(), m.Ref())...)
	if err != nil {
		return fmt.Errorf("push %s: %w", m.Ref(), err)
	}
	err = push(ctx, b, s, m)
	if rerr := release(); err != nil {
		err = errors.Join(err, rerr)
	} // else it runs out by itself, and the copy is made
	return err
}

func push(ctx context.Context, b Bucket, s *checkpoint.Store, m checkpoint.Manifest) error {
	manifest, err := s.ManifestFile(&m)
	if err != nil {
		return err
	}
	prefix := prefixOf(m.Job, m.Ref())
	if there, err := readAll(ctx, b, prefix+manifestName); err == nil {
		return same(there, &m, prefix)
	} else if !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("push %s: %w", m.Ref(), err)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(filesAtOnce)
	for _, f := range m.FileNames() {
		if m.OfEarlier(f.Name) {
			group.Go(func() error { return pushEarlier(gctx, b, s, m, f) })
			continue
		}
		group.Go(func() error { return pushFile(gctx, b, s, m, f, prefix+f.Name) })
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return fmt.Errorf("push %s: %w", m.Ref(), err)
	}
	err = b.PutNew(ctx, prefix+manifestName, manifest)
	if errors.Is(err, ErrExists) { // somebody else, or a lost answer to our own try
		there, rerr := readAll(ctx, b, prefix+manifestName)
		if rerr != nil {
			return fmt.Errorf("push %s: %w", m.Ref(), rerr)
		}
		return same(there, &m, prefix)
	}
	if err != nil {
		return fmt.Errorf("push %s: commit: %w", m.Ref(), err)
	}
	return nil
}

// same says whether the manifest that is there is of the same checkpoint: the same but for the version of its envelope.
func same(there []byte, m *checkpoint.Manifest, prefix string) error {
	if err := checkpoint.SameManifest(there, m); err != nil {
		return fmt.Errorf("%s%s is there with other content: %w: give each job a prefix of its own: %w", prefix, manifestName, ErrExists, err)
	}
	return nil
}

// pushEarlier uploads a file of an earlier checkpoint, unless it is there. If that checkpoint is here, all of the file is verified, not only
// what this one refers to.
func pushEarlier(ctx context.Context, b Bucket, s *checkpoint.Store, m checkpoint.Manifest, f checkpoint.Entry) error {
	object := m.Job + "/" + f.Name
	there, err := b.List(ctx, object)
	if err != nil {
		return err
	}
	for _, o := range there {
		if o.Name == object && o.Bytes == f.Size {
			return nil
		}
	}
	dir, base := path.Split(f.Name)
	if ref, err := checkpoint.ParseRef(path.Clean(dir)); err == nil {
		if lender, err := s.Load(ctx, ref); err == nil {
			return pushFile(ctx, b, s, lender, checkpoint.Entry{Name: base, Size: f.Size}, object)
		}
	}
	return pushFile(ctx, b, s, m, f, object)
}

// pushFile uploads one file in parts of whole chunks.
func pushFile(ctx context.Context, b Bucket, s *checkpoint.Store, m checkpoint.Manifest, f checkpoint.Entry, object string) (err error) {
	file, err := s.OpenFile(m, f.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	chunk := file.ChunkBytes()
	chunks := max(1, (minPart+chunk-1)/chunk)
	for (f.Size+chunks*chunk-1)/(chunks*chunk) > maxParts {
		chunks *= 2
	}
	partBytes := chunks * chunk
	parts := int(max(1, (f.Size+partBytes-1)/partBytes)) // an empty file is one empty part
	return b.Upload(ctx, object, parts, partBytes, func(ctx context.Context, i int, buf []byte) ([]byte, error) {
		return file.ReadChunks(ctx, i*int(chunks), buf)
	})
}

// readAll reads a small object.
func readAll(ctx context.Context, b Bucket, name string) ([]byte, error) {
	dir, base := path.Split(name)
	objects, err := b.List(ctx, dir+base)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if o.Name != name {
			continue
		}
		if o.Bytes > checkpoint.MaxManifestBytes {
			return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed", name, o.Bytes, checkpoint.MaxManifestBytes)
		}
		data := make([]byte, o.Bytes)
		return data, b.Read(ctx, name, 0, data)
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
}
