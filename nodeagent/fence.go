package nodeagent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/gangline/gangline/nodeagent/reconcile"
)

const (
	// fenceName is the file with the highest fence obeyed.
	fenceName = "fence"
	// slotSize is one record: term, index, checksum. Two slots a page apart are written in turn and in place, so that
	// a torn write leaves the other one, and a full disk cannot keep the agent from obeying.
	slotSize = 8 + 8 + 4
	slotGap  = 4096
)

// fenceFile is the highest fence that the agent obeyed, on disk. It is for one goroutine at a time.
type fenceFile struct {
	file    *os.File
	highest reconcile.Fence
	next    int64 // slot that is written next
}

// openFence reads the higher of the two slots; a damaged or empty one counts as nothing.
func openFence(path string) (*fenceFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the fence of orders: %w", err)
	}
	ff := &fenceFile{file: f}
	// Both slots get their room on the disk now.
	info, err := f.Stat()
	if err == nil && info.Size() < slotGap+slotSize {
		_, err = f.WriteAt(make([]byte, slotGap+slotSize), 0)
		err = errors.Join(err, f.Sync())
	}
	for slot := range int64(2) {
		var b [slotSize]byte
		if err != nil {
			break
		}
		if _, err = f.ReadAt(b[:], slot*slotGap); err != nil {
			break
		}
		fence := reconcile.Fence{Term: binary.LittleEndian.Uint64(b[0:]), Index: binary.LittleEndian.Uint64(b[8:])}
		if crc32.ChecksumIEEE(b[:16]) == binary.LittleEndian.Uint32(b[16:]) && fence.Compare(ff.highest) >= 0 {
			ff.highest, ff.next = fence, 1-slot
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the fence of orders %s: %w", path, err), f.Close())
	}
	return ff, nil
}

// raise makes f durable; it writes nothing if f is the highest already.
func (ff *fenceFile) raise(f reconcile.Fence) error {
	if f == ff.highest {
		return nil
	}
	var b [slotSize]byte
	binary.LittleEndian.PutUint64(b[0:], f.Term)
	binary.LittleEndian.PutUint64(b[8:], f.Index)
	binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[:16]))
	if _, err := ff.file.WriteAt(b[:], ff.next*slotGap); err != nil {
		return fmt.Errorf("write the fence of orders: %w", err)
	}
	if err := ff.file.Sync(); err != nil {
		return fmt.Errorf("write the fence of orders: %w", err)
	}
	ff.highest, ff.next = f, 1-ff.next
	return nil
}

func (ff *fenceFile) close() error { return ff.file.Close() }
