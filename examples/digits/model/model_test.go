package model

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

func digits(t *testing.T) *Dataset {
	t.Helper()
	zipped, err := os.ReadFile("../data/digits.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	// Another file would be another test accuracy.
	const want = "46abec6b12486ad9e51943373abcf22bbea1b5a51a1619b361570d8893f1464a"
	if sum := sha256.Sum256(zipped); hex.EncodeToString(sum[:]) != want {
		t.Fatalf("digits.csv.gz has SHA-256 %x, want %s", sum, want)
	}
	data, err := Parse(zipped)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSplitIsFixed(t *testing.T) {
	t.Parallel()
	data := digits(t)
	if len(data.Train) != 1438 || len(data.Test) != 359 {
		t.Fatalf("%d training and %d test samples, want 1438 and 359", len(data.Train), len(data.Test))
	}
	var train, test [Classes]int
	for _, s := range data.Train {
		train[s.Label]++
	}
	for _, s := range data.Test {
		test[s.Label]++
	}
	if want := ([Classes]int{151, 161, 143, 131, 147, 154, 150, 136, 127, 138}); train != want {
		t.Errorf("training samples by digit: %v, want %v", train, want)
	}
	if want := ([Classes]int{27, 21, 34, 52, 34, 28, 31, 43, 47, 42}); test != want {
		t.Errorf("test samples by digit: %v, want %v", test, want)
	}
	// The file's line 5 is the first that is held out.
	if got := data.Test[0].Label; got != 4 {
		t.Errorf("the first held-out digit is %d, want 4", got)
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0,", Pixels) + "3\n"
	for want, text := range map[string]string{
		"line 2: has 3 numbers, want 65":              good + "1,2,3\n",
		`number 1 is "17", want a whole number in`:    "17," + good[2:],
		`number 65 is "10", want a whole number in 0`: good[:2*Pixels] + "10\n",
		"both parts need some":                        good,
	} {
		var zipped bytes.Buffer
		w := gzip.NewWriter(&zipped)
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(zipped.Bytes()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := Parse([]byte("not gzip")); err == nil {
		t.Error("parsed something that is not gzip")
	}
}

// TestGradient compares each parameter's derivative with a finite difference of the loss.
func TestGradient(t *testing.T) {
	t.Parallel()
	samples := digits(t).Train[:20]
	n := NewNetwork(7, 3)
	all := make([]int, len(samples))
	for i := range all {
		all[i] = i
	}
	grad := make([]float32, len(n.Params))
	loss := n.AddGradient(samples, all, grad)
	if mean := n.Loss(samples); math.Abs(loss/float64(len(samples))-mean) > 1e-12 {
		t.Errorf("AddGradient's mean loss is %v, Loss says %v", loss/float64(len(samples)), mean)
	}
	const step = 1.0 / 512 // exact in float32; larger steps cross kinks of the rectifiers, smaller ones drown in rounding
	worst := 0.0
	for i, w := range n.Params {
		n.Params[i] = w + step
		up := n.Loss(samples)
		high := n.Params[i]
		n.Params[i] = w - step
		down := n.Loss(samples)
		low := n.Params[i]
		n.Params[i] = w
		slope := (up - down) / (float64(high) - float64(low))
		worst = max(worst, math.Abs(slope-float64(grad[i])/float64(len(samples))))
	}
	if worst > 1e-4 {
		t.Errorf("a derivative is off by %v", worst)
	}
	t.Logf("largest difference %.1e", worst)
}

func TestGradientAddsUpOverSlices(t *testing.T) {
	t.Parallel()
	data := digits(t)
	n := NewNetwork(5, 1)
	whole, parts := make([]float32, len(n.Params)), make([]float32, len(n.Params))
	p := Plan{Samples: len(data.Train), Batch: 50, Slices: 8, Seed: 1}
	batch := p.Indices(3, Order(1, 0, p.Samples))
	n.AddGradient(data.Train, batch, whole)
	for s := range p.Slices {
		n.AddGradient(data.Train, p.Slice(batch, s), parts)
	}
	if !slices.Equal(whole, parts) {
		t.Error("the gradient of a batch is not that of its slices, one after the other")
	}
}

func TestPlanVisitsEverySampleOnceAnEpoch(t *testing.T) {
	t.Parallel()
	for _, p := range []Plan{
		{Samples: 1438, Batch: 64, Slices: 8},
		{Samples: 10, Batch: 3, Slices: 8}, // slices without samples
		{Samples: 7, Batch: 7, Slices: 1},
		{Samples: 1, Batch: 1, Slices: 3},
	} {
		for epoch := range 3 {
			order := Order(9, uint64(epoch), p.Samples)
			var seen []int
			for i := range p.StepsPerEpoch() {
				step := epoch*p.StepsPerEpoch() + i
				if p.Epoch(step) != epoch {
					t.Fatalf("%+v: step %d is of epoch %d, want %d", p, step, p.Epoch(step), epoch)
				}
				for s := range p.Slices {
					seen = append(seen, p.Slice(p.Indices(step, order), s)...)
				}
			}
			slices.Sort(seen)
			for i := range p.Samples {
				if len(seen) != p.Samples || seen[i] != i {
					t.Fatalf("%+v: epoch %d visits %v", p, epoch, seen)
				}
			}
		}
	}
	if slices.Equal(Order(1, 0, 100), Order(1, 1, 100)) || slices.Equal(Order(1, 0, 100), Order(2, 0, 100)) {
		t.Error("two epochs or two seeds have the same order")
	}
}

// TestOrderStaysTheSame would fail if a new Go version changed the generator: old checkpoints would resume differently.
func TestOrderStaysTheSame(t *testing.T) {
	t.Parallel()
	if got, want := Order(1, 2, 8), []int{2, 6, 5, 0, 1, 7, 4, 3}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestExp(t *testing.T) {
	t.Parallel()
	for x := 0.0; x > -60; x -= 0.037 {
		if got, want := exp(x), math.Exp(x); math.Abs(got/want-1) > 1e-15 {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	if exp(0) != 1 || exp(-1e9) != 0 || exp(math.Inf(-1)) != 0 || !math.IsNaN(exp(math.NaN())) {
		t.Error("exp is wrong at its ends")
	}
}

// TestDescendIgnoresTheSignOfZero: a row's -0 becomes +0 when other ranks add their zeros to it.
func TestDescendIgnoresTheSignOfZero(t *testing.T) {
	t.Parallel()
	minus := float32(math.Copysign(0, -1))
	var hashes, velocities []uint32
	for _, zero := range []float32{0, minus} {
		n := &Network{Params: []float32{minus}}
		velocity := []float32{0}
		if err := n.Descend([]float32{zero, zero}, velocity, 2, 0.1, 0.9); err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, math.Float32bits(n.Params[0]))
		velocities = append(velocities, math.Float32bits(velocity[0]))
	}
	if hashes[0] != hashes[1] || velocities[0] != velocities[1] {
		t.Errorf("parameter bits %x, velocity bits %x: differ between +0 and -0", hashes, velocities)
	}
	if err := (&Network{Params: []float32{1}}).Descend([]float32{1}, []float32{1}, 0, 1, 1); err == nil {
		t.Error("a mean over no samples was taken")
	}
}
