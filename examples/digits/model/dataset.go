package model

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"strconv"
	"strings"
)

const (
	// Pixels is the number of inputs: 8 x 8.
	Pixels = 64
	// Classes is the number of outputs: the digits 0 to 9.
	Classes = 10

	maxGrey   = 16
	foldCount = 5 // every fifth sample is held out
)

// Sample is one scanned digit.
type Sample struct {
	// Pixels are grey values from 0 (paper) to 1 (ink), row by row.
	Pixels [Pixels]float32
	// Label is the digit, 0..9.
	Label int
}

// Dataset is split once and for all: sample i of the file is held out for the test if i mod 5 is 4. It is only read
// after Parse and safe for concurrent use.
type Dataset struct {
	Train, Test []Sample
}

// Parse reads gzipped lines of 65 whole numbers: 64 pixels of 0..16, then the label 0..9. It checks each value.
func Parse(zipped []byte) (*Dataset, error) {
	r, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil, fmt.Errorf("unpack the digits data: %w", err)
	}
	data := &Dataset{}
	lines := bufio.NewScanner(r)
	for i := 0; lines.Scan(); i++ {
		s, err := parseSample(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("digits data, line %d: %w", i+1, err)
		}
		if i%foldCount == foldCount-1 {
			data.Test = append(data.Test, s)
		} else {
			data.Train = append(data.Train, s)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the digits data: %w", err)
	}
	if len(data.Train) == 0 || len(data.Test) == 0 {
		return nil, fmt.Errorf("digits data: %d training and %d test samples: both parts need some", len(data.Train), len(data.Test))
	}
	return data, nil
}

func parseSample(line string) (Sample, error) {
	var s Sample
	fields := strings.Split(line, ",")
	if len(fields) != Pixels+1 {
		return s, fmt.Errorf("has %d numbers, want %d", len(fields), Pixels+1)
	}
	for i, field := range fields {
		limit := maxGrey
		if i == Pixels {
			limit = Classes - 1
		}
		n, err := strconv.Atoi(field)
		if err != nil || n < 0 || n > limit {
			return s, fmt.Errorf("number %d is %q, want a whole number in 0..%d", i+1, field, limit)
		}
		if i == Pixels {
			s.Label = n
		} else {
			s.Pixels[i] = float32(n) / maxGrey
		}
	}
	return s, nil
}
