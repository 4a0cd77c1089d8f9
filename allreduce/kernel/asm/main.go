// Command asm writes the AVX2 kernels of package kernel: kernel_amd64.s and its declarations. It is a module of its own, so that
// avo is no dependency of the product. Run it by "make generate".
package main

import (
	. "github.com/mmcloughlin/avo/build"   //nolint:revive // avo's own style: the program reads as assembly
	. "github.com/mmcloughlin/avo/operand" //nolint:revive // as above
	"github.com/mmcloughlin/avo/reg"
)

// block is how many bytes of dst one turn of a loop takes: callers give multiples of it and do the rest in Go.
const block = 128

const vector = 32 // bytes of a YMM register

// Immediates of VCMPPS and VCVTPS2PH.
const (
	unordered   = 3
	nearestEven = 0
)

// combine makes dst = dst op src in registers, where src may be memory.
type combine func(src Op, dst reg.VecVirtual)

func main() {
	ConstraintExpr("amd64,!purego")
	for _, k := range []struct {
		name string
		op   combine
	}{
		{"sumFloat32", func(s Op, d reg.VecVirtual) { VADDPS(s, d, d) }},
		{"productFloat32", func(s Op, d reg.VecVirtual) { VMULPS(s, d, d) }},
		{"minFloat32", ordered32(VMINPS)},
		{"maxFloat32", ordered32(VMAXPS)},
		{"sumFloat64", func(s Op, d reg.VecVirtual) { VADDPD(s, d, d) }},
		{"productFloat64", func(s Op, d reg.VecVirtual) { VMULPD(s, d, d) }},
		{"minFloat64", ordered64(VMINPD)},
		{"maxFloat64", ordered64(VMAXPD)},
		{"sumInt8", func(s Op, d reg.VecVirtual) { VPADDB(s, d, d) }},
		{"minInt8", func(s Op, d reg.VecVirtual) { VPMINSB(s, d, d) }},
		{"maxInt8", func(s Op, d reg.VecVirtual) { VPMAXSB(s, d, d) }},
		{"sumInt32", func(s Op, d reg.VecVirtual) { VPADDD(s, d, d) }},
		{"productInt32", func(s Op, d reg.VecVirtual) { VPMULLD(s, d, d) }},
		{"minInt32", func(s Op, d reg.VecVirtual) { VPMINSD(s, d, d) }},
		{"maxInt32", func(s Op, d reg.VecVirtual) { VPMAXSD(s, d, d) }},
		{"sumInt64", func(s Op, d reg.VecVirtual) { VPADDQ(s, d, d) }},
	} {
		plain(k.name, k.op)
	}
	for _, k := range []struct {
		name string
		op   combine
	}{
		{"sum", func(s Op, d reg.VecVirtual) { VADDPS(s, d, d) }},
		{"product", func(s Op, d reg.VecVirtual) { VMULPS(s, d, d) }},
		{"min", ordered32(VMINPS)},
		{"max", ordered32(VMAXPS)},
	} {
		half(k.name+"Float16", k.op, loadFloat16, func() store { return storeFloat16 })
		half(k.name+"BFloat16", k.op, loadBFloat16, storeBFloat16)
	}
	narrow()
	all()
	Generate()
}

// ordered32 is min or max where a NaN of either side is the result: the instruction alone gives the second operand when the
// first is no number.
func ordered32(op func(...Op)) combine {
	return func(s Op, d reg.VecVirtual) {
		mask, r := YMM(), YMM()
		VCMPPS(Imm(unordered), d, d, mask)
		op(s, d, r)
		VBLENDVPS(mask, d, r, d)
	}
}

func ordered64(op func(...Op)) combine {
	return func(s Op, d reg.VecVirtual) {
		mask, r := YMM(), YMM()
		VCMPPD(Imm(unordered), d, d, mask)
		op(s, d, r)
		VBLENDVPD(mask, d, r, d)
	}
}

