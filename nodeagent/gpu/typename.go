package gpu

import (
	"fmt"
	"math"
	"regexp"
	"strings"
)

// UnknownType is the type word of a GPU whose product name says nothing.
const UnknownType = "unknown"

// modelWord is a chip or board name on its own, such as h100, gh200, l40s, a10g, mx450.
var modelWord = regexp.MustCompile(`^[a-z]{1,3}[0-9]{1,4}[a-z]{0,2}$`)

// modelNumber is the number of a consumer or workstation board, such as 4090 or 5000.
var modelNumber = regexp.MustCompile(`^[0-9]{3,4}[a-z]*$`)

// TypeFromName derives the lower-case word that job specs use from NVML's product name:
// "NVIDIA H100 80GB HBM3" is "h100", "NVIDIA A100-SXM4-40GB" is "a100", "NVIDIA GeForce RTX 4060 Ti" is
// "rtx4060ti". Boards that differ only in memory or form factor share a word. The result holds only a-z and
// 0-9; a name without any is UnknownType.
func TypeFromName(name string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	for len(words) > 0 && isBrand(words[0]) {
		words = words[1:]
	}
	if len(words) == 0 {
		return UnknownType
	}
	if modelWord.MatchString(words[0]) {
		return words[0]
	}
	switch words[0] {
	case "rtx", "gtx", "gt", "titan", "cmp":
		return seriesType(words)
	}
	return strings.Join(words, "")
}

// profileWord is the name of a MIG profile in a type: 1g.10gb, 1c.3g.40gb, 1g.10gb.me.
var profileWord = regexp.MustCompile(`^([0-9]c\.)?[0-9]{1,2}g\.[0-9]{1,4}gb(\.[a-z0-9.]+)?$`)

// InstanceType is the type of a MIG instance: that of its GPU and the profile, "h100-1g.10gb". What NVIDIA joins by a
// plus sign to the profile (1g.10gb+me: with media engines) is joined by a dot, as in its names for Kubernetes.
func InstanceType(gpuType, profile string) string {
	return gpuType + "-" + strings.ReplaceAll(strings.ToLower(profile), "+", ".")
}

// SplitInstanceType returns the GPU's type and the profile of an instance's type; false if it is not one.
func SplitInstanceType(instance string) (gpuType, profile string, ok bool) {
	gpuType, profile, _ = strings.Cut(instance, "-")
	if gpuType == "" || !profileWord.MatchString(profile) {
		return "", "", false
	}
	return gpuType, profile, true
}

// ProfileFromName returns the MIG profile at the end of NVML's name of an instance: "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
// gives "1g.10gb"; "" if there is none, as older drivers give the GPU's name alone.
func ProfileFromName(name string) string {
	_, profile, found := strings.Cut(name, " MIG ")
	if !found || !profileWord.MatchString(strings.ReplaceAll(profile, "+", ".")) {
		return ""
	}
	return profile
}

// ProfileFromSlices names the profile of an instance by what NVML says of it: its compute slices, its GPU slices and
// its memory, beside the memory of the whole GPU (both in MiB; totalMiB 0: unknown). NVIDIA names memory in eighths of
// the GPU's, in whole GB, which is a little more than the instance has (rule of NVIDIA's go-nvlib, mig_profile.go).
func ProfileFromSlices(compute, slices int, memMiB, totalMiB int64) string {
	gb := (memMiB + 1023) / 1024
	if totalMiB > 0 {
		eighths := math.Round(float64(memMiB) * 8 / float64(totalMiB))
		gb = int64(math.Round(eighths / 8 * float64((totalMiB+1023)/1024)))
	}
	profile := fmt.Sprintf("%dg.%dgb", slices, gb)
	if compute != slices {
		profile = fmt.Sprintf("%dc.", compute) + profile
	}
	return profile
}

// isBrand tells whether the word names a maker or a product line that says nothing about the chip.
func isBrand(w string) bool {
	switch w {
	case "nvidia", "tesla", "quadro", "geforce", "grid":
		return true
	}
	return false
}

// seriesType joins a series word with what tells its boards apart: number and suffix, but not memory size,
// architecture or "Generation". "RTX A6000" is its model word alone.
func seriesType(words []string) string {
	out := words[0]
	for i, w := range words[1:] {
		switch {
		case i == 0 && modelWord.MatchString(w):
			return w
		case modelNumber.MatchString(w):
			out += w
		case w == "pro", w == "ti", w == "super", w == "ada", w == "laptop", w == "d":
			out += w
		case words[0] == "titan" && (w == "x" || w == "xp" || w == "v" || w == "rtx" || w == "z" || w == "black"):
			out += w
		default:
			return out
		}
	}
	return out
}
