package torchfile

import (
	"encoding/binary"
	"math"
)

// pickle writes a value in Python's pickle format, protocol 2, as torch.save does: https://docs.python.org/3/library/pickletools.html has the operations.
type pickle struct{ out []byte }

// Operations of the format.
const (
	opProto      = 0x80
	opStop       = '.'
	opGlobal     = 'c'
	opMark       = '('
	opTuple      = 't'
	opEmptyTuple = ')'
	opReduce     = 'R'
	opSetItems   = 'u'
	opBinPersID  = 'Q'
	opBinUnicode = 'X'
	opBinInt     = 'J'
	opLong1      = 0x8a
	opNewFalse   = 0x89
)

func (p *pickle) op(b ...byte) { p.out = append(p.out, b...) }

// global names a thing of a Python module.
func (p *pickle) global(module, name string) {
	p.op(opGlobal)
	p.out = append(p.out, module+"\n"+name+"\n"...)
}

func (p *pickle) text(s string) {
	p.op(opBinUnicode)
	p.out = binary.LittleEndian.AppendUint32(p.out, uint32(len(s))) //nolint:gosec // names are short
	p.out = append(p.out, s...)
}

// number writes an integer of at least 0.
func (p *pickle) number(n int64) {
	if n <= math.MaxInt32 {
		p.op(opBinInt)
		p.out = binary.LittleEndian.AppendUint32(p.out, uint32(n)) //nolint:gosec // it fits
		return
	}
	p.op(opLong1, 8)
	p.out = binary.LittleEndian.AppendUint64(p.out, uint64(n)) //nolint:gosec // not negative
}

func (p *pickle) numbers(all []int64) {
	p.op(opMark)
	for _, n := range all {
		p.number(n)
	}
	p.op(opTuple)
}

// orderedDict begins an empty collections.OrderedDict.
func (p *pickle) orderedDict() {
	p.global("collections", "OrderedDict")
	p.op(opEmptyTuple, opReduce)
}
