package gpu

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Kind says where GPUs come from.
type Kind string

// The kinds of GPU source that a spec can name.
const (
	// KindAuto asks NVML and goes on with zero GPUs if there is no driver.
	KindAuto Kind = "auto"
	// KindNVML asks NVML and fails if there is no driver.
	KindNVML Kind = "nvml"
	// KindNone shows no GPU.
	KindNone Kind = "none"
	// KindFake emulates GPUs.
	KindFake Kind = "fake"
)

// MaxFakeGPUs bounds the GPUs of one emulated node. The largest single-image machines sold hold 72; more is
// most likely a typing error, and every GPU costs a row in each report.
const MaxFakeGPUs = 256

// SpecForms lists the allowed forms of a spec; errors and help texts show it.
const SpecForms = "allowed: auto | nvml | none | fake:8xH100 | fake:4xA100+2xL4 | fake:8xA100/4 (NVLink islands of 4) | " +
	"fake:7xH100-1g.10gb (MIG instances) | fake:8xH100:memory=80GiB,seed=7"

// FakeGroup is a number of equal emulated GPUs.
type FakeGroup struct {
	// Count is at least 1.
	Count int
	// Type is a lower-case type word such as "h100", or that of a MIG instance such as "h100-1g.10gb".
	Type string
	// Island is how many of the GPUs make one NVLink island, the last one may have fewer; 0: the group is one island.
	// No island reaches into another group.
	Island int
}

// Spec is a parsed --gpus value.
type Spec struct {
	// Kind says where GPUs come from; the fields below matter for KindFake alone.
	Kind Kind
	// Groups are the emulated GPUs in index order.
	Groups []FakeGroup
	// MemBytes overrides the memory of every emulated GPU, in bytes; 0 means the product's own size.
	MemBytes int64
	// Seed makes the UUIDs of two emulations with equal node names differ; default 0.
	Seed uint64
}

// ParseSpec reads a --gpus value; SpecForms shows what is allowed. It is pure: whether a driver or a fake
// type exists is found out when the spec is opened.
func ParseSpec(text string) (Spec, error) {
	kind, rest, hasRest := strings.Cut(strings.TrimSpace(text), ":")
	switch k := Kind(kind); k {
	case KindAuto, KindNVML, KindNone:
		if hasRest {
			return Spec{}, specError(text, fmt.Sprintf("%q takes no options", kind))
		}
		return Spec{Kind: k}, nil
	case KindFake:
		return parseFake(text, rest)
	}
	return Spec{}, specError(text, fmt.Sprintf("unknown kind %q", kind))
}

func parseFake(text, rest string) (Spec, error) {
	spec := Spec{Kind: KindFake}
	groups, options, hasOptions := strings.Cut(rest, ":")
	total := 0
	for part := range strings.SplitSeq(groups, "+") {
		group, err := parseGroup(part)
		if err != nil {
			return Spec{}, specError(text, err.Error())
		}
		if total += group.Count; total > MaxFakeGPUs {
			return Spec{}, specError(text, fmt.Sprintf("more than %d GPUs on one node", MaxFakeGPUs))
		}
		spec.Groups = append(spec.Groups, group)
	}
	if !hasOptions {
		return spec, nil
	}
	for option := range strings.SplitSeq(options, ",") {
		if err := spec.setOption(option); err != nil {
			return Spec{}, specError(text, err.Error())
		}
	}
	return spec, nil
}

// parseGroup reads "8xH100" or "8xA100/4".
func parseGroup(part string) (FakeGroup, error) {
	countText, typeText, ok := strings.Cut(part, "x")
	if !ok {
		return FakeGroup{}, fmt.Errorf("%q is not COUNTxTYPE such as 8xH100", part)
	}
	count, err := strconv.Atoi(countText)
	if err != nil || count < 1 || count > MaxFakeGPUs {
		return FakeGroup{}, fmt.Errorf("count %q in %q is not a number from 1 to %d", countText, part, MaxFakeGPUs)
	}
	typeText, islandText, hasIsland := strings.Cut(typeText, "/")
	island := 0
	if hasIsland {
		if island, err = strconv.Atoi(islandText); err != nil || island < 1 || island > count {
			return FakeGroup{}, fmt.Errorf("island %q in %q is not a number of GPUs from 1 to %d", islandText, part, count)
		}
	}
	word := strings.ToLower(typeText)
	board, _, isInstance := SplitInstanceType(word)
	if !isInstance {
		board = word
	}
	if board == "" || strings.Trim(board, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return FakeGroup{}, fmt.Errorf("type %q in %q is not a word of letters and digits, or one of a MIG instance such as h100-1g.10gb", typeText, part)
	}
	return FakeGroup{Count: count, Type: word, Island: island}, nil
}

func (s *Spec) setOption(option string) error {
	key, value, _ := strings.Cut(option, "=")
	var err error
	switch key {
	case "memory":
		s.MemBytes, err = parseBytes(value)
	case "seed":
		if s.Seed, err = strconv.ParseUint(value, 10, 64); err != nil {
			err = fmt.Errorf("seed %q is not a number >= 0", value)
		}
	default:
		err = fmt.Errorf("unknown option %q (memory=, seed=)", option)
	}
	return err
}

// parseBytes reads a size such as "80GiB" or "40000MB".
func parseBytes(text string) (int64, error) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	var unit int64
	switch text[len(digits):] {
	case "MiB":
		unit = 1 << 20
	case "GiB":
		unit = 1 << 30
	case "MB":
		unit = 1e6
	case "GB":
		unit = 1e9
	default:
		return 0, fmt.Errorf("memory %q needs a unit: MiB, GiB, MB or GB", text)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("memory %q is not a size such as 80GiB", text)
	}
	return n * unit, nil
}

func specError(text, why string) error {
	return errors.New("gpus spec " + strconv.Quote(text) + ": " + why + "; " + SpecForms)
}
