// Package docs_test checks that the documentation speaks of what exists: files, verbs and flags.
package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/jobfile"
	"github.com/gangline/gangline/scheduler/policyfile"
)

// pages are all documents that are checked, from this folder.
func pages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"*.md", "../README.md", "../CONTRIBUTING.md", "../deploy/README.md", "../scheduler/DESIGN.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no document matches %s (%v)", pattern, err)
		}
		for _, path := range found {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			pages[path] = string(data)
		}
	}
	return pages
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for page, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), target)); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
}

// codePath is a file or folder of this repository between backquotes, such as `scheduler/loop.go:step`.
var codePath = regexp.MustCompile("`((?:allreduce|checkpoint|cmd|deploy|examples|internal|libgangline|nodeagent|proto|python|scheduler|sim)/[A-Za-z0-9_./]+?)(?::([A-Za-z]+(?:\\.[A-Za-z]+)?))?`")

// TestCodeIsWhereTheDocsSay holds the paths and, where a name follows the path, that the file declares it.
func TestCodeIsWhereTheDocsSay(t *testing.T) {
	t.Parallel()
	n := 0
	for page, text := range pages(t) {
		for _, m := range codePath.FindAllStringSubmatch(text, -1) {
			path, name := filepath.Join("..", m[1]), m[2]
			n++
			info, err := os.Stat(path)
			if err != nil {
				t.Errorf("%s names %s: %v", page, m[1], err)
				continue
			}
			if name == "" || info.IsDir() {
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			last := name[strings.LastIndex(name, ".")+1:]
			declared := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |\s*(rpc )?)` + last + `\b`)
			if !declared.Match(data) {
				t.Errorf("%s: %s declares no %s", page, m[1], name)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d paths were found in the documents: does the pattern still match?", n)
	}
}

var testName = regexp.MustCompile("`(Test[A-Za-z]+)`")

// TestNamedTestsExist holds that a rule's test is really there.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	declared := map[string]bool{}
	for _, root := range []string{"allreduce", "checkpoint", "cmd", "deploy", "docs", "internal", "libgangline", "nodeagent", "scheduler", "sim"} {
		err := filepath.WalkDir(filepath.Join("..", root), func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(data), -1) {
				declared[m[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for page, text := range pages(t) {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if !declared[m[1]] {
				t.Errorf("%s names the test %s, which does not exist", page, m[1])
			}
		}
	}
}

// program builds gangline once and answers `gangline ARGS --help`, each only once.
type program struct {
	bin string

	mu   sync.Mutex
	help map[string]string
}

func build(t *testing.T) *program {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH, so gangline cannot be built to check what the documents say of it")
	}
	p := &program{bin: filepath.Join(t.TempDir(), "gangline"), help: map[string]string{}}
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", p.bin, "../cmd/gangline").CombinedOutput(); err != nil {
		t.Fatalf("build gangline: %v\n%s", err, out)
	}
	return p
}

// helpOf returns the help of a verb path such as "worker progress", or "" if there is no such verb.
func (p *program) helpOf(verb string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text, known := p.help[verb]; known {
		return text
	}
	cmd := exec.Command(p.bin, append(strings.Fields(verb), "--help")...)
	cmd.Env = []string{"HOME=/nonexistent"}
	out, err := cmd.CombinedOutput()
	text := string(out)
	usage := regexp.MustCompile(`(?m)^  gangline ` + regexp.QuoteMeta(verb) + `\b`)
	if err != nil || verb != "exit-codes" && !usage.MatchString(text) {
		text = ""
	}
	p.help[verb] = text
	return text
}

var (
	fence = regexp.MustCompile("(?ms)^[ \t]*```[a-z]*\n(.*?)^[ \t]*```")
	call  = regexp.MustCompile(`(?:^|[\s;(|&"'])(?:\S*bin/)?gangline((?: +[^\s;|&)]+)*)`)
	word  = regexp.MustCompile(`^[a-z][a-z-]*$`)
	flag  = regexp.MustCompile(`^--([a-z][a-z-]*)`)
)

// subverbs are verbs that have verbs of their own.
var subverbs = map[string]bool{"worker": true, "sim": true, "help": true, "policy": true, "checkpoint": true, "bench": true}

func TestCommandsExist(t *testing.T) {
	t.Parallel()
	p := build(t)
	n := 0
	for page, text := range pages(t) {
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			lines := strings.ReplaceAll(block[1], "\\\n", " ")
			for _, line := range strings.Split(lines, "\n") {
				line, _, _ = strings.Cut(line, " #")
				for _, m := range call.FindAllStringSubmatch(line, -1) {
					n += checkCall(t, p, page, strings.Fields(m[1]))
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d commands were found in the documents: do the patterns still match?", n)
	}
}

// checkCall checks the words after "gangline" and returns how many commands it saw: 0 or 1.
func checkCall(t *testing.T, p *program, page string, words []string) int {
	t.Helper()
	verb := ""
	for i, w := range words {
		if w == "--" {
			break
		}
		if m := flag.FindStringSubmatch(w); m != nil && m[1] != "help" {
			help := p.helpOf(verb)
			if verb == "" {
				help = p.helpOf("jobs") // flags before the verb are the global ones
			}
			if !regexp.MustCompile(`(?m)^\s+(-\w, )?--` + m[1] + `\b`).MatchString(help) {
				t.Errorf("%s: gangline %s has no flag --%s", page, verb, m[1])
			}
			continue
		}
		switch {
		case !word.MatchString(w): // a number, a path, --help
		case verb == "" && (i == 0 || strings.HasPrefix(words[0], "--")):
			if i > 0 && !strings.Contains(words[i-1], "=") && strings.HasPrefix(words[i-1], "--") && words[i-1] != "--json" {
				continue // the value of a flag
			}
			verb = w
		case i == 1 && subverbs[verb]:
			verb += " " + w
		}
		if verb != "" && !strings.HasPrefix(verb, "help") && p.helpOf(verb) == "" {
			t.Errorf("%s: there is no verb %q", page, "gangline "+verb)
			return 1
		}
	}
	if verb == "" {
		return 0
	}
	return 1
}

// TestJobFieldsAreDocumented holds that docs/job-file.md has a heading for each field, and that its examples parse.
func TestJobFieldsAreDocumented(t *testing.T) {
	t.Parallel()
	text := pages(t)["job-file.md"]
	for _, f := range jobfile.Fields() {
		if !strings.Contains(text, "\n### `"+f.Name+"`\n") {
			t.Errorf("job-file.md does not describe the field %s under a heading of its own", f.Name)
		}
	}
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		if _, err := jobfile.Parse("example in job-file.md", []byte(m[1])); err != nil {
			t.Errorf("%v in\n%s", err, m[1])
		}
	}
}

// TestPolicyFieldsAreDocumented holds that docs/policy.md has a heading for each field, that its examples parse, and
// that the defaults it shows are the ones.
func TestPolicyFieldsAreDocumented(t *testing.T) {
	t.Parallel()
	text := pages(t)["policy.md"]
	for _, f := range policyfile.Fields() {
		if !strings.Contains(text, "\n### `"+f+"`\n") {
			t.Errorf("policy.md does not describe the field %s under a heading of its own", f)
		}
	}
	if !strings.Contains(text, "```yaml\n"+string(policyfile.Format(cluster.DefaultPolicy()))+"```") {
		t.Errorf("policy.md does not show the defaults as they are:\n%s", policyfile.Format(cluster.DefaultPolicy()))
	}
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		if _, err := policyfile.Parse([]byte(m[1])); err != nil {
			t.Errorf("%v in\n%s", err, m[1])
		}
	}
}
