//go:build !amd64 || purego

package kernel

// fast is empty: there is no assembly for this processor, or it was left out.
//
//nolint:gochecknoglobals // a table
var fast [types]fastRow

// fastLen is none of n: what follows is never called.
func fastLen(int) int { return 0 }

func first([]float32) *byte { return nil }

const noAssembly = "kernel: there is no assembly here"

func encode16AVX2(_, _ *byte, _ int)                            { panic(noAssembly) }
func decode16AVX2(_, _ *byte, _ int)                            { panic(noAssembly) }
func decodeAdd16AVX2(_, _, _ *byte, _ int)                      { panic(noAssembly) }
func lost16AVX2(_, _, _ *byte, _ int)                           { panic(noAssembly) }
func largestAVX2(*byte, int) uint32                             { panic(noAssembly) }
func quantiseAVX2(_, _ *byte, _ int, _ float32)                 { panic(noAssembly) }
func dequantiseAVX2(_, _ *byte, _ int, _ float32)               { panic(noAssembly) }
func dequantiseAddAVX2(_, _, _ *byte, _ int, _ float32)         { panic(noAssembly) }
func lost8AVX2(_, _, _ *byte, _ int, _ float32)                 { panic(noAssembly) }
func divideFloat32AVX2(*byte, int, float32)                     { panic(noAssembly) }
func sumAllFloat32AVX2(_, _ *[]byte, _, _, _, _ int, _ float32) { panic(noAssembly) }
