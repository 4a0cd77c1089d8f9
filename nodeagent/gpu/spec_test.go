package gpu_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/nodeagent/gpu"
)

func TestParseSpec(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]gpu.Spec{
		"auto":        {Kind: gpu.KindAuto},
		" nvml ":      {Kind: gpu.KindNVML},
		"none":        {Kind: gpu.KindNone},
		"fake:8xH100": {Kind: gpu.KindFake, Groups: []gpu.FakeGroup{{Count: 8, Type: "h100"}}},
		"fake:4xA100+2xL4": {
			Kind: gpu.KindFake, Groups: []gpu.FakeGroup{{Count: 4, Type: "a100"}, {Count: 2, Type: "l4"}},
		},
		"fake:8xA100/4+2xL4/1": {
			Kind: gpu.KindFake, Groups: []gpu.FakeGroup{{Count: 8, Type: "a100", Island: 4}, {Count: 2, Type: "l4", Island: 1}},
		},
		"fake:14xH100-1g.10gb": {Kind: gpu.KindFake, Groups: []gpu.FakeGroup{{Count: 14, Type: "h100-1g.10gb"}}},
		"fake:8xH100:memory=80GiB,seed=7": {
			Kind: gpu.KindFake, Groups: []gpu.FakeGroup{{Count: 8, Type: "h100"}}, MemBytes: 80 << 30, Seed: 7,
		},
		"fake:1xl4:memory=24000MB": {
			Kind: gpu.KindFake, Groups: []gpu.FakeGroup{{Count: 1, Type: "l4"}}, MemBytes: 24e9,
		},
	} {
		got, err := gpu.ParseSpec(text)
		if err != nil {
			t.Errorf("ParseSpec(%q): %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseSpec(%q) (-want +got):\n%s", text, diff)
		}
	}
}

func TestParseSpecErrorsShowTheAllowedForms(t *testing.T) {
	t.Parallel()
	for text, why := range map[string]string{
		"":                                     `unknown kind ""`,
		"amd":                                  `unknown kind "amd"`,
		"none:1":                               "takes no options",
		"fake":                                 "is not COUNTxTYPE",
		"fake:":                                "is not COUNTxTYPE",
		"fake:H100":                            "is not COUNTxTYPE",
		"fake:0xH100":                          "is not a number from 1",
		"fake:-1xH100":                         "is not a number from 1",
		"fake:8x":                              "is not a word",
		"fake:8xH-100":                         "is not a word",
		"fake:8xH100-1g":                       "is not a word",
		"fake:8x-1g.10gb":                      "is not a word",
		"fake:8xH100/0":                        "is not a number of GPUs from 1 to 8",
		"fake:8xH100/9":                        "is not a number of GPUs from 1 to 8",
		"fake:8xH100/":                         "is not a number of GPUs from 1 to 8",
		"fake:200xH100+200xL4":                 "more than 256",
		"fake:8xH100:":                         "unknown option",
		"fake:8xH100:memory=80":                "needs a unit",
		"fake:8xH100:memory=GiB":               "is not a size",
		"fake:8xH100:memory=-1GiB":             "is not a size",
		"fake:8xH100:seed=x":                   "seed",
		"fake:8xH100:memory=99999999999999GiB": "is not a size",
	} {
		_, err := gpu.ParseSpec(text)
		if err == nil {
			t.Errorf("ParseSpec(%q): no error", text)
			continue
		}
		if !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), gpu.SpecForms) {
			t.Errorf("ParseSpec(%q) = %q: want %q and the allowed forms", text, err, why)
		}
	}
}
