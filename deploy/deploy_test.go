// Package deploy_test checks the files that operators copy from this folder: they parse, and whatever they name exists.
package deploy_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/gangline/gangline/scheduler/jobfile"
)

// files returns what matches the pattern, and fails if nothing does.
func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("no file matches %s (%v)", pattern, err)
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEveryYAMLFileParses(t *testing.T) {
	t.Parallel()
	for _, path := range files(t, "*/*.yaml") {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(read(t, path)), &doc); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestJobFilesAreAccepted(t *testing.T) {
	t.Parallel()
	for _, path := range files(t, "jobs/*.yaml") {
		if _, err := jobfile.Parse(path, []byte(read(t, path))); err != nil {
			t.Error(err)
		}
	}
}

// TestConfigsAreAccepted asks the program itself.
func TestConfigsAreAccepted(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH, so gangline cannot be built to check its config files")
	}
	bin := filepath.Join(t.TempDir(), "gangline")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "../cmd/gangline").CombinedOutput(); err != nil {
		t.Fatalf("build gangline: %v\n%s", err, out)
	}
	for verb, want := range map[string]string{"server": "/var/lib/gangline/server", "agent": "/var/lib/gangline/agent"} {
		cmd := exec.Command(bin, verb, "--config", "config/"+verb+".yaml", "--print-config")
		cmd.Env = []string{"HOME=" + t.TempDir()}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("gangline %s with its example file: %v, want %q in\n%s", verb, err, want, out)
		}
	}
}

// A metric is registered by its whole name, or by a short one through the agent's two constructors.
var (
	metricName = regexp.MustCompile(`\bgangline_[a-z_]+\b`)
	registered = regexp.MustCompile(`"(gangline_[a-z_]+)"`)
	shortName  = regexp.MustCompile(`\b(perGPU|perNode|perRank)\("([a-z_]+)"`)
)

// registeredMetrics collects the names in the product's Go files, tests left out.
func registeredMetrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, root := range []string{"../scheduler", "../nodeagent"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text := read(t, path)
			for _, m := range registered.FindAllStringSubmatch(text, -1) {
				names[m[1]] = true
			}
			for _, m := range shortName.FindAllStringSubmatch(text, -1) {
				names[map[string]string{"perGPU": "gangline_gpu_", "perNode": "gangline_", "perRank": "gangline_ring_"}[m[1]]+m[2]] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) < 20 {
		t.Fatalf("only %d metric names were found: has the way in which metrics are registered changed?", len(names))
	}
	return names
}

// TestMetricsExist looks at the alerts and at the list in docs/operations.md, which must also be complete.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	names := registeredMetrics(t)
	known := func(name string) bool {
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && names[base] {
				return true
			}
		}
		return false
	}
	docs := read(t, "../docs/operations.md")
	for where, text := range map[string]string{
		"alerts.yaml": read(t, "prometheus/alerts.yaml"), "alerts_test.yaml": read(t, "prometheus/alerts_test.yaml"), "docs/operations.md": docs,
	} {
		for _, name := range metricName.FindAllString(text, -1) {
			if !known(name) {
				t.Errorf("%s names the metric %s, which nothing registers", where, name)
			}
		}
	}
	for name := range names {
		if !strings.HasSuffix(name, "_") && !strings.Contains(docs, "`"+name+"`") {
			t.Errorf("docs/operations.md does not explain the metric %s", name)
		}
	}
}

// TestUnits holds the lines on which the life of workers depends.
func TestUnits(t *testing.T) {
	t.Parallel()
	wanted := map[string][]string{
		"systemd/gangline-server.service": {"Restart=on-failure", "gangline server --config /etc/gangline/server.yaml"},
		"systemd/gangline-agent.service": {
			"KillMode=process", "Restart=on-failure", "OOMPolicy=continue", "LimitMEMLOCK=infinity", "TasksMax=infinity",
			"gangline agent --config /etc/gangline/agent.yaml",
		},
	}
	for path, lines := range wanted {
		have := strings.Split(read(t, path), "\n")
		for _, line := range lines {
			if !slices.ContainsFunc(have, func(l string) bool {
				return l == line || strings.HasSuffix(l, line) && strings.HasPrefix(l, "ExecStart=")
			}) {
				t.Errorf("%s: the line %q is missing", path, line)
			}
		}
	}
}

func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (apt-get install prometheus): alert rules are not checked")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}, {"check", "config", "scrape.yaml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
