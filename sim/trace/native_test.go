package trace

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// told is a job in one line.
func told(j *Job) string {
	return fmt.Sprintf("%s %g+%g %dx%d %s cpu=%d mem=%d %s/%s", j.ID, j.Submit.Seconds(), j.Length.Seconds(), j.GPUs, j.Milli,
		strings.Join(j.Types, "|"), j.CPU/milli, j.Mem/mebibyte, j.User, j.Queue)
}

// TestNativeJobs: files as others write them, told by how they begin.
func TestNativeJobs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file    string
		format  Format
		skipped int
		want    []string
	}{
		{"sacct.txt", FormatSacct, 3, []string{"901 0+10 16x1000 h100 cpu=8 mem=524288 bob/train", "900 30+3600 4x1000  cpu=16 mem=1572864 ada/train"}},
		{"philly.json", FormatPhilly, 2, []string{"application_9 0+7 1x1000  cpu=0 mem=0 ub/v2", "application_7 30+150 4x1000  cpu=0 mem=0 ua/v1"}},
		{"helios.csv", FormatHelios, 2, []string{"11 0+60 16x1000  cpu=64 mem=0 uA/vcX", "14 4+30 1x1000  cpu=4 mem=0 uB/vcY"}},
		{"acme.csv", FormatAcme, 0, []string{"dlcA 0+40 16x1000  cpu=240 mem=0 u1/Pretrain", "dlcB 5+10 1x1000  cpu=8 mem=0 u2/Evaluation"}},
		{"pai.csv", FormatPAI, 2, []string{"jB/ps 0+50 1x500  cpu=6 mem=30000 /default", "jA/worker 10+100 3x1000  cpu=20 mem=40960 /default"}},
		{"openb.csv", FormatOpenb, 1, []string{"p-1 0+300 1x460 T4|P100 cpu=6 mem=12288 /LS", "p-3 5+50 8x1000  cpu=88 mem=327680 /Burstable"}},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			for _, asked := range []Format{FormatAuto, c.format} {
				path := filepath.Join("testdata", "native", c.file)
				took, err := FormatOf(path)
				if err != nil {
					t.Fatal(err)
				}
				jobs, skipped, err := all(OpenJobs(path, Options{Format: asked}))
				var got []string
				for i := range jobs {
					got = append(got, told(&jobs[i]))
				}
				if err != nil || took != c.format || skipped != c.skipped || strings.Join(got, "\n") != strings.Join(c.want, "\n") {
					t.Errorf("read as %s, %d skipped (%v):\n%s\nwant %s, %d:\n%s", took, skipped, err, strings.Join(got, "\n"), c.format, c.skipped, strings.Join(c.want, "\n"))
				}
			}
		})
	}
}

// TestNativeNodes: node files as others write them.
func TestNativeNodes(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"sinfo.txt":           "[{gn01 8 a100 128000 1081081856000 } {gn02 4 gpu 64000 540016640000 }]",
		"philly_machines.csv": "[{m1 8 gpu 0 0 } {m2 2 gpu 0 0 }]",
		"openb_nodes.csv":     "[{n-1 8 G2 96000 412316860416 }]",
		"pai_headless.csv":    "[{ab1 2 P100 64000 549755813888 }]",
		"pai_machines.csv":    "[{ab1 2 P100 64000 549755813888 }]",
	} {
		nodes, err := ReadNodes(filepath.Join("testdata", "native", file))
		if got := fmt.Sprint(nodes); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", file, got, err, want)
		}
	}
}

