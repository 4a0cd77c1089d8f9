package trace

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wrote makes a file of a test.
func wrote(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// texts reads a file as jobs, each as a line.
func texts(path string, opt Options) (string, error) {
	jobs, _, err := all(OpenJobs(path, opt))
	var lines []string
	for i := range jobs {
		lines = append(lines, told(&jobs[i])+" guess="+strings.TrimSuffix(inSeconds(jobs[i].Guess), " s"))
	}
	return strings.Join(lines, "\n"), err
}

// sacctRows has an array that has ended in part, a heterogeneous job, steps, and time limits of all kinds.
const sacctRows = `JobID|User|Account|Partition|QOS|Submit|Elapsed|Timelimit|State|AllocTRES
7_1|ada|vision|train|high|2026-03-02T08:00:00|00:10:00|01:00:00|COMPLETED|cpu=8,gres/gpu=2,mem=64G,node=1
7_1.batch||vision|||2026-03-02T08:00:00|00:10:00||COMPLETED|cpu=8,mem=64G,node=1
7_1.0||vision|||2026-03-02T08:00:00|00:10:00||COMPLETED|cpu=8,gres/gpu=2,mem=64G,node=1
7_[2-9%4]|ada|vision|train|high|2026-03-02T08:00:00|00:00:00|01:00:00|PENDING|
8+0|bob|nlp|train|low|2026-03-02T08:01:00|00:05:00|UNLIMITED|TIMEOUT|cpu=8,gres/gpu=1,mem=64G,node=1
8+1|bob|nlp|train||2026-03-02T08:01:00|00:05:00|2-00:00:00|TIMEOUT|cpu=8,gres/gpu=4,mem=64G,node=1
8+1.extern||nlp|||2026-03-02T08:01:00|00:05:00||COMPLETED|cpu=8,mem=64G,node=1
`

// TestSacct: arrays, heterogeneous jobs and steps; queues by another column; time limits as guesses.
func TestSacct(t *testing.T) {
	t.Parallel()
	path := wrote(t, "sacct.txt", []byte(sacctRows))
	for _, c := range []struct {
		opt  Options
		want string
	}{
		{Options{}, "7_1 0+600 2x1000  cpu=8 mem=65536 ada/train guess=600\n8+0 60+300 1x1000  cpu=8 mem=65536 bob/train guess=300\n8+1 60+300 4x1000  cpu=8 mem=65536 bob/train guess=300"},
		{Options{Queue: "QOS", Limits: true}, "7_1 0+600 2x1000  cpu=8 mem=65536 ada/high guess=3600\n8+0 60+300 1x1000  cpu=8 mem=65536 bob/low guess=1000000000\n8+1 60+300 4x1000  cpu=8 mem=65536 bob/nlp guess=172800"},
	} {
		if got, err := texts(path, c.opt); err != nil || got != c.want {
			t.Errorf("%+v: got\n%s (%v), want\n%s", c.opt, got, err, c.want)
		}
	}
	for _, c := range []struct {
		rows string
		opt  Options
		want string
	}{
		{strings.Replace(sacctRows, "QOS", "Qos", 1), Options{Queue: "QOS"}, "has no column QOS"},
		{strings.Replace(sacctRows, "Timelimit", "Limit", 1), Options{Limits: true}, "has no column Timelimit"},
		{strings.Replace(sacctRows, "UNLIMITED", "a while", 1), Options{Limits: true}, `column Timelimit is "a while", not a time limit such as`},
		{strings.ReplaceAll(sacctRows, "|", ","), Options{}, "columns are separated by commas, which AllocTRES and ReqTRES have within"},
		{"job_id,submit_s,duration_s,gpus\n", Options{Limits: true}, "are for sacct, the file is read as csv"},
		{"job_id,submit_s,duration_s,gpus\n", Options{PAIJobs: "jobs"}, "is for a table of PAI's tasks"},
	} {
		if _, err := texts(wrote(t, "sacct.txt", []byte(c.rows)), c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %s", c.opt, err, c.want)
		}
	}
}

// TestDressed: other separators, line ends of Windows, a byte order mark and gzip change nothing; what was cut off, and a
// folder, are told as such.
func TestDressed(t *testing.T) {
	t.Parallel()
	want, err := texts(wrote(t, "sacct.txt", []byte(sacctRows)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte(bom + strings.ReplaceAll(sacctRows, "\n", "\r\n")))
	_ = w.Close()
	for name, data := range map[string]string{
		"semicolons": strings.ReplaceAll(sacctRows, "|", ";"), "tabs": strings.ReplaceAll(sacctRows, "|", "\t"), "carets": strings.ReplaceAll(sacctRows, "|", "^"),
		"trailing": strings.ReplaceAll(sacctRows, "\n", "|\n"), "windows": strings.ReplaceAll(sacctRows, "\n", "\r\n"), "marked": bom + sacctRows, "packed": z.String(),
	} {
		if got, err := texts(wrote(t, name, []byte(data)), Options{}); err != nil || got != want {
			t.Errorf("%s: got\n%s (%v), want\n%s", name, got, err, want)
		}
	}
	if _, err := texts(wrote(t, "cut.gz", z.Bytes()[:z.Len()-20]), Options{}); err == nil || !strings.Contains(err.Error(), "the gzip file was cut off here") {
		t.Errorf("a gzip file that was cut off: %v", err)
	}
	if _, err := texts(t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "is a directory: name a file in it") {
		t.Errorf("a folder: %v", err)
	}
}

// TestPAIJobs: the table of jobs gives the tasks users and submission times, with a heading or without.
func TestPAIJobs(t *testing.T) {
	t.Parallel()
	tasks := wrote(t, "tasks.csv", []byte("jA,worker,1.0,Terminated,110,210,600.0,29.0,100.0,T4\njB,worker,1.0,Terminated,120,130,600.0,29.0,100.0,T4\njC,ps,1.0,Terminated,130,140,600.0,29.0,100.0,T4\n"))
	const rows = "jA,i1,u7,Terminated,100,210\njB,i2,u8,Terminated,,130\n"
	want := "jA/worker 0+100 1x1000  cpu=6 mem=29696 u7/default guess=100\njB/worker 20+10 1x1000  cpu=6 mem=29696 u8/default guess=10\n" +
		"jC/ps 30+10 1x1000  cpu=6 mem=29696 /default guess=10"
	for _, heading := range []string{"", "job_name,inst_id,user,status,start_time,end_time\n"} {
		if got, err := texts(tasks, Options{PAIJobs: wrote(t, "jobs.csv", []byte(heading+rows))}); err != nil || got != want {
			t.Errorf("got\n%s (%v), want\n%s", got, err, want)
		}
	}
	if _, err := texts(tasks, Options{PAIJobs: wrote(t, "jobs.csv", []byte("jA,i1,u7,Terminated,noon,210\n"))}); err == nil || !strings.Contains(err.Error(), `column start_time is "noon"`) {
		t.Errorf("got %v", err)
	}
}

// TestGanglineFormat: what gangline export writes is told by its columns, which must all be there if it is asked for.
func TestGanglineFormat(t *testing.T) {
	t.Parallel()
	const heading = "job_id,submit_s,duration_s,gpus,gpu_milli,gpu_type,cpu,mem_mib,user,queue\n"
	path := wrote(t, "jobs.csv", []byte(heading+"7,5,2.5,2,1000,h100,4,100,ann,default\n"))
	var as Format
	got, err := texts(path, Options{Told: &as})
	if err != nil || as != FormatGangline || got != "7 5+2.5 2x1000 h100 cpu=4 mem=100 ann/default guess=2.5" {
		t.Errorf("read as %s: %s (%v)", as, got, err)
	}
	short := wrote(t, "jobs.csv", []byte("job_id,submit_s,duration_s,gpus\n7,0,1,1\n"))
	if _, err := texts(short, Options{Format: FormatGangline}); err == nil || !strings.Contains(err.Error(), "has no column gpu_milli") {
		t.Errorf("got %v", err)
	}
}
