package checkpoint

import (
	"fmt"
	"strconv"
	"strings"
)

// Best says by which metric how many checkpoints stay. In text it is loss:min, accuracy:max, or loss:min:3 for three.
type Best struct {
	Metric string
	Lowest bool // the lowest values are the best ones, as of a loss; otherwise the highest
	Count  int  // at least 1
}

// ParseBest reads a Best from text. The error says what was expected.
func ParseBest(text string) (Best, error) {
	parts := strings.Split(text, ":")
	b := Best{Metric: parts[0], Count: 1}
	ok := len(parts) >= 2 && len(parts) <= 3 && parts[0] != "" && (parts[1] == "min" || parts[1] == "max")
	if ok {
		b.Lowest = parts[1] == "min"
	}
	if ok && len(parts) == 3 {
		var err error
		b.Count, err = strconv.Atoi(parts[2])
		ok = err == nil && b.Count > 0
	}
	if !ok {
		return Best{}, fmt.Errorf("%q is not like loss:min, accuracy:max or loss:min:3", text)
	}
	return b, nil
}

// String gives the text that ParseBest reads.
func (b Best) String() string {
	out := b.Metric + ":max"
	if b.Lowest {
		out = b.Metric + ":min"
	}
	if b.Count != 1 {
		out += ":" + strconv.Itoa(b.Count)
	}
	return out
}
