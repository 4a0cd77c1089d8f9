package checkpoint

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"
)

// shardHeader is the first page of a shard file. It lets a reader tell a file that was swapped, copied
// to a wrong name, or left by another job from one whose bytes rotted; the index of tensors is in the manifest.
type shardHeader struct {
	job        string
	epoch      uint64
	step       uint64
	rank       int
	worldSize  int
	bytes      int64 // of the whole file
	chunkBytes int64
}

// shardMagic begins every shard file. The high first byte and the line ends show transfers that mangle text.
const shardMagic = "\x89GLCK\r\n\x1a"

// shardVersion is the version of the header that this package writes, and the only one it reads.
const shardVersion = 1

// Byte positions in the header page; numbers are little-endian. All bytes not named are zero.
const (
	headerVersionAt = 8  // uint32
	headerRankAt    = 12 // uint32
	headerWorldAt   = 16 // uint32
	headerJobLenAt  = 20 // uint32
	headerEpochAt   = 24
	headerStepAt    = 32
	headerBytesAt   = 40
	headerChunkAt   = 48
	headerJobAt     = 56
	headerSumAt     = Align - 8 // XXH3-64 of all bytes before it
)

// page encodes the header.
func (h *shardHeader) page() []byte {
	p := make([]byte, Align)
	h.put(p)
	return p
}

// put encodes the header into p, of Align bytes.
func (h *shardHeader) put(p []byte) {
	clear(p)
	copy(p, shardMagic)
	le := binary.LittleEndian
	le.PutUint32(p[headerVersionAt:], shardVersion)
	le.PutUint32(p[headerRankAt:], uint32(h.rank))
	le.PutUint32(p[headerWorldAt:], uint32(h.worldSize))
	le.PutUint32(p[headerJobLenAt:], uint32(len(h.job)))
	le.PutUint64(p[headerEpochAt:], h.epoch)
	le.PutUint64(p[headerStepAt:], h.step)
	le.PutUint64(p[headerBytesAt:], uint64(h.bytes))
	le.PutUint64(p[headerChunkAt:], uint64(h.chunkBytes))
	copy(p[headerJobAt:], h.job)
	le.PutUint64(p[headerSumAt:], xxh3.Hash(p[:headerSumAt]))
}

// parseShardHeader decodes and checks a header page.
func parseShardHeader(p []byte) (shardHeader, error) {
	if len(p) != Align {
		return shardHeader{}, fmt.Errorf("shard header has %d bytes, want %d", len(p), Align)
	}
	if string(p[:len(shardMagic)]) != shardMagic {
		return shardHeader{}, fmt.Errorf("not a shard file: begins with %x", p[:len(shardMagic)])
	}
	le := binary.LittleEndian
	if want, got := le.Uint64(p[headerSumAt:]), xxh3.Hash(p[:headerSumAt]); want != got {
		return shardHeader{}, fmt.Errorf("shard header's checksum is %016x, the file says %016x", got, want)
	}
	if v := le.Uint32(p[headerVersionAt:]); v != shardVersion {
		return shardHeader{}, fmt.Errorf("shard format version is %d, this release reads only %d: use the release that wrote it", v, shardVersion)
	}
	n := le.Uint32(p[headerJobLenAt:])
	if n > MaxNameBytes {
		return shardHeader{}, fmt.Errorf("shard header: job name has %d bytes, at most %d are allowed", n, MaxNameBytes)
	}
	return shardHeader{
		job:        string(p[headerJobAt : headerJobAt+n]),
		epoch:      le.Uint64(p[headerEpochAt:]),
		step:       le.Uint64(p[headerStepAt:]),
		rank:       int(le.Uint32(p[headerRankAt:])),
		worldSize:  int(le.Uint32(p[headerWorldAt:])),
		bytes:      int64(le.Uint64(p[headerBytesAt:])),
		chunkBytes: int64(le.Uint64(p[headerChunkAt:])),
	}, nil
}
