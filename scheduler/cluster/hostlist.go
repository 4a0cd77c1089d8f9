package cluster

import (
	"fmt"
	"strconv"
	"strings"
)

// maxHosts is how many names one pattern may stand for.
const maxHosts = MaxNodes

// Hosts returns the names that a pattern stands for, as Slurm writes them: "n7"
// itself, "n[1-4,8]" for n1 to n4 and n8, "n[001-128]" with leading zeros, and
// "r[1-2]n[1-8]" for all of both. An error says what is wrong with it.
func Hosts(pattern string) ([]string, error) {
	names := []string{""}
	for rest := pattern; rest != ""; {
		open := strings.IndexByte(rest, '[')
		if open < 0 {
			open = len(rest)
		}
		lead, parts := rest[:open], []string{""}
		rest = rest[open:]
		if rest != "" {
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return nil, fmt.Errorf("%q: a bracket is not closed", pattern)
			}
			var err error
			if parts, err = hostNumbers(rest[1:end], maxHosts/len(names)); err != nil {
				return nil, fmt.Errorf("%q: %w", pattern, err)
			}
			rest = rest[end+1:]
		}
		next := make([]string, 0, len(names)*len(parts))
		for _, n := range names {
			for _, p := range parts {
				next = append(next, n+lead+p)
			}
		}
		names = next
	}
	for _, n := range names {
		if n == "" || len(n) > MaxNameLen || strings.ContainsFunc(n, control) || strings.ContainsAny(n, "[], \t") {
			return nil, fmt.Errorf("%q is not a node's name, nor a pattern such as n[001-032,040]", pattern)
		}
	}
	return names, nil
}

// hostNumbers reads what is in brackets: "1-4,8".
func hostNumbers(list string, most int) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(list, ",") {
		first, last, span := strings.Cut(part, "-")
		if !span {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 31)
		to, err2 := strconv.ParseUint(last, 10, 31)
		switch {
		case err1 != nil || err2 != nil:
			return nil, fmt.Errorf("%q is not a number or a range such as 1-4", part)
		case to < from:
			return nil, fmt.Errorf("%q: the smaller number comes first", part)
		case to-from >= uint64(most-len(out)): //nolint:gosec // not negative
			return nil, fmt.Errorf("it stands for more than %d nodes", maxHosts)
		}
		for i := from; i <= to; i++ {
			out = append(out, fmt.Sprintf("%0*d", len(first), i))
		}
	}
	return out, nil
}
