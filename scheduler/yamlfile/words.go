package yamlfile

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Error is a problem at one place of a file.
type Error struct {
	Line, Column int // from 1; 0: not of a file, such as a flag's value
	Text         string
}

// Error returns the text with its place.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Text)
}

// At makes an Error at the place of a node.
func At(n *yaml.Node, format string, args ...any) error {
	return &Error{n.Line, n.Column, fmt.Sprintf(format, args...)}
}

// Null reports whether a value was left out, as in "key:" with nothing behind it.
func Null(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// Kind says in words what a node is.
func Kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "map"
	case n.Kind == yaml.SequenceNode:
		return "list"
	case Null(n):
		return "nothing"
	default:
		return "single value"
	}
}

// Unknown describes a word that is none of the allowed ones, and names the one
// that was probably meant.
func Unknown(n *yaml.Node, what string, allowed []string) error {
	return At(n, "unknown %s %q%s: allowed are %s", what, n.Value, Suggest(n.Value, allowed), strings.Join(allowed, ", "))
}

// Suggest returns ` (did you mean "x"?)` for a near miss of an allowed word,
// or nothing.
func Suggest(word string, allowed []string) string {
	best, least := "", 3
	if len(word) > 64 {
		return "" // nothing that long is a misspelt field
	}
	for _, a := range allowed {
		if d := distance(word, a); d < least {
			best, least = a, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance is Levenshtein's distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(prev[j+1]+1, row[j]+1, prev[j]+cost)
		}
	}
	return row[len(b)]
}
