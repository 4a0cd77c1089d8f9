package nvml

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestIslandNumbers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		numa  []int
		links string // pairs such as 0-1
		want  []int
	}{
		{"no GPU", nil, "", []int{}},
		{"one switch joins all", []int{0, 0, 1, 1}, "0-1 0-2 0-3 1-2 1-3 2-3", []int{0, 0, 0, 0}},
		{"bridges join pairs", []int{0, 0, 0, 0}, "0-2 1-3", []int{0, 1, 0, 1}},
		{"through others", []int{0, 0, 0, 0}, "2-3 0-3 1-2", []int{0, 0, 0, 0}},
		{"one stands alone", []int{0, 0, 0}, "0-2", []int{0, 1, 0}},
		{"no NVLink: sockets", []int{1, 0, 1, 0}, "", []int{0, 1, 0, 1}},
		{"nothing is known", []int{-1, -1, -1}, "", []int{0, 0, 0}},
		{"a GPU of unknown socket parts nobody", []int{0, -1, 1}, "", []int{0, 0, 0}},
	} {
		links := strings.Fields(c.links)
		got := islands(c.numa, func(a, b int) bool { return slices.Contains(links, fmt.Sprintf("%d-%d", a, b)) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
