package main

import (
	. "github.com/mmcloughlin/avo/build"   //nolint:revive // avo's own style: the program reads as assembly
	. "github.com/mmcloughlin/avo/operand" //nolint:revive // as above
	"github.com/mmcloughlin/avo/reg"
)

// turn is how many elements of float32 one turn of these loops takes: callers give multiples of it and do the rest in Go.
const turn = 32

const perVector = 8 // float32 in a YMM register

// Immediates of VCMPPS.
const isNumber = 7 // neither side is a NaN

// narrow writes the kernels of the narrow forms, and the division of a mean.
func narrow() {
	encode16()
	decode16()
	lost16()
	largest()
	quantise()
	dequantise()
	lost8()
	divide()
}

// vectorIn is where a vector lies, and the bytes of its elements.
type vectorIn struct {
	at   reg.Register
	size int
}

// loop makes the loop over n elements of some vectors; body gets the number of a register's worth of elements in the turn.
func loop(n reg.Register, vectors []vectorIn, body func(i int)) {
	Label("loop")
	CMPQ(n, U32(turn))
	JL(LabelRef("done"))
	for i := range turn / perVector {
		body(i)
	}
	for _, v := range vectors {
		ADDQ(U32(uint32(v.size*turn)), v.at) //nolint:gosec // 1, 2 or 4 bytes for each element
	}
	SUBQ(U32(turn), n)
	JMP(LabelRef("loop"))
	Label("done")
}

// at is the place of a turn's register in memory of elements of that many bytes.
func at(base reg.Register, size, i int) Mem { return Mem{Base: base, Disp: i * perVector * size} }

func begin(name, args string, doc ...string) {
	TEXT(name+"AVX2", NOSPLIT, args)
	Pragma("noescape")
	doc[0] = name + "AVX2 " + doc[0]
	Doc(append(doc, "n is in elements, a multiple of 32.")...)
}

func end() {
	VZEROUPPER()
	RET()
}

func pointer(name string) reg.Register { return Load(Param(name), GP64()) }

func broadcast(name string) reg.VecVirtual {
	x, y := XMM(), YMM()
	Load(Param(name), x)
	VBROADCASTSS(x, y)
	return y
}

func encode16() {
	begin("encode16", "func(dst, src *byte, n int)", "writes the nearest bfloat16 of each float32, to even between two.")
	dst, src, n := pointer("dst"), pointer("src"), pointer("n")
	put := storeBFloat16()
	var lo reg.VecVirtual
	loop(n, []vectorIn{{dst, 2}, {src, 4}}, func(i int) {
		r := YMM()
		VMOVUPS(at(src, 4, i), r)
		if i%2 == 0 {
			lo = r
			return
		}
		put(lo, r, at(dst, 2, i-1))
	})
	end()
}

// decode16 writes both kernels that begin with the values of bfloat16.
func decode16() {
	begin("decode16", "func(dst, src *byte, n int)", "writes the float32 of each bfloat16.")
	dst, src, n := pointer("dst"), pointer("src"), pointer("n")
	loop(n, []vectorIn{{dst, 4}, {src, 2}}, func(i int) {
		r := YMM()
		loadBFloat16(at(src, 2, i), r)
		VMOVUPS(r, at(dst, 4, i))
	})
	end()

	begin("decodeAdd16", "func(dst, src, add *byte, n int)", "writes the float32 of each bfloat16 plus that of add.")
	dst, src, add, n := pointer("dst"), pointer("src"), pointer("add"), pointer("n")
	loop(n, []vectorIn{{dst, 4}, {src, 2}, {add, 4}}, func(i int) {
		r := YMM()
		loadBFloat16(at(src, 2, i), r)
		VADDPS(at(add, 4, i), r, r)
		VMOVUPS(r, at(dst, 4, i))
	})
	end()
}

func lost16() {
	begin("lost16", "func(lost, src, code *byte, n int)",
		"writes each float32 less that of its bfloat16, and zero where that is no number or infinite.")
	lost, src, code, n := pointer("lost"), pointer("src"), pointer("code"), pointer("n")
	loop(n, []vectorIn{{lost, 4}, {src, 4}, {code, 2}}, func(i int) {
		x, v, finite := YMM(), YMM(), YMM()
		VMOVUPS(at(src, 4, i), x)
		loadBFloat16(at(code, 2, i), v)
		VSUBPS(v, x, x)
		VSUBPS(x, x, finite) // a NaN for all but finite numbers
		VCMPPS(Imm(isNumber), finite, finite, finite)
		VANDPS(finite, x, x)
		VMOVUPS(x, at(lost, 4, i))
	})
	end()
}

