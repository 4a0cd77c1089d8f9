package gpu_test

import (
	"regexp"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/nodeagent/gpu"
)

func TestTypeFromName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"NVIDIA H100 80GB HBM3":            "h100",
		"NVIDIA H100 PCIe":                 "h100",
		"NVIDIA H100 NVL":                  "h100",
		"NVIDIA H200":                      "h200",
		"NVIDIA H20-3e":                    "h20",
		"NVIDIA GH200 480GB":               "gh200",
		"NVIDIA B200":                      "b200",
		"NVIDIA GB200":                     "gb200",
		"NVIDIA A100-SXM4-40GB":            "a100",
		"NVIDIA A100 80GB PCIe":            "a100",
		"A100-SXM4-80GB":                   "a100",
		"NVIDIA A800-SXM4-80GB":            "a800",
		"NVIDIA A100-SXM4-40GB MIG 1g.5gb": "a100",
		"NVIDIA A10G":                      "a10g",
		"NVIDIA L4":                        "l4",
		"NVIDIA L40S":                      "l40s",
		"Tesla V100-SXM2-16GB":             "v100",
		"Tesla T4":                         "t4",
		"Tesla P100-PCIE-16GB":             "p100",
		"Quadro RTX 8000":                  "rtx8000",
		"Quadro GV100":                     "gv100",
		"NVIDIA RTX A6000":                 "a6000",
		"NVIDIA RTX 6000 Ada Generation":   "rtx6000ada",
		"NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtxpro6000",
		"NVIDIA GeForce RTX 4090":                      "rtx4090",
		"NVIDIA GeForce RTX 4060 Ti":                   "rtx4060ti",
		"NVIDIA GeForce RTX 4070 Laptop GPU":           "rtx4070laptop",
		"GeForce GTX 1080 Ti":                          "gtx1080ti",
		"NVIDIA TITAN RTX":                             "titanrtx",
		"TITAN X (Pascal)":                             "titanx",
		"NVIDIA CMP 170HX":                             "cmp170hx",
		"NVIDIA Graphics Device":                       "graphicsdevice",
		"NVIDIA":                                       "unknown",
		"":                                             "unknown",
	} {
		if got := gpu.TypeFromName(name); got != want {
			t.Errorf("TypeFromName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestInstanceTypes(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"NVIDIA H100 80GB HBM3 MIG 1g.10gb":      "h100-1g.10gb",
		"NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb":   "a100-1c.3g.20gb",
		"NVIDIA H100 80GB HBM3 MIG 1g.10gb+me":   "h100-1g.10gb.me",
		"NVIDIA H200 MIG 7g.141gb":               "h200-7g.141gb",
		"NVIDIA A100-SXM4-40GB":                  "",
		"NVIDIA A100-SXM4-40GB MIG 1g.5gb extra": "",
	} {
		profile := gpu.ProfileFromName(name)
		if profile == "" {
			if want != "" {
				t.Errorf("%q has no profile, want type %q", name, want)
			}
			continue
		}
		typ := gpu.InstanceType(gpu.TypeFromName(name), profile)
		if typ != want {
			t.Errorf("type of %q = %q, want %q", name, typ, want)
		}
		if board, rest, ok := gpu.SplitInstanceType(typ); !ok || gpu.InstanceType(board, rest) != typ {
			t.Errorf("%q splits into %q and %q", typ, board, rest)
		}
	}
	for _, whole := range []string{"h100", "rtx6000ada", "h100-", "-1g.10gb", "h100-80gb", "gpu-1g"} {
		if _, _, ok := gpu.SplitInstanceType(whole); ok {
			t.Errorf("%q passes for the type of an instance", whole)
		}
	}
}

// TestProfileFromSlices: sizes about those of NVIDIA's tables, a little below what the profile is called by.
func TestProfileFromSlices(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		compute, slices int
		mem, total      int64
		want            string
	}{
		{1, 1, 4864, 40960, "1g.5gb"},   // A100 40GB
		{3, 3, 19968, 40960, "3g.20gb"}, // A100 40GB
		{1, 3, 19968, 40960, "1c.3g.20gb"},
		{1, 1, 9728, 81920, "1g.10gb"},     // A100 80GB
		{1, 1, 9856, 81559, "1g.10gb"},     // H100 80GB
		{1, 1, 19968, 81559, "1g.20gb"},    // H100 80GB
		{7, 7, 81248, 81559, "7g.80gb"},    // H100 80GB
		{1, 1, 16384, 143771, "1g.18gb"},   // H200
		{1, 1, 5952, 24576, "1g.6gb"},      // A30
		{1, 1, 23552, 183359, "1g.23gb"},   // B200
		{2, 2, 24 << 10, 0, "2g.24gb"},     // the GPU's own memory is not known
		{2, 2, 24<<10 - 5, 0, "2g.24gb"},   // nor here
		{4, 4, 40 << 10, 81559, "4g.40gb"}, // H100 80GB
	} {
		if got := gpu.ProfileFromSlices(c.compute, c.slices, c.mem, c.total); got != c.want {
			t.Errorf("%d, %d, %d of %d MiB = %q, want %q", c.compute, c.slices, c.mem, c.total, got, c.want)
		}
	}
}

func TestTypeFromNameIsAlwaysAWord(t *testing.T) {
	t.Parallel()
	word := regexp.MustCompile(`^[a-z0-9]+$`)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		if got := gpu.TypeFromName(name); !word.MatchString(got) {
			t.Fatalf("TypeFromName(%q) = %q: not a word", name, got)
		}
	})
}
