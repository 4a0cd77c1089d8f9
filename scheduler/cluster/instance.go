package cluster

import "strings"

// A GPU in MIG mode stands in a node's inventory as its instances, each a GPU of
// a type of its own: that of the board and the profile, such as
// "h100-1g.10gb" or "a30-2g.12gb". An instance is a part of a GPU, and most
// collectives do not work between instances, so that nobody gets one who has
// not asked for it by its type.

// InstanceOf returns the type of the board and the compute slices of an instance's
// type; false if it is that of a whole GPU.
func InstanceOf(gpuType string) (board string, slices int64, ok bool) {
	board, profile, ok := strings.Cut(gpuType, "-")
	if !ok || board == "" {
		return "", 0, false
	}
	if compute, rest, has := strings.Cut(profile, "c."); has { // 1c.3g.40gb: one of the three slices
		if slices, ok = digits(compute); !ok {
			return "", 0, false
		}
		profile = rest
	}
	of, memory, ok := strings.Cut(profile, "g.")
	all, isNumber := digits(of)
	if !ok || !isNumber || !strings.Contains(memory, "gb") {
		return "", 0, false
	}
	if slices == 0 {
		slices = all
	}
	return board, slices, true
}

// digits reads a number of one or two digits.
func digits(s string) (n int64, ok bool) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, n > 0 && len(s) <= 2
}

// slicesOf is how many compute slices a board has: seven, but for the A30.
func slicesOf(board string) int64 {
	if board == "a30" {
		return 4
	}
	return 7
}
