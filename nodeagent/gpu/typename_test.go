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
