package checkpoint

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// codec turns chunks of one file into frames and back. Several goroutines may use it.
type codec struct {
	aead cipher.AEAD // nil: not encrypted
	enc  *zstd.Encoder
	dec  *zstd.Decoder
}

// newEncoder gives the one encoder of a Store.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false)) // checksums are ours
}

// newDecoder gives the one decoder of a Store. It gives out no more than the room that a caller has, whatever a frame says of itself.
func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(2*MaxChunkBytes), zstd.WithDecoderMaxWindow(MaxChunkBytes), zstd.WithDecodeAllCapLimit(true))
}

// codecOf gives the codec of a file, for whose encoding this Store must have the key.
func (s *Store) codecOf(e *Encoding, ref Ref, rank, worldSize int, chunkBytes int64) (*codec, error) {
	c := &codec{}
	var err error
	if c.enc, err = s.encoder(); err != nil {
		return nil, err
	}
	if c.dec, err = s.decoder(); err != nil || e.Key == "" {
		return c, err
	}
	key, err := s.keyOf(e.Key)
	if err != nil {
		return nil, err
	}
	secret, err := key.fileKey(e.Salt, s.job, ref, rank, worldSize, e.Bytes, chunkBytes)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	c.aead, err = cipher.NewGCM(block)
	return c, err
}

// keyOf finds the key with an id.
func (s *Store) keyOf(id string) (*Key, error) {
	if k := s.findKey(id); k != nil {
		return k, nil
	}
	if len(s.keys) == 0 {
		return nil, fmt.Errorf("%w: it is encrypted with key %s, and none is given", ErrKey, id)
	}
	return nil, fmt.Errorf("%w: it is encrypted with key %s, and what is given is key %s", ErrKey, id, s.keys[0].id)
}

// nonce is the number of the chunk: each file has a key of its own.
func nonce(chunk int) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], uint64(chunk)) //nolint:gosec // from 0
	return n[:]
}

// encode appends the frame of a chunk to dst. planes is the size of the numbers in it, 1 for what is no numbers; scratch is as long as the chunk, for the planes.
func (c *codec) encode(dst, data []byte, chunk, planes int, compress Compression, scratch []byte) []byte {
	start := len(dst)
	dst = append(dst, frameRaw)
	if compress == Zstd {
		src := data
		kind := byte(frameZstd)
		if planes > 1 && len(data)%planes == 0 {
			src, kind = scratch[:len(data)], byte(planes)
			split(src, data, planes)
		}
		if dst = c.enc.EncodeAll(src, dst); len(dst)-start-1 < len(data) {
			dst[start] = kind
		} else {
			dst = dst[:start+1]
		}
	}
	if dst[start] == frameRaw {
		dst = append(dst, data...)
	}
	if c.aead != nil {
		sealed := c.aead.Seal(dst[start:start], nonce(chunk), dst[start:], nil)
		if len(sealed) > cap(dst)-start {
			dst = append(dst[:start], sealed...) // there was no room for the tag
		} else {
			dst = dst[:start+len(sealed)]
		}
	}
	return dst
}

// decode fills dst, of the chunk's size, from its frame, which is overwritten. The error says what is wrong, for a *CorruptError.
func (c *codec) decode(dst, frame []byte, chunk int, scratch []byte) error {
	if c.aead != nil {
		plain, err := c.aead.Open(frame[:0], nonce(chunk), frame, nil)
		if err != nil {
			return fmt.Errorf("a frame that was not encrypted for this place: %w", err)
		}
		frame = plain
	}
	if len(frame) == 0 {
		return fmt.Errorf("an empty frame")
	}
	kind, data := int(frame[0]), frame[1:]
	switch kind {
	case frameRaw:
		if copy(dst, data) != len(dst) || len(data) != len(dst) {
			return fmt.Errorf("%d bytes for a chunk of %d", len(data), len(dst))
		}
		return nil
	case frameZstd:
		return c.unpack(dst, data)
	case 2, 4, 8:
		planes := slices.Grow(scratch[:0], len(dst))[:len(dst)]
		if err := c.unpack(planes, data); err != nil {
			return err
		}
		if len(dst)%kind != 0 {
			return fmt.Errorf("%d planes of %d bytes", kind, len(dst))
		}
		join(dst, planes, kind)
		return nil
	}
	return fmt.Errorf("a frame of unknown kind %d", kind)
}

// unpack decompresses exactly len(dst) bytes, and never more.
func (c *codec) unpack(dst, data []byte) error {
	out, err := c.dec.DecodeAll(data, dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("what does not decompress to %d bytes: %w", len(dst), err)
	}
	if len(out) != len(dst) {
		return fmt.Errorf("what decompresses to %d bytes for a chunk of %d", len(out), len(dst))
	}
	return nil
}

// split sorts the bytes of numbers of n bytes into n planes.
func split(dst, src []byte, n int) {
	count := len(src) / n
	switch n {
	case 2:
		a, b := dst[:count], dst[count:][:count]
		for i := range a {
			x := binary.LittleEndian.Uint16(src[2*i:])
			a[i], b[i] = byte(x), byte(x>>8)
		}
	case 4:
		a, b, c, d := dst[:count], dst[count:][:count], dst[2*count:][:count], dst[3*count:][:count]
		for i := range a {
			x := binary.LittleEndian.Uint32(src[4*i:])
			a[i], b[i], c[i], d[i] = byte(x), byte(x>>8), byte(x>>16), byte(x>>24)
		}
	default:
		for p := range n {
			plane := dst[p*count:][:count]
			for i := range plane {
				plane[i] = src[i*n+p]
			}
		}
	}
}

// join puts the planes together again.
func join(dst, src []byte, n int) {
	count := len(src) / n
	switch n {
	case 2:
		a, b := src[:count], src[count:][:count]
		for i := range a {
			binary.LittleEndian.PutUint16(dst[2*i:], uint16(a[i])|uint16(b[i])<<8)
		}
	case 4:
		a, b, c, d := src[:count], src[count:][:count], src[2*count:][:count], src[3*count:][:count]
		for i := range a {
			binary.LittleEndian.PutUint32(dst[4*i:], uint32(a[i])|uint32(b[i])<<8|uint32(c[i])<<16|uint32(d[i])<<24)
		}
	default:
		for p := range n {
			plane := src[p*count:][:count]
			for i := range plane {
				dst[i*n+p] = plane[i]
			}
		}
	}
}
