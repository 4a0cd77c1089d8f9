package discovery

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := Parse([]string{"a=10.0.0.1:7070", "b=h2:7070", "c=[::1]:7070"})
	want := []Server{{"a", "10.0.0.1:7070"}, {"b", "h2:7070"}, {"c", "[::1]:7070"}}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v, want %v", got, err, want)
	}
	if got, err := Parse(nil); got != nil || err != nil {
		t.Fatalf("an empty list gives %v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"a":                         `"a" is not of the form ID=HOST:PORT`,
		"=h:1":                      "is not of the form",
		"a=h":                       "is not of the form",
		"a=:1":                      "is not of the form",
		"a=h:1,a=h:2,b=h:3":         `server id "a" is given twice`,
		"a=h:1,b=h:1,c=h:3":         "address h:1 is given twice",
		"a=h:1,b=h:2":               "2 servers: use 1, 3 or 5",
		"a=h:1,b=h:2,c=h:3,x":       "4 servers",
		"a=h:1,b=h:2,c=x,d=h:4,e=y": `"e=y" is not of the form`,
	} {
		if got, err := Parse(strings.Split(list, ",")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v, want an error with %q", list, got, err, want)
		}
	}
}
