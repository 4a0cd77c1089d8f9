package checkpoint

import "context"

// pieceList is the content of a shard file: pieces of memory at rising places, zeros between.
type pieceList struct {
	pieces []piece
}

type piece struct {
	at   int64
	data []byte
	base *deltaBase // what it is a difference to; nil: it is itself
}

// newPieces gives a file of a header and those tensors that infos has in it, some of them as differences to their bases.
func newPieces(header []byte, tensors []Tensor, infos []TensorInfo, bases []*deltaBase) *pieceList {
	src := &pieceList{pieces: make([]piece, 0, len(tensors)+1)}
	src.pieces = append(src.pieces, piece{data: header})
	for i, t := range tensors {
		if infos[i].From == 0 {
			src.pieces = append(src.pieces, piece{at: infos[i].FileOffset, data: t.Data, base: bases[i]})
		}
	}
	return src
}

func (s *pieceList) needsBuffers() bool { return true }

// next puts the file's bytes from start on into buf. Pieces left behind are forgotten.
func (s *pieceList) next(ctx context.Context, buf []byte, start int64) ([]byte, error) {
	done := int64(0) // how far buf is filled
	end := start + int64(len(buf))
	for len(s.pieces) > 0 {
		p := s.pieces[0]
		if p.at >= end {
			break
		}
		from := max(p.at, start)
		clear(buf[done : from-start])
		n := copy(buf[from-start:], p.data[from-p.at:])
		if p.base != nil {
			if err := p.base.xor(ctx, buf[from-start:][:n], from-p.at); err != nil {
				return nil, err
			}
		}
		done = from - start + int64(n)
		if p.at+int64(len(p.data)) > end {
			break // the rest belongs to the next chunk
		}
		s.pieces = s.pieces[1:]
	}
	clear(buf[done:])
	return buf, nil
}