// plain works on whole registers of elements.
func plain(name string, op combine) {
	TEXT(name+"AVX2", NOSPLIT, "func(dst, a, b *byte, n int)")
	Pragma("noescape")
	Doc(name + "AVX2 makes each element of dst the result of those of a and b. n is in bytes, a multiple of 128; dst may be a or b.")
	dst, a, b, n := Load(Param("dst"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64()), Load(Param("n"), GP64())
	Label("loop")
	CMPQ(n, U32(block))
	JL(LabelRef("done"))
	regs := []reg.VecVirtual{YMM(), YMM(), YMM(), YMM()}
	for i, r := range regs {
		VMOVDQU(Mem{Base: a, Disp: i * vector}, r)
	}
	for i, r := range regs {
		op(Mem{Base: b, Disp: i * vector}, r)
	}
	for i, r := range regs {
		VMOVDQU(r, Mem{Base: dst, Disp: i * vector})
	}
	next(dst, a, b, n)
}

func next(dst, a, b, n reg.Register) {
	ADDQ(Imm(block), dst)
	ADDQ(Imm(block), a)
	ADDQ(Imm(block), b)
	SUBQ(Imm(block), n)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

// half works on 16-bit floats, 16 at a time, in float32.
func half(name string, op combine, load func(Mem, reg.VecVirtual), prepare func() store) {
	TEXT(name+"AVX2", NOSPLIT, "func(dst, a, b *byte, n int)")
	Pragma("noescape")
	Doc(name+"AVX2 makes each element of dst the result of those of a and b, computed in float32 and rounded to the nearest, to",
		"even between two. n is in bytes, a multiple of 128; dst may be a or b.")
	dst, a, b, n := Load(Param("dst"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64()), Load(Param("n"), GP64())
	put := prepare()
	Label("loop")
	CMPQ(n, U32(block))
	JL(LabelRef("done"))
	for i := 0; i < block; i += vector {
		var out [2]reg.VecVirtual
		for j := range out {
			at := i + j*vector/2
			x, y := YMM(), YMM()
			load(Mem{Base: a, Disp: at}, x)
			load(Mem{Base: b, Disp: at}, y)
			op(y, x)
			out[j] = x
		}
		put(out[0], out[1], Mem{Base: dst, Disp: i})
	}
	next(dst, a, b, n)
}

// store rounds two registers of float32 to 16 bits each and writes them one after the other.
type store func(lo, hi reg.VecVirtual, m Mem)

func loadFloat16(m Mem, to reg.VecVirtual) { VCVTPH2PS(m, to) }

func storeFloat16(lo, hi reg.VecVirtual, m Mem) {
	VCVTPS2PH(Imm(nearestEven), lo, m)
	VCVTPS2PH(Imm(nearestEven), hi, m.Offset(vector/2))
}

func loadBFloat16(m Mem, to reg.VecVirtual) {
	VPMOVZXWD(m, to)
	VPSLLD(Imm(16), to, to)
}

// storeBFloat16 loads the constants of the rounding: what is cut off, plus half of the last place kept, carries into that place;
// one less than half where it is even. A NaN keeps its upper bits and becomes quiet.
func storeBFloat16() store {
	one, half, quiet := lane(1), lane(0x7fff), lane(0x40)
	return func(lo, hi reg.VecVirtual, m Mem) {
		for _, r := range []reg.VecVirtual{lo, hi} {
			mask, last, nan := YMM(), YMM(), YMM()
			VCMPPS(Imm(unordered), r, r, mask)
			VPSRLD(Imm(16), r, last)
			VPOR(quiet, last, nan)
			VPAND(one, last, last)
			VPADDD(last, r, r)
			VPADDD(half, r, r)
			VPSRLD(Imm(16), r, r)
			VPBLENDVB(mask, nan, r, r)
		}
		packed := YMM()
		VPACKUSDW(hi, lo, packed)
		VPERMQ(Imm(0xd8), packed, packed)
		VMOVDQU(packed, m)
	}
}

// lane fills a register with a number of 32 bits.
func lane(v uint32) reg.VecVirtual {
	g, x, y := GP32(), XMM(), YMM()
	MOVL(U32(v), g)
	VMOVD(g, x)
	VPBROADCASTD(x, y)
	return y
}
