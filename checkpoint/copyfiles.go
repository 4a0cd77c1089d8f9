package checkpoint

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// CopyFiles gives the content of each file of a checkpoint of files, by name, verified chunk by chunk before it is given out. put reads
// it to the end, and its first error ends the copying. Names are plain and lead nowhere else, as checked with the manifest. Errors:
// ErrInvalid for a checkpoint of tensors, *CorruptError (from the reader, and so from put), the context's, the file system's.
func (s *Store) CopyFiles(ctx context.Context, m Manifest, put func(name string, content io.Reader) error) error {
	if m.WorldSize != 0 {
		return fmt.Errorf("%w: checkpoint %s holds tensors of %d ranks, not a program's own files", ErrInvalid, m.Ref(), m.WorldSize)
	}
	for _, b := range m.blobs() {
		if err := s.copyFile(ctx, m, b, put); err != nil {
			return fmt.Errorf("copy %q of %s: %w", b.name, m.Ref(), err)
		}
	}
	return nil
}

func (s *Store) copyFile(ctx context.Context, m Manifest, b blob, put func(string, io.Reader) error) error {
	f, path, err := s.open(&m, &b)
	if err != nil {
		return err
	}
	defer f.Close()
	return put(b.name, &chunkReader{ctx: ctx, store: s, path: path, b: b, f: f, buf: AlignedBuffer(int(min(m.ChunkBytes, b.bytes)))})
}

// chunkReader reads a file from its beginning, each chunk verified as a whole first.
type chunkReader struct {
	ctx   context.Context //nolint:containedctx // of the one call that reads
	store *Store
	path  string
	b     blob
	f     ReadFile
	next  int // chunk
	left  []byte
	buf   []byte
}

// Read gives verified bytes.
func (r *chunkReader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		if r.next == len(r.b.sums) {
			return 0, io.EOF
		}
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		data, err := readChunk(r.f, r.path, r.b, r.next, r.buf)
		if err != nil {
			return 0, err
		}
		r.store.progress(int64(len(data)))
		r.next++
		r.left = data
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// FileNames gives the names of a checkpoint's files, without the manifest, and their sizes. Files of earlier checkpoints that it refers to
// are among them, named with their checkpoint's directory, such as step-0000000100.epoch-3/shard-0002-of-0008.glck: who copies all of them to
// such names beside the manifest has a checkpoint that needs no other.
func (m *Manifest) FileNames() []Entry {
	var out []Entry
	for _, b := range m.blobs() {
		out = append(out, Entry{Name: b.name, Size: b.bytes})
	}
	return out
}

// OfEarlier says of a name that FileNames gives whether it is a file of an earlier checkpoint.
func (m *Manifest) OfEarlier(name string) bool {
	return m.WorldSize > 0 && strings.Contains(name, "/") // a shard's own file has no slash
}

// CheckedFile is one file of a checkpoint, of which every chunk is verified as it is read. Several goroutines may read it.
type CheckedFile struct {
	store *Store
	path  string
	b     blob
	f     ReadFile
}

// OpenFile opens a file that FileNames names; another one gives ErrInvalid. Close it. Of a file of an earlier checkpoint only those chunks
// are verified that this one refers to.
func (s *Store) OpenFile(m Manifest, name string) (*CheckedFile, error) {
	b, ok := m.blob(name)
	if !ok {
		return nil, fmt.Errorf("%w: checkpoint %s has no file %q", ErrInvalid, m.Ref(), name)
	}
	f, path, err := s.open(&m, &b)
	if err != nil {
		return nil, err
	}
	return &CheckedFile{store: s, path: path, b: b, f: f}, nil
}

// blob finds a file by its name.
func (m *Manifest) blob(name string) (blob, bool) {
	if i, ok := slices.BinarySearchFunc(m.Files, name, func(f FileInfo, name string) int { return strings.Compare(f.Name, name) }); ok {
		f := &m.Files[i]
		return blob{name: f.Name, bytes: f.Bytes, chunkBytes: m.ChunkBytes, sums: f.Chunks}, true
	}
	if m.WorldSize > 0 {
		for _, b := range m.blobs() {
			if b.name == name {
				return b, true
			}
		}
	}
	return blob{}, false
}

// ChunkBytes gives the size of the file's chunks: the manifest's, or that of the earlier checkpoint whose file it is.
func (c *CheckedFile) ChunkBytes() int64 { return c.b.chunkBytes }

// ReadChunks reads chunks from the given one on into buf, whose size is a multiple of ChunkBytes, up to the end of the file. It
// gives the part of buf that it filled. Errors: *CorruptError, the context's, the file system's.
func (c *CheckedFile) ReadChunks(ctx context.Context, first int, buf []byte) ([]byte, error) {
	n := int64(0)
	for i := first; int64(i) < chunkCount(c.b.bytes, c.b.chunkBytes) && n < int64(len(buf)); i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data, err := readChunk(c.f, c.path, c.b, i, buf[n:])
		if err != nil {
			return nil, err
		}
		c.store.progress(int64(len(data)))
		n += int64(len(data))
	}
	return buf[:n], nil
}

// Close closes the file.
func (c *CheckedFile) Close() error { return c.f.Close() }
