package replay

import (
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// BenchmarkPhilly replays October 2017 on a pool of 576 GPUs: strictly ordered by exact lengths, as the published
// simulators do, and by the default policy with preemption and backfill.
func BenchmarkPhilly(b *testing.B) {
	dir := os.Getenv("GANGLINE_TRACES")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "traces")
	}
	jobs, nodes := filepath.Join(dir, "philly_2017oct.csv.gz"), filepath.Join(dir, "philly_pool72_nodes.csv")
	if _, err := os.Stat(jobs); err != nil {
		b.Skipf("no trace %s: set GANGLINE_TRACES to the folder of the published traces", jobs)
	}
	tr := benchTrace(b, jobs, nodes)
	strict, usual := DefaultConfig(), DefaultConfig()
	strict.Strict, strict.Order = true, cluster.OrderSJF
	usual.RestartCost = time.Minute
	b.Run("strict", func(b *testing.B) { benchRun(b, strict, tr) })
	b.Run("default", func(b *testing.B) { benchRun(b, usual, tr) })
}

// benchTrace is a trace less the jobs of the queue that has no nodes.
func benchTrace(b *testing.B, jobs, nodes string) *Trace {
	b.Helper()
	on, err := trace.ReadNodes(nodes)
	if err != nil {
		b.Fatal(err)
	}
	return &Trace{Nodes: on, Open: func() (trace.Source, error) {
		return trace.OpenJobs(jobs, trace.Options{Drop: []string{"795a4c"}})
	}}
}

// benchRun replays a trace and reports jobs per second and the most memory that the process ever had.
func benchRun(b *testing.B, cfg Config, tr *Trace) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as the command does in the long run
	jobs := 0
	for b.Loop() {
		r, err := Run(cfg, tr)
		if err != nil {
			b.Fatal(err)
		}
		jobs += r.Jobs
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(jobs)/b.Elapsed().Seconds(), "jobs/s")
	b.ReportMetric(float64(m.Sys)/(1<<20), "MiB")
	b.ReportMetric(0, "ns/op")
}

// crowdOf is a workload of so many jobs that fills some nodes of 8 GPUs to 85 % on average: gangs of 1 to 128 GPUs, most
// of them small, from 200 users in 40 queues, with lengths between a minute and a day.
type crowdOf struct {
	jobs, nodes, given int
	at                 float64 // seconds
	chance             *rand.Rand
}

// Next implements trace.Source.
func (c *crowdOf) Next(j *trace.Job) error {
	if c.given == c.jobs {
		return io.EOF
	}
	c.given++
	sizes := []int32{1, 1, 1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 32}
	gpus := sizes[c.chance.IntN(len(sizes))]
	if c.chance.IntN(500) == 0 {
		gpus = 128
	}
	length := min(60*math.Exp(2.3*math.Abs(c.chance.NormFloat64())), 86_400)
	const gpuSeconds = 9000 // of a job on average
	c.at += c.chance.ExpFloat64() * gpuSeconds / (0.85 * float64(c.nodes) * 8)
	q := c.chance.IntN(200)
	*j = trace.Job{
		ID: strconv.Itoa(c.given), Submit: time.Duration(c.at) * time.Second, Length: time.Duration(length) * time.Second, GPUs: gpus, Milli: 1000,
		User: "u" + strconv.Itoa(q), Queue: "q" + strconv.Itoa(q%40), Guess: time.Duration(length) * time.Second,
	}
	return nil
}

// Skipped implements trace.Source.
func (c *crowdOf) Skipped() int { return 0 }

// Close implements trace.Source.
func (c *crowdOf) Close() error { return nil }

// BenchmarkLarge replays synthetic jobs on 12,500 nodes by the default policy; a million of them, which takes a
// minute, if GANGLINE_BENCH_LARGE is set.
func BenchmarkLarge(b *testing.B) {
	const machines = 12_500
	var nodes []trace.Node
	for i := range machines {
		nodes = append(nodes, trace.Node{Name: "n" + strconv.Itoa(i), GPUs: 8, Type: "h100", Rack: "r" + strconv.Itoa(i/32)})
	}
	for _, jobs := range []int{100_000, 1_000_000} {
		b.Run("jobs="+strconv.Itoa(jobs), func(b *testing.B) {
			if jobs > 100_000 && os.Getenv("GANGLINE_BENCH_LARGE") == "" {
				b.Skip("a minute long: set GANGLINE_BENCH_LARGE=1 to run it")
			}
			benchRun(b, DefaultConfig(), &Trace{Nodes: nodes, Open: func() (trace.Source, error) {
				return &crowdOf{jobs: jobs, nodes: machines, chance: rand.New(rand.NewPCG(1, 2))}, nil
			}})
		})
	}
}
