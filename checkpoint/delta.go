package checkpoint

import (
	"context"
	"crypto/subtle"
	"errors"
)

// deltaBase is what a tensor's bytes are written as a difference to: its bytes in an earlier checkpoint, read while they are needed.
type deltaBase struct {
	r    *Reader
	file *shardFile
	at   int64
	buf  []byte
}

// xor turns dst, the tensor's bytes from off on, into their difference to the earlier ones, or back.
func (d *deltaBase) xor(ctx context.Context, dst []byte, off int64) error {
	for len(dst) > 0 {
		n := min(len(dst), len(d.buf))
		if err := d.r.copyRun(ctx, d.file, d.at+off, d.buf[:n]); err != nil {
			return d.r.store.distrust(d.file.blob, d.file.path, err)
		}
		subtle.XORBytes(dst[:n], dst[:n], d.buf[:n])
		dst, off = dst[n:], off+int64(n)
	}
	return nil
}

// deltaBufBytes is how much of a base is read at once.
const deltaBufBytes = 4 << 20

// useDeltas writes those tensors as differences that are weights of bfloat16 and of which an earlier whole copy can be used.
func (sv *saving) useDeltas(b *referrer, usable func(*place) (bool, error)) error {
	for i := range b.info.Tensors {
		t, m := &b.info.Tensors[i], &sv.memos[i]
		if t.From > 0 || t.DType != BFloat16 || t.size() == 0 || m.before.deltas+1 >= sv.store.delta {
			continue
		}
		for j := range m.before.bases {
			p := &m.before.bases[j]
			ok, err := usable(p)
			if err != nil {
				return err
			}
			if ok {
				t.Base, t.BaseOffset = b.refer(p), p.at
				sv.differs = true
				break
			}
		}
	}
	return nil
}

// openBases finds the bases of the tensors' bytes, by tensor; nil where it has none.
func (sv *saving) openBases(ref Ref, info *ShardInfo) []*deltaBase {
	bases := make([]*deltaBase, len(info.Tensors))
	if !sv.differs {
		return bases
	}
	sv.reader = &Reader{store: sv.store, m: Manifest{Job: sv.store.job, Epoch: ref.Epoch, Step: ref.Step, Dir: ref.String()}}
	files := map[int]*shardFile{}
	buf := make([]byte, min(deltaBufBytes, sv.store.chunkBytes))
	for i := range info.Tensors {
		t := &info.Tensors[i]
		if t.Base == 0 {
			continue
		}
		f := files[t.Base]
		if f == nil {
			f = &shardFile{blob: blobOf(&info.Origins[t.Base-1])}
			files[t.Base] = f
			sv.reader.files = append(sv.reader.files, f)
		}
		bases[i] = &deltaBase{r: sv.reader, file: f, at: t.BaseOffset, buf: buf}
	}
	return bases
}

// close closes what the save has read from.
func (sv *saving) close() error {
	if sv.reader == nil {
		return nil
	}
	return sv.reader.Close()
}

// readDelta fills dst with bytes of a tensor that is stored as a difference: at is where they lie in its file, base where its base has them.
func (r *Reader) readDelta(ctx context.Context, p *part, at, base int64, dst []byte) error {
	if r.xor == nil {
		r.xor = make([]byte, min(deltaBufBytes, p.base.chunkBytes))
	}
	d := deltaBase{r: r, file: p.base, at: base, buf: r.xor}
	err := r.copyRun(ctx, p.file, at, dst)
	return errors.Join(err, d.xor(ctx, dst, 0))
}
