package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// dropped is the part of the jobs that a copy of a trace lacks.
const dropped = 0.02

// thinned writes the nth copy of a trace, from which some of the jobs were
// dropped at random, and returns where it is. Equal n, equal copy.
func (w *works) thinned(name string, n int) (path string, err error) {
	src, err := os.Open(filepath.Join(w.traces, name))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	zipped, err := gzip.NewReader(src)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	dst, err := os.CreateTemp(w.scratch, "*-"+name) // several rows may look at one copy
	if err != nil {
		return "", err
	}
	path = dst.Name()
	defer func() { err = errors.Join(err, dst.Close()) }()
	out := gzip.NewWriter(dst)
	if err := thin(zipped, out, uint64(n)); err != nil { //nolint:gosec // a small number
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return path, out.Close()
}

// thin copies lines, the heading and most of the others.
func thin(from io.Reader, to io.Writer, seed uint64) error {
	chance := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // G404: it must be repeatable
	lines := bufio.NewScanner(from)
	for heading := true; lines.Scan(); heading = false {
		if !heading && chance.Float64() < dropped {
			continue
		}
		if _, err := fmt.Fprintln(to, lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}
