package ckptbench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
)

// blockBytes is the size of the disk's own reads and writes: that of a checkpoint's chunks.
const blockBytes = 4 << 20

func rawName(i int) string { return fmt.Sprintf("raw-%d", i) }

// part gives how many bytes file i of the raw files has: a multiple of the page.
func (b *bench) part(i int) int64 {
	lo, hi := checkpoint.ShareRange(b.cfg.Bytes/checkpoint.Align, i, b.cfg.Ranks)
	return (hi - lo) * checkpoint.Align
}

// diskWrite writes as many files at once as there are ranks, past the page cache, and syncs them: what the disk can do.
func (b *bench) diskWrite(ctx context.Context) (float64, error) {
	fsys, err := checkpoint.NewDir(b.dir)
	if err != nil {
		return 0, err
	}
	bufs := make([][]byte, b.cfg.Ranks)
	for i := range bufs {
		bufs[i] = checkpoint.AlignedBuffer(blockBytes)
		for j := range bufs[i] {
			bufs[i][j] = byte(i + j*j>>7)
		}
	}
	start := time.Now()
	group, gctx := errgroup.WithContext(ctx)
	for i := range b.cfg.Ranks {
		group.Go(func() error {
			f, err := fsys.Create(rawName(i), true)
			if err != nil {
				return err
			}
			for left := b.part(i); left > 0 && gctx.Err() == nil; {
				n, err := f.Write(bufs[i][:min(left, blockBytes)])
				if err != nil {
					return errors.Join(err, f.Close())
				}
				left -= int64(n)
			}
			return errors.Join(f.Sync(), f.Close())
		})
	}
	err = errors.Join(group.Wait(), ctx.Err())
	return time.Since(start).Seconds(), err
}

// diskRead reads the raw files back, past the page cache.
func (b *bench) diskRead(ctx context.Context) (float64, error) {
	start := time.Now()
	group, gctx := errgroup.WithContext(ctx)
	for i := range b.cfg.Ranks {
		group.Go(func() error {
			f, err := os.OpenFile(filepath.Join(b.dir, rawName(i)), os.O_RDONLY|unix.O_DIRECT, 0)
			if errors.Is(err, unix.EINVAL) {
				f, err = os.Open(filepath.Join(b.dir, rawName(i))) // no O_DIRECT here
			}
			if err != nil {
				return err
			}
			defer f.Close() //nolint:errcheck // it was only read from
			buf := checkpoint.AlignedBuffer(blockBytes)
			for at, size := int64(0), b.part(i); at < size && gctx.Err() == nil; {
				n, err := f.ReadAt(buf[:min(size-at, blockBytes)], at)
				if err != nil {
					return err
				}
				at += int64(n)
			}
			return nil
		})
	}
	err := errors.Join(group.Wait(), ctx.Err())
	return time.Since(start).Seconds(), err
}

// dropCaches takes a directory's files out of the page cache.
func dropCaches(dir string) error {
	return eachFile(dir, func(f *os.File) error {
		if err := f.Sync(); err != nil {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

// warmCaches reads a directory's files, so that they lie in the page cache.
func warmCaches(dir string) error {
	buf := make([]byte, blockBytes)
	return eachFile(dir, func(f *os.File) error {
		for {
			if n, err := f.Read(buf); n == 0 || err != nil {
				return nil //nolint:nilerr // the measured read says what is wrong
			}
		}
	})
}

func eachFile(dir string, do func(*os.File) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(do(f), f.Close())
	})
}

// What must be free for each byte of the state: the disk's files, ours and small tensors, and what peers save.
const (
	roomAlone = 4
	roomTorch = 7
)

// checkRoom returns an error for people if the storage has too little room: a peer that fills it ends in the middle of a line of its own.
func (b *bench) checkRoom() error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.dir, &st); err != nil {
		return fmt.Errorf("bench checkpoint: how much is free at %s: %w", b.cfg.Dir, err)
	}
	times, free := int64(roomAlone), int64(st.Bavail)*st.Bsize //nolint:gosec // no disk is so large
	if b.cfg.Torch {
		times = roomTorch
	}
	if b.cfg.Bytes > free/times {
		return fmt.Errorf("bench checkpoint: %d times %d bytes must be free at %s, and %d are: free some, or ask for fewer with --bytes", times, b.cfg.Bytes, b.cfg.Dir, free)
	}
	return nil
}
