package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mapFile gives a file's content as a memory map, so that it need not fit into memory. Call unmap when done; nothing may
// shorten the file until then.
func mapFile(path string) (data []byte, unmap func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() //nolint:errcheck // the map stays
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return nil, nil, usage("%s is empty, or no plain file", path)
	}
	data, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map %s: %w", path, err)
	}
	_ = unix.Madvise(data, unix.MADV_SEQUENTIAL) // advice
	return data, func() { _ = unix.Munmap(data) }, nil
}
