package cluster

import (
	"strings"
	"testing"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"n7":              "n7",
		"n[1-3,8]":        "n1 n2 n3 n8",
		"n[008-011]":      "n008 n009 n010 n011",
		"n[8-11].lab":     "n8.lab n9.lab n10.lab n11.lab",
		"r[1-2]n[1-2]":    "r1n1 r1n2 r2n1 r2n2",
		"[1-2]":           "1 2",
		"":                "! is not a node's name",
		"n[1-3":           "! a bracket is not closed",
		"n[]":             `! "" is not a number or a range`,
		"n[a-b]":          `! "a-b" is not a number or a range such as 1-4`,
		"n[3-1]":          "! the smaller number comes first",
		"n]":              "! is not a node's name",
		"a b":             "! is not a node's name",
		"n[1-9999999]":    "! more than 65536 nodes",
		"n[1-999][1-999]": "! more than 65536 nodes",
		"n[1,2-65536]":    "n1 n2 ",
	} {
		got, err := Hosts(pattern)
		if fail, bad := strings.CutPrefix(want, "! "); bad {
			if err == nil || !strings.Contains(err.Error(), fail) {
				t.Errorf("%q: got %v, %v, want %q", pattern, len(got), err, fail)
			}
		} else if text := strings.Join(got, " "); err != nil || !strings.HasPrefix(text, want) || (len(got) < 9 && text != want) {
			t.Errorf("%q: got %.60s, %v, want %s", pattern, text, err, want)
		}
	}
}
