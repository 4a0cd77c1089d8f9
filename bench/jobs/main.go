// Command jobs measures a running cluster from outside: it submits many small
// jobs at once and prints how fast they are accepted, started and finished.
//
//	gangline dev --gpus fake:64xH100 &
//	go run ./bench/jobs --jobs 1000 --clients 16
//
// It submits only; what it measures is the cluster's own work, processes
// included. See bench/README.md for figures and for peers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func main() {
	server := flag.String("server", "127.0.0.1:7070", "address of a server")
	jobs := flag.Int("jobs", 1000, "jobs to submit")
	clients := flag.Int("clients", 16, "how many submit at a time")
	gpus := flag.Int("gpus", 1, "GPUs of each job")
	limit := flag.Duration("limit", 5*time.Minute, "give up after this long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, *limit)
	err := measure(ctx, *server, *jobs, *clients, int32(*gpus), flag.Args())
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/jobs:", err)
		os.Exit(1)
	}
}

// measure submits and watches. Command is what each job runs; empty: true.
func measure(ctx context.Context, server string, jobs, clients int, gpus int32, command []string) error {
	if len(command) == 0 {
		command = []string{"true"}
	}
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is lost
	api := schedulerv1.NewSchedulerServiceClient(conn)
	cluster, err := api.GetCluster(ctx, &schedulerv1.GetClusterRequest{})
	if err != nil {
		return err
	}
	began := time.Now()
	w := newWatcher(jobs, began)
	watched := make(chan error, 1)
	watchCtx, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	go func() { watched <- w.run(watchCtx, api, cluster.GetAppliedIndex()) }()
	if err := submitAll(ctx, api, jobs, clients, &schedulerv1.JobSpec{Name: "bench", Queue: "bench", Gpus: gpus, Command: command}); err != nil {
		return err
	}
	submitted := time.Since(began)
	if err := <-watched; err != nil {
		return err
	}
	n := float64(jobs)
	fmt.Printf("%d jobs of %v, %d clients\n", jobs, command, clients)
	fmt.Printf("accepted  %8.3f s  %8.0f jobs/s\n", submitted.Seconds(), n/submitted.Seconds())
	fmt.Printf("started   %8.3f s  %8.0f jobs/s\n", w.started.Seconds(), n/w.started.Seconds())
	fmt.Printf("finished  %8.3f s  %8.0f jobs/s\n", w.finished.Seconds(), n/w.finished.Seconds())
	return nil
}

func submitAll(ctx context.Context, api schedulerv1.SchedulerServiceClient, jobs, clients int, spec *schedulerv1.JobSpec) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, clients)
	run := time.Now().UnixNano()
	for c := range clients {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(jobs) && errs[c] == nil; i = next.Add(1) {
				_, errs[c] = api.SubmitJob(ctx, &schedulerv1.SubmitJobRequest{RequestId: fmt.Sprintf("bench-%d-%d", run, i), Spec: spec, User: "bench"})
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// watcher counts jobs as they start and finish.
type watcher struct {
	jobs              int
	began             time.Time
	begun, done       map[uint64]bool
	started, finished time.Duration
}

func newWatcher(jobs int, began time.Time) *watcher {
	return &watcher{jobs: jobs, began: began, begun: map[uint64]bool{}, done: map[uint64]bool{}}
}

func (w *watcher) run(ctx context.Context, api schedulerv1.SchedulerServiceClient, from uint64) error {
	stream, err := api.WatchJobs(ctx, &schedulerv1.WatchJobsRequest{FromIndex: from})
	if err != nil {
		return err
	}
	for len(w.done) < w.jobs {
		ev, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("%d of %d jobs had finished: %w", len(w.done), w.jobs, err)
		}
		j := ev.GetJob()
		if j == nil || j.GetSpec().GetQueue() != "bench" {
			continue
		}
		if j.GetStartedUnixNs() > 0 && !w.begun[j.GetId()] {
			w.begun[j.GetId()] = true
			w.started = time.Since(w.began)
		}
		if j.GetState() > schedulerv1.JobState_JOB_STATE_SUCCEEDED {
			return fmt.Errorf("job %d %s: %s", j.GetId(), j.GetState(), j.GetReason())
		}
		if j.GetState() == schedulerv1.JobState_JOB_STATE_SUCCEEDED && !w.done[j.GetId()] {
			w.done[j.GetId()] = true
			w.finished = time.Since(w.began)
		}
	}
	return nil
}
