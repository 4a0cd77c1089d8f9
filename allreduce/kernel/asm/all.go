package main

import (
	. "github.com/mmcloughlin/avo/build"   //nolint:revive // avo's own style: the program reads as assembly
	. "github.com/mmcloughlin/avo/operand" //nolint:revive // as above
	"github.com/mmcloughlin/avo/reg"
)

const sliceHeader = 24 // bytes from one slice's pointer to the next one's

// all writes the kernel that sums many vectors into many, in one pass: what is between stays in registers. To ask for lines ahead of their use, or to
// write past the caches, gains nothing: in place, what is written was read just before.
func all() {
	TEXT("sumAllFloat32AVX2", NOSPLIT, "func(to, from *[]byte, tos, froms, lo, n int, by float32)")
	Pragma("noescape")
	Doc("sumAllFloat32AVX2 writes the sum of all vectors of from, divided by a number, to all of to: n bytes of each from lo on, a multiple of 128.",
		"There are two vectors at least in from and one in to.")
	to, from, lo, n := Load(Param("to"), GP64()), Load(Param("from"), GP64()), Load(Param("lo"), GP64()), Load(Param("n"), GP64())
	tos, froms := Load(Param("tos"), GP64()), Load(Param("froms"), GP64())
	divides, whole := GP32(), GP32()
	x, by := XMM(), YMM()
	Load(Param("by"), x)
	VMOVD(x, divides)
	VBROADCASTSS(x, by)
	MOVL(U32(0x3f800000), whole)
	regs := []reg.VecVirtual{YMM(), YMM(), YMM(), YMM()}
	header, count, at := GP64(), GP64(), GP64()
	// each goes over the vectors of a list, with where this turn's bytes are in at.
	each := func(list, many reg.Register, label string, body func()) {
		MOVQ(list, header)
		MOVQ(many, count)
		Label(label)
		MOVQ(Mem{Base: header}, at)
		ADDQ(lo, at)
		body()
		ADDQ(Imm(sliceHeader), header)
		DECQ(count)
		JNZ(LabelRef(label))
	}
	Label("loop")
	CMPQ(n, U32(block))
	JL(LabelRef("done"))
	MOVQ(Mem{Base: from}, at)
	ADDQ(lo, at)
	for i, r := range regs {
		VMOVUPS(Mem{Base: at, Disp: i * vector}, r)
	}
	rest, others := GP64(), GP64()
	LEAQ(Mem{Base: from, Disp: sliceHeader}, rest)
	LEAQ(Mem{Base: froms, Disp: -1}, others)
	each(rest, others, "add", func() {
		for i, r := range regs {
			VADDPS(Mem{Base: at, Disp: i * vector}, r, r)
		}
	})
	CMPL(divides, whole)
	JE(LabelRef("give"))
	for _, r := range regs {
		VDIVPS(by, r, r)
	}
	Label("give")
	each(to, tos, "store", func() {
		for i, r := range regs {
			VMOVUPS(r, Mem{Base: at, Disp: i * vector})
		}
	})
	ADDQ(U32(block), lo)
	SUBQ(U32(block), n)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}
