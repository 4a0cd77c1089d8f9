package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gangline/gangline/checkpoint"
)

// damagedFile in a checkpoint's directory says that somebody has found damage in it.
const damagedFile = "damaged"

// resumeTensors has a whole copy made of the newest checkpoint of tensors of which all bytes verify, wherever they are. Where none can be made the ranks read the shared storage, and find the
// checkpoint by themselves: of the same ones, since the fence has made them final. What is found damaged there is marked, so that all nodes' next starts do so alike.
func (j *Job) resumeTensors(ctx context.Context, out *Resumed) error {
	store, err := j.openWithKeys(ctx, &keyring{})
	if err != nil {
		out.Far = append(out.Far, fmt.Errorf("no whole copy is made: %w", err))
		return nil // the ranks say what is wrong with the key
	}
	if err := store.Fence(ctx, j.Key.Epoch); err != nil {
		return err
	}
	refs, err := store.List(ctx)
	if err != nil {
		return err
	}
	var skipped []checkpoint.Skipped
	for _, ref := range refs {
		if _, err := os.Stat(filepath.Join(j.Dir, ref.String(), damagedFile)); err == nil {
			out.Far = append(out.Far, fmt.Errorf("no whole copy is made: damage has been found in %s, so the ranks look for what is good on the shared storage", ref))
			return nil
		}
		path, err := j.tensorsNear(ctx, store, ref)
		var damage *checkpoint.CorruptError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			out.Path, out.Skipped = path, skipped
			return nil
		case errors.Is(err, errFiles):
			return nil
		case !errors.As(err, &damage):
			out.Far = append(out.Far, fmt.Errorf("no whole copy is made of %s, the ranks read it where it is: %w", ref, err))
			return nil
		}
		store.Distrust(ref)
		skipped = append(skipped, checkpoint.Skipped{Ref: ref, Dir: ref.String(), Err: err})
	}
	out.Skipped = skipped // all that there are: the ranks fail, rather than start from nothing
	return nil
}

var errFiles = errors.New("a checkpoint of files")

func (j *Job) tensorsNear(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref) (string, error) {
	m, err := store.Load(ctx, ref)
	if err != nil {
		return "", err
	}
	if m.WorldSize == 0 {
		return "", errFiles
	}
	manifest, err := store.ManifestFile(&m)
	if err != nil {
		return "", err
	}
	files := opened{store: store, m: m, files: map[string]*openFile{}}
	defer files.closeIdle()
	return j.Near.Tensors(ctx, Tensors{Manifest: m, Bytes: manifest, Far: files.read, Verify: func(ctx context.Context) error { return store.Verify(ctx, m) }})
}
