//go:build !amd64 || purego

package kernel

// fast is empty: there is no assembly for this processor, or it was left out.
//
//nolint:gochecknoglobals // a table
var fast [types]fastRow
