package yamlfile

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// byteUnits are the units of memory, longest suffix first.
var byteUnits = []struct { //nolint:gochecknoglobals // table
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
}

// ParseBytes reads sizes such as 64GiB, 1.5TB or 1024MiB. A bare number is
// refused: nobody agrees on its unit.
func ParseBytes(v string) (int64, error) {
	for _, u := range byteUnits {
		num, ok := strings.CutSuffix(v, u.suffix)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if b := f * u.bytes; err == nil && f >= 0 && b < math.MaxInt64/2 {
			return int64(b), nil
		}
	}
	return 0, fmt.Errorf("%q is not a size with a unit: write it like 64GiB (allowed units: KiB MiB GiB TiB, KB MB GB TB)", v)
}

// ParseDuration reads durations such as 90s, 15m, 24h or 2d12h. They are never
// negative, and a bare number is refused: nobody agrees on its unit.
func ParseDuration(v string) (time.Duration, error) {
	rest, days := v, 0.0
	if i := strings.Index(v, "d"); i > 0 {
		n, err := strconv.ParseFloat(v[:i], 64)
		if err != nil || n < 0 || n > 3650 {
			return 0, badDuration(v)
		}
		days, rest = n, v[i+1:]
	}
	d := time.Duration(days * float64(24*time.Hour))
	if rest != "" {
		r, err := time.ParseDuration(rest)
		if err != nil || r < 0 || rest == "0" && days > 0 {
			return 0, badDuration(v)
		}
		d += r
	}
	if v == "" || d < 0 {
		return 0, badDuration(v)
	}
	return d, nil
}

func badDuration(v string) error {
	return fmt.Errorf("%q is not a duration with a unit: write it like 90s, 15m, 24h or 2d (allowed units: ms s m h d)", v)
}

// FormatDuration writes a duration so that ParseDuration reads the same one:
// 168h, 5m, 90s, 1h30m, 500ms.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