// TestNativeMalformed: errors say where, what, and what to do.
func TestNativeMalformed(t *testing.T) {
	t.Parallel()
	const sacct = "JobID|Submit|Elapsed|AllocTRES\n"
	const fine = "7|2026-03-02T08:00:00|01:00|gres/gpu=1\n"
	for _, c := range []struct{ text, want string }{
		{"900|ada|train\n", "do not give sacct --noheader"},
		{"JobID|User|Submit\n", "has no column AllocTRES: needed are AllocTRES; sacct -a -P -X --format="},
		{sacct + fine + "8|yesterday|01:00|gres/gpu=1\n", `:3:3: column Submit is "yesterday", not a time such as 2026-03-02T15:04:05`},
		{sacct + "8|2026-03-02T08:00:00|an hour|gres/gpu=1\n", `:2:23: column Elapsed is "an hour", not a time such as 1-02:03:04`},
		{sacct + "8|2026-03-02T08:00:00|01:00|gres/gpu=x\n", `column AllocTRES is "gres/gpu=x", not resources such as`},
		{sacct + "8|2026-03-02T08:00:00|01:00\n", ":2: has 3 columns, the heading has 4"},
		{"[{\"jobid\": 7}]", "entry 1, before byte 13: jobid is a number, not a string"},
		{"[{\"jobid\": \"a\"", "entry 1, after byte 1: is not JSON"},
		{"{\"jobid\": \"a\"}", "is no JSON list of jobs"},
		{"name,num_gpu,gpu_milli,creation_time,deletion_time,scheduled_time\np,1,1000,5,6,7\n", `:2:12: column deletion_time is "6", not at or after scheduled_time`},
		{"jA,worker,5.0,Terminated,9,noon,400.0,8.0,50.0,P100\n", `:1:28: column end_time is "noon", not a number of seconds`},
		{"jA,worker,5.0,Terminated,9,8,400.0,8.0,50.0,P100\n", `column end_time is "8", not at or after start_time`},
		{"job_id,vc,gpu_num,submit_time,duration\n1,v,1,noon,4\n", `:2:7: column submit_time is "noon"`},
	} {
		path := filepath.Join(t.TempDir(), "jobs")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := all(OpenJobs(path, Options{})); err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(c.want, "2026-03-02T15:04:05", "2006-01-02T15:04:05")) {
			t.Errorf("%q: error %v, want %q in it", c.text, err, c.want)
		}
	}
	path := filepath.Join(t.TempDir(), "jobs")
	if err := os.WriteFile(path, []byte(sacct+"8|x|01:00|gres/gpu=1\n"+fine), 0o600); err != nil {
		t.Fatal(err)
	}
	if jobs, skipped, err := all(OpenJobs(path, Options{SkipBad: true})); err != nil || skipped != 1 || len(jobs) != 1 {
		t.Errorf("%d jobs, %d skipped, %v; want 1, 1 and no error", len(jobs), skipped, err)
	}
}

// TestZone: a zone matters where its clocks change between two submissions.
func TestZone(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no table of time zones: ", err)
	}
	const rows = "JobID|Submit|Elapsed|AllocTRES\n1|2026-03-29T01:00:00|1-00:00:01|gres/gpu=1\n2|2026-03-29T04:00:00|2:00|gres/gpu=1\n"
	path := filepath.Join(t.TempDir(), "jobs")
	if err := os.WriteFile(path, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	for zone, want := range map[*time.Location]time.Duration{nil: 3 * time.Hour, berlin: 2 * time.Hour} {
		jobs, _, err := all(OpenJobs(path, Options{Zone: zone}))
		if err != nil || jobs[1].Submit != want || jobs[0].Length != 24*time.Hour+time.Second {
			t.Errorf("in %v: %v, %v; want the second job %s after the first", zone, jobs, err, want)
		}
	}
}

// FuzzJobs: whatever a file says, a reader of any format ends with jobs within bounds, by submission, or an error.
func FuzzJobs(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "native", "*"))
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for i := range Formats() {
			f.Add(data, uint8(i), true) //nolint:gosec // few
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, format uint8, skip bool) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		jobs, _, _ := all(OpenJobs(path, Options{Format: Formats()[int(format)%len(Formats())], SkipBad: skip}))
		last := time.Duration(0)
		for i := range jobs {
			j := &jobs[i]
			if j.Submit < last || j.Submit > MaxSeconds*time.Second || j.Length < 0 || j.Length > MaxSeconds*time.Second || j.GPUs < 1 ||
				j.Milli < 1 || j.Milli > milli || j.CPU < 0 || j.CPU > MaxCPUs*milli || j.Mem < 0 || j.Mem > MaxMiB*mebibyte || j.Queue == "" {
				t.Errorf("job out of bounds: %+v after %s", *j, last)
			}
			last = j.Submit
		}
		nodes, err := ReadNodes(path)
		for _, n := range nodes {
			if n.GPUs < 1 || n.Type == "" || n.CPU < 0 || n.Mem < 0 || err != nil {
				t.Errorf("node out of bounds: %+v (%v)", n, err)
			}
		}
	})
}
