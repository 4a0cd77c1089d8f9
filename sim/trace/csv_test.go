package trace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func secs(n int) time.Duration { return time.Duration(n) * time.Second }

// all takes all jobs of a source.
func all(src Source, err error) ([]Job, int, error) {
	if err != nil {
		return nil, 0, err
	}
	var jobs []Job
	for {
		var j Job
		err := src.Next(&j)
		if errors.Is(err, io.EOF) {
			return jobs, src.Skipped(), src.Close()
		}
		if err != nil {
			return jobs, src.Skipped(), errors.Join(err, src.Close())
		}
		jobs = append(jobs, j)
	}
}

// TestReaders: small files of each kind, as they are published.
func TestReaders(t *testing.T) {
	t.Parallel()
	jobs, skipped, err := all(OpenJobs(filepath.Join("testdata", "jobs.csv.gz"), Options{}))
	if err != nil || skipped != 1 {
		t.Fatal(skipped, err)
	}
	want := []Job{
		{ID: "j1", Submit: secs(5), Length: 1500 * time.Millisecond, Guess: 1500 * time.Millisecond, GPUs: 1, Milli: 460, Types: []string{"T4", "P100"}, CPU: 6000, Mem: 12288 * mebibyte, User: "u1", Queue: "LS"},
		{ID: "j0", Submit: secs(7), Length: secs(100), Guess: secs(100), GPUs: 16, Milli: 1000, Queue: "default"},
	}
	if diff := cmp.Diff(want, jobs); diff != "" {
		t.Error(diff)
	}
	on, err := ReadNodes(filepath.Join("testdata", "nodes.csv"))
	if err != nil {
		t.Fatal(err)
	}
	wantNodes := []Node{
		{Name: "n0", GPUs: 8, Type: "G2", CPU: 96000, Mem: 393216 * mebibyte, Rack: "vc-LS"},
		{Name: "n2", GPUs: 2, Type: UnknownType},
	}
	if diff := cmp.Diff(wantNodes, on); diff != "" {
		t.Error(diff)
	}
	estimates, err := ReadEstimates(filepath.Join("testdata", "estimates.csv"))
	if err != nil {
		t.Fatal(err)
	}
	jobs, _, err = all(OpenJobs(filepath.Join("testdata", "jobs.csv.gz"), Options{Estimates: estimates}))
	if err != nil || jobs[0].Guess != -secs(20) || jobs[1].Guess != secs(100) {
		t.Errorf("guesses are %s and %s (%v)", jobs[0].Guess, jobs[1].Guess, err)
	}
}

// TestMalformed: what is wrong is told with its place and what is expected.
func TestMalformed(t *testing.T) {
	t.Parallel()
	const head = "job_id,submit_s,duration_s,gpus,gpu_milli\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "is empty"},
		{"no heading", "\n\n", "has no heading"},
		{"column missing", "job_id,submit_s,gpus\nj,1,1\n", "line 1: has no column duration_s"},
		{"short row", head + "j,1,2\n", ":2: has 3 columns, the heading has 5"},
		{"text for a number", head + "j,1,2,x,\n", `:2:7: column gpus is "x", not a whole number in 0..16384`},
		{"negative length", head + "j,1,-2,1,\n", `:2:5: column duration_s is "-2", not a number of seconds in 0..1e+09`},
		{"no time", head + "j,,2,1,\n", `column submit_s is "", not a number of seconds`},
		{"not a number", head + "j,NaN,2,1,\n", `column submit_s is "NaN"`},
		{"share of many", head + "j,1,2,2,500\n", `column gpu_milli is "500", not 1000: a share is of one GPU`},
		{"quote", head + "\"j,1,2,1,\n", ":2:11: extraneous"},
		{"two wrong rows", head + "j,1,2,x,\nk,y,2,1,\n", `column submit_s is "y"`},
		{"not gzip", gzipMagic + "xx", "not a whole gzip file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "jobs.csv")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := all(OpenJobs(path, Options{}))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "jobs.csv")
	if err := os.WriteFile(path, []byte(head+"j,1,2,x,\nk,2,2,1,\nl,1,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	jobs, skipped, err := all(OpenJobs(path, Options{SkipBad: true}))
	if err != nil || skipped != 2 || len(jobs) != 1 {
		t.Errorf("%d jobs, %d skipped, %v; want 1, 2 and no error", len(jobs), skipped, err)
	}
}

// TestReadOrder: an order of arrivals keeps the file's order and its pods without GPUs.
func TestReadOrder(t *testing.T) {
	t.Parallel()
	pods, err := ReadOrder(filepath.Join("testdata", "order.csv"))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for i := range pods {
		got += fmt.Sprintf("%s:%d x %d, %d CPU, %d MiB; ", pods[i].ID, pods[i].GPUs, pods[i].Milli, pods[i].CPU, pods[i].Mem/mebibyte)
	}
	if want := "p2:0 x 0, 8000 CPU, 30517 MiB; p1:1 x 810, 3152 CPU, 5600 MiB; p3:8 x 1000, 88000 CPU, 0 MiB; "; got != want {
		t.Errorf("read %s want %s", got, want)
	}
}
