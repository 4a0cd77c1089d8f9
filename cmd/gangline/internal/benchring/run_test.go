package benchring

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/kernel"
)

// TestMain lets the test binary be one of our ranks.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "rank" {
		if err := Rank(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestBesidePeers: ours and the peers that are installed make the same sums in one run.
func TestBesidePeers(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), Config{
		Ranks: 2, Bytes: 4 * 5000, Type: "float32", Path: "auto", Wire: "exact", Peers: []string{"gloo", "ompi"}, Rounds: 1, Calls: 3, Alloc: true,
		Command: []string{self, "rank"}, Log: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Checked || report.Median <= 0 || report.BusBandwidth <= 0 {
		t.Errorf("ours: %+v", report)
	}
	for name, p := range report.Peers {
		if p.Median <= 0 || p.Ratio != p.Median/report.Median {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if len(report.Peers)+len(report.Missing) != 3 {
		t.Errorf("peers %v, missing %v: want three in all", report.Peers, report.Missing)
	}
	if len(report.Missing) > 0 {
		t.Skip(strings.Join(report.Missing, "; "))
	}
}

// TestPatternFindsOneWrongElement: a single wrong byte anywhere is found, in each type.
func TestPatternFindsOneWrongElement(t *testing.T) {
	t.Parallel()
	for _, typ := range []allreduce.Type{
		allreduce.Float32, allreduce.Float64, allreduce.Float16, allreduce.BFloat16, allreduce.Int8, allreduce.Int32, allreduce.Int64,
	} {
		const ranks, length = 3, 2*stretch + 7
		patterns := make([]*pattern, ranks)
		for r := range patterns {
			patterns[r] = newPattern(typ, make([]byte, length*typ.Size()), r, ranks)
			patterns[r].fill()
		}
		p := patterns[0]
		if p.wrong() < 0 {
			t.Errorf("%v: the input passes for the sum", typ)
		}
		for _, other := range patterns[1:] {
			kernel.Reduce(kernel.Sum, typ, p.data, other.data)
		}
		if at := p.wrong(); at >= 0 {
			t.Errorf("%v: element %d of the sum is said to be wrong", typ, at)
		}
		for _, at := range []int{0, stretch, length - 1} {
			good := slices.Clone(p.data)
			p.data[at*typ.Size()] ^= 1
			if got := p.wrong(); got != at {
				t.Errorf("%v: element %d is wrong, found was %d", typ, at, got)
			}
			copy(p.data, good)
		}
	}
}

// TestFailuresAreTold: a rank that cannot run says why, and all that is wrong with a config is told at once.
func TestFailuresAreTold(t *testing.T) {
	t.Parallel()
	cfg := Config{Ranks: 2, Bytes: 64, Type: "float32", Wire: "exact", Rounds: 1, Calls: 1, Log: io.Discard, Command: []string{"sh", "-c", "echo no such thing >&2; exit 3"}}
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("Run says %v", err)
	}
	cfg = Config{Ranks: 100, Bytes: 7, Type: "float64", Path: "x", Wire: "int8", Rate: "fast", Peers: []string{"y"}}
	err := cfg.Validate()
	for _, part := range []string{"--ranks 100", "--bytes 7", "--path", "--rounds", `--peer "y"`, "--wire int8", `--rate "fast"`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Validate says %v, not %q", err, part)
		}
	}
}

// TestNarrowFormsAreChecked: sums that lost something on the wire are right within its bound, and others are found out.
func TestNarrowFormsAreChecked(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), Config{
		Ranks: 3, Bytes: 4 * 5000, Type: "float32", Path: "tcp", Wire: "int8", Rounds: 1, Calls: 3, Command: []string{self, "rank"}, Log: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	if exact := report.Peers["gangline-exact"]; !report.Checked || exact.Median <= 0 {
		t.Errorf("%+v", report)
	}
	p := newPattern(allreduce.Float32, make([]byte, 4*3000), 0, 1)
	p.over(allreduce.WireInt8, 1)
	p.fill()
	if at := p.wrong(); at >= 0 {
		t.Errorf("element %d of the exact sum is said to be wrong", at)
	}
	p.data[4*2500+3] ^= 0x40 // of the exponent
	if at := p.wrong(); at != 2500 {
		t.Errorf("element 2500 is wrong, found was %d", at)
	}
}
