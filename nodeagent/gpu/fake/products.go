package fake

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// product holds the public figures of one board: name and memory as NVML reports them, board power limit and
// highest SM clock from the maker's data sheets.
type product struct {
	name      string
	memMiB    int64
	maxWatts  float64
	maxSMMHz  float64
	idleWatts float64
}

// products is keyed by type word; gpu.TypeFromName of each name gives its key (tested).
var products = map[string]product{ //nolint:gochecknoglobals // table of real products
	"a10":        {"NVIDIA A10", 23028, 150, 1695, 18},
	"a100":       {"NVIDIA A100-SXM4-80GB", 81920, 400, 1410, 60},
	"a10g":       {"NVIDIA A10G", 23028, 300, 1710, 20},
	"a30":        {"NVIDIA A30", 24576, 165, 1440, 28},
	"a6000":      {"NVIDIA RTX A6000", 49140, 300, 2100, 22},
	"b200":       {"NVIDIA B200", 183359, 1000, 1965, 140},
	"gh200":      {"NVIDIA GH200 480GB", 97871, 900, 1980, 100},
	"h100":       {"NVIDIA H100 80GB HBM3", 81559, 700, 1980, 70},
	"h200":       {"NVIDIA H200", 143771, 700, 1980, 75},
	"l4":         {"NVIDIA L4", 23034, 72, 2040, 12},
	"l40":        {"NVIDIA L40", 46068, 300, 2490, 33},
	"l40s":       {"NVIDIA L40S", 46068, 350, 2520, 33},
	"p100":       {"Tesla P100-PCIE-16GB", 16384, 250, 1328, 26},
	"rtx4090":    {"NVIDIA GeForce RTX 4090", 24564, 450, 3105, 20},
	"rtx6000ada": {"NVIDIA RTX 6000 Ada Generation", 49140, 300, 3105, 22},
	"t4":         {"Tesla T4", 15360, 70, 1590, 10},
	"v100":       {"Tesla V100-SXM2-32GB", 32768, 300, 1530, 42},
}

// productOf returns the figures of a type. A MIG instance has the memory that its profile names; its readings of power
// and clock are its GPU's and so are left out, as NVML does.
func productOf(typ string) (product, bool) {
	if p, known := products[typ]; known {
		return p, true
	}
	board, profile, instance := gpu.SplitInstanceType(typ)
	whole, known := products[board]
	if !instance || !known {
		return product{}, false
	}
	_, rest, _ := strings.Cut(profile, "g.")
	digits, _, _ := strings.Cut(rest, "gb")
	gb, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || gb < 1 {
		return product{}, false
	}
	return product{name: whole.name + " MIG " + profile, memMiB: gb << 10}, true
}

// Types returns the type words whose figures are known, sorted. Any other type needs an explicit memory size.
func Types() []string { return slices.Sorted(maps.Keys(products)) }
