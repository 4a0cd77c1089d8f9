package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Fence begins an epoch: from now on, writers and commits of older epochs are refused with ErrFenced.
// Every rank, or its agent, calls it before it looks for the checkpoint to resume from. Calling it again with the same epoch
// changes nothing; with an older one than has begun it gives ErrFenced. Once it has returned,
// the complete checkpoints of older epochs can not become more (on storage whose renames all machines see at once;
// DESIGN.md says what holds on NFS).
func (s *Store) Fence(ctx context.Context, epoch uint64) error {
	if epoch == 0 {
		return fmt.Errorf("%w: begin epoch 0: a job's first epoch is 1", ErrInvalid)
	}
	if err := s.raise(ctx, epoch); err != nil {
		return err
	}
	if err := s.sealOlder(ctx, epoch); err != nil {
		return fmt.Errorf("begin epoch %d: %w", epoch, err)
	}
	return s.dropLowerMarks(epoch)
}

// Epoch gives the highest epoch that has begun, 0 if none has.
func (s *Store) Epoch(ctx context.Context) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	marks, err := s.marks()
	if err != nil {
		return 0, err
	}
	highest := uint64(0)
	for _, m := range marks {
		highest = max(highest, m)
	}
	return highest, nil
}

// raise puts the epoch's mark and makes it durable. A mark is an empty file with the epoch in its name, and the
// highest one counts: two epochs that begin at the same time can not overwrite each other's, as they could one
// file's content.
func (s *Store) raise(ctx context.Context, epoch uint64) error {
	if err := s.notOlder(ctx, epoch, "begin"); err != nil {
		return err
	}
	if err := s.fs.Mkdir(fenceDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return wrapWrite(fenceDir, 0, err)
	}
	if err := s.fs.SyncDir("."); err != nil {
		return fmt.Errorf("begin epoch %d: %w", epoch, err)
	}
	name := fmt.Sprintf("%s/%s%d", fenceDir, fencePrefix, epoch)
	f, err := s.fs.Create(name, false)
	if err != nil {
		return wrapWrite(name, 0, err)
	}
	if err := errors.Join(f.Sync(), f.Close(), s.fs.SyncDir(fenceDir)); err != nil {
		return wrapWrite(name, 0, err)
	}
	return s.notOlder(ctx, epoch, "begin")
}

// marks lists the epochs that have a mark.
func (s *Store) marks() ([]uint64, error) {
	entries, err := s.fs.ReadDir(fenceDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the epoch fence: %w", err)
	}
	var marks []uint64
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name, fencePrefix)
		if n, err := strconv.ParseUint(digits, 10, 64); ok && err == nil {
			marks = append(marks, n)
		}
	}
	return marks, nil
}

// dropLowerMarks removes marks that the epoch's own has made needless.
func (s *Store) dropLowerMarks(epoch uint64) error {
	marks, err := s.marks()
	if err != nil {
		return err
	}
	for _, m := range marks {
		if m >= epoch {
			continue
		}
		name := fmt.Sprintf("%s/%s%d", fenceDir, fencePrefix, m)
		if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("begin epoch %d: remove mark of epoch %d: %w", epoch, m, err)
		}
	}
	return nil
}

// notOlder refuses an epoch that a newer one has fenced off.
func (s *Store) notOlder(ctx context.Context, epoch uint64, what string) error {
	now, err := s.Epoch(ctx)
	if err != nil {
		return err
	}
	if now > epoch {
		return fmt.Errorf("%s: epoch %d is over, epoch %d of the job has begun: this process must exit: %w", what, epoch, now, ErrFenced)
	}
	return nil
}

// current refuses any epoch but the highest that has begun.
func (s *Store) current(ctx context.Context, epoch uint64, what string) error {
	if err := s.notOlder(ctx, epoch, what); err != nil {
		return err
	}
	now, err := s.Epoch(ctx)
	if err != nil {
		return err
	}
	if now < epoch {
		return fmt.Errorf("%s: epoch %d, but the highest begun is %d: call Fence first: %w", what, epoch, now, ErrNotBegun)
	}
	return nil
}

// sealOlder moves away the directories of older epochs that are not complete, so that a commit which passed its
// check before the fence rose finds no directory to rename its manifest in.
func (s *Store) sealOlder(ctx context.Context, epoch uint64) error {
	found, _, err := s.folders()
	if err != nil {
		return err
	}
	moved := false
	for _, f := range found {
		if f.ref.Epoch >= epoch || f.complete || f.sealed {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := s.seal(f); err != nil {
			return err
		}
		moved = true
	}
	if !moved {
		return nil
	}
	return s.fs.SyncDir(".")
}

// seal moves an incomplete directory away and says where it is now; the name is empty if it is gone, or turned out to
// be complete and stays. A directory of the same name may have been sealed before: then a late rank has made
// this one anew after the fence rose, and nothing can commit in it.
func (s *Store) seal(f folder) (string, error) {
	if f.sealed {
		return f.name, nil
	}
	to := f.ref.String() + sealedSuffix
	err := s.fs.Rename(f.name, to)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		if taken, _ := s.fs.ReadDir(to); taken != nil {
			return f.name, nil
		}
		return "", fmt.Errorf("seal %s: %w", f.name, err)
	}
	complete, err := s.exists(to + "/" + manifestName)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", f.name, err)
	}
	if !complete {
		return to, nil
	}
	// It was committed between our listing and the move. A reader finds it under either name.
	if err := s.fs.Rename(to, f.name); err != nil {
		return "", fmt.Errorf("unseal %s: %w", f.name, err)
	}
	return "", nil
}
