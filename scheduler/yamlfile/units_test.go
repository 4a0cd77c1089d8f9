package yamlfile

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "2d12h": 60 * time.Hour, "1.5d": 36 * time.Hour, "250ms": 250 * time.Millisecond, "0s": 0,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "-5s", "1d-5s", "d", "1d0", "9999d", "x"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{
		"168h": 168 * time.Hour, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute, "1h0m1s": time.Hour + time.Second, "0s": 0, "500ms": time.Second / 2,
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Min(0).Draw(t, "d"))
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%s becomes %s, %v", d, got, err)
		}
	})
}

func TestParseBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"64GiB": 64 << 30, "1.5TB": 1.5e12, "512 KiB": 512 << 10} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "64", "64Gib", "-1GiB", "GiB", "9e30TiB"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	allowed := []string{"order", "queues"}
	for in, want := range map[string]string{
		"ordr": ` (did you mean "order"?)`, "queue": ` (did you mean "queues"?)`, "preemption": "", strings.Repeat("order", 1000): "",
	} {
		if got := Suggest(in, allowed); got != want {
			t.Errorf("%.20s: got %s, want %s", in, got, want)
		}
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	n, err := Document([]byte("a: &x [1]\nb: *x\n"))
	if err != nil || n.Content[3].Content[0].Value != "1" {
		t.Fatalf("%+v, %v", n, err)
	}
	for file, want := range map[string]string{
		"# nothing\n":             "is empty",
		"a: 1\n---\nb: 2\n":       "line 2, column 1: a second document begins here",
		"a: &a [[*a]]":            "line 1, column 9: the alias *a stands inside of what it names",
		"a: *b":                   "not valid YAML",
		"a: 1\n--- {":             "not valid YAML",
		strings.Repeat("[", 1000): "",
		strings.Repeat("[", 100) + strings.Repeat("]", 100): "more than 64 levels of nesting",
	} {
		if _, err := Document([]byte(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: got %v, want %s", file, err, want)
		}
	}
}