func largest() {
	begin("largest", "func(src *byte, n int) uint32", "returns the bits of the largest magnitude of float32, where a NaN is larger than all numbers.")
	src, n := pointer("src"), pointer("n")
	mask := lane(0x7fffffff)
	most := make([]reg.VecVirtual, turn/perVector)
	for i := range most {
		most[i] = YMM()
		VPXOR(most[i], most[i], most[i])
	}
	loop(n, []vectorIn{{src, 4}}, func(i int) {
		r := YMM()
		VPAND(at(src, 4, i), mask, r)
		VPMAXUD(r, most[i], most[i])
	})
	VPMAXUD(most[1], most[0], most[0])
	VPMAXUD(most[3], most[2], most[2])
	VPMAXUD(most[2], most[0], most[0])
	half, other, result := XMM(), XMM(), GP32()
	VEXTRACTI128(Imm(1), most[0], half)
	VPMAXUD(most[0].AsX(), half, half)
	VPSHUFD(Imm(0x4e), half, other) // the upper two to the lower two
	VPMAXUD(other, half, half)
	VPSHUFD(Imm(0xb1), half, other) // the odd ones to the even ones
	VPMAXUD(other, half, half)
	VMOVD(half, result)
	Store(result, ReturnIndex(0))
	end()
}

func quantise() {
	begin("quantise", "func(dst, src *byte, n int, inverse float32)",
		"writes each float32 times inverse as the nearest byte, to even between two. Results must lie in -127..127.")
	dst, src, n, inverse := pointer("dst"), pointer("src"), pointer("n"), broadcast("inverse")
	order := YMM()
	VMOVDQU(inOrder(), order)
	var q [turn / perVector]reg.VecVirtual
	loop(n, []vectorIn{{dst, 1}, {src, 4}}, func(i int) {
		q[i] = YMM()
		VMULPS(at(src, 4, i), inverse, q[i])
		VCVTPS2DQ(q[i], q[i])
		if i < len(q)-1 {
			return
		}
		VPACKSSDW(q[1], q[0], q[0])
		VPACKSSDW(q[3], q[2], q[2])
		VPACKSSWB(q[2], q[0], q[0])
		VPERMD(q[0], order, q[0])
		VMOVDQU(q[0], Mem{Base: dst})
	})
	end()
}

// inOrder is the places of four bytes each that put back in order what packing two times, each within halves of a register, mixes.
func inOrder() Mem {
	m := GLOBL("inOrder", RODATA|NOPTR)
	for i, from := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
		DATA(4*i, U32(from))
	}
	return m
}

func loadInt8(m Mem, to reg.VecVirtual) {
	VPMOVSXBD(m, to)
	VCVTDQ2PS(to, to)
}

// dequantise writes both kernels that begin with the values of bytes.
func dequantise() {
	begin("dequantise", "func(dst, src *byte, n int, scale float32)", "writes each byte times scale as float32.")
	dst, src, n, scale := pointer("dst"), pointer("src"), pointer("n"), broadcast("scale")
	loop(n, []vectorIn{{dst, 4}, {src, 1}}, func(i int) {
		r := YMM()
		loadInt8(at(src, 1, i), r)
		VMULPS(scale, r, r)
		VMOVUPS(r, at(dst, 4, i))
	})
	end()

	begin("dequantiseAdd", "func(dst, src, add *byte, n int, scale float32)", "writes each byte times scale, plus the float32 of add.")
	dst, src, add, n, scale := pointer("dst"), pointer("src"), pointer("add"), pointer("n"), broadcast("scale")
	loop(n, []vectorIn{{dst, 4}, {src, 1}, {add, 4}}, func(i int) {
		r := YMM()
		loadInt8(at(src, 1, i), r)
		VMULPS(scale, r, r)
		VADDPS(at(add, 4, i), r, r)
		VMOVUPS(r, at(dst, 4, i))
	})
	end()
}

func lost8() {
	begin("lost8", "func(lost, src, code *byte, n int, scale float32)", "writes each float32 less its byte times scale.")
	lost, src, code, n, scale := pointer("lost"), pointer("src"), pointer("code"), pointer("n"), broadcast("scale")
	loop(n, []vectorIn{{lost, 4}, {src, 4}, {code, 1}}, func(i int) {
		x, v := YMM(), YMM()
		loadInt8(at(code, 1, i), v)
		VMULPS(scale, v, v)
		VMOVUPS(at(src, 4, i), x)
		VSUBPS(v, x, x)
		VMOVUPS(x, at(lost, 4, i))
	})
	end()
}

func divide() {
	begin("divideFloat32", "func(data *byte, n int, by float32)", "divides each float32.")
	data, n, by := pointer("data"), pointer("n"), broadcast("by")
	loop(n, []vectorIn{{data, 4}}, func(i int) {
		r := YMM()
		VMOVUPS(at(data, 4, i), r)
		VDIVPS(by, r, r)
		VMOVUPS(r, at(data, 4, i))
	})
	end()
}
