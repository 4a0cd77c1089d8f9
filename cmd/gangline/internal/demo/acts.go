package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// dial connects to whichever server answers.
func dial(servers []*process) (*grpc.ClientConn, error) {
	r := manual.NewBuilderWithScheme("demo")
	var addrs []resolver.Address
	for _, s := range servers {
		addrs = append(addrs, resolver.Address{Addr: s.addr})
	}
	r.InitialState(resolver.State{Addresses: addrs})
	params := grpc.ConnectParams{MinConnectTimeout: time.Second}
	params.Backoff.BaseDelay, params.Backoff.Multiplier, params.Backoff.MaxDelay = 50*time.Millisecond, 1.5, 500*time.Millisecond
	return grpc.NewClient("demo:///cluster", grpc.WithResolvers(r), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(params), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"pick_first":{}}]}`))
}

// poll tries until it is done, fails, or ctx ends.
func poll(ctx context.Context, every time.Duration, what string, try func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done, err := try()
		if err != nil || done {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w", what, ctx.Err())
		}
	}
}

// leader asks the cluster who leads it.
func (s *story) leader(ctx context.Context) (*process, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := s.api.GetCluster(ctx, &schedulerv1.GetClusterRequest{})
	if err != nil {
		return nil, 0, err
	}
	for _, pr := range s.p.servers {
		if pr.name == c.GetLeaderId() {
			return pr, c.GetTerm(), nil
		}
	}
	return nil, 0, nil
}

// submit retries until the cluster has the job; its request id makes that safe.
func (s *story) submit(ctx context.Context, spec *schedulerv1.JobSpec) (uint64, error) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, says its documentation
	req := &schedulerv1.SubmitJobRequest{RequestId: hex.EncodeToString(b[:]), Spec: spec, User: "demo"}
	var last error
	var id uint64
	err := poll(ctx, 10*time.Millisecond, "a submit to be accepted", func() (bool, error) {
		callCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		resp, err := s.api.SubmitJob(callCtx, req)
		last = err
		if err != nil {
			return false, nil
		}
		id = resp.GetJob().GetId()
		return true, nil
	})
	if err != nil {
		return 0, errors.Join(err, last)
	}
	return id, nil
}

// submitJobs submits the training job and a queue of smaller ones.
func (s *story) submitJobs(ctx context.Context) error {
	s.view.title("Work: one gang of 8 GPUs on 2 nodes, and a queue of smaller jobs")
	digits, err := s.submit(ctx, &schedulerv1.JobSpec{
		Name: "digits", Queue: "research/vision", Gpus: 8, GpusPerNode: 4, Retries: 3, Priority: ptr(int32(60)),
		Command: append([]string{s.cfg.Digits}, s.cfg.DigitsArgs...),
	})
	if err != nil {
		return err
	}
	s.digits.Store(digits)
	for i := range 10 {
		gpus := int32(1 << (i % 4)) // 1, 2, 4, 8: 33 GPUs in all, so that some must wait
		id, err := s.submit(ctx, &schedulerv1.JobSpec{
			Name: fmt.Sprintf("small-%02d", i+1), Queue: "research/sweep", Gpus: gpus, Retries: 3,
			Command: []string{"/bin/sh", "-c", fmt.Sprintf("echo rank $RANK of $WORLD_SIZE on $CUDA_VISIBLE_DEVICES; sleep %d", 3+i/2)},
		})
		if err != nil {
			return err
		}
		s.small = append(s.small, id)
	}
	s.view.say("job %d digits and %d smaller jobs are submitted", digits, len(s.small))
	_, err = s.jobs.wait(ctx, s.digits.Load(), "its first checkpoint", func(j *schedulerv1.Job) bool {
		return j.GetState() == schedulerv1.JobState_JOB_STATE_RUNNING && j.GetCheckpoint().GetStep() > 0
	})
	return err
}

// killLeader kills the leader with SIGKILL and looks after every worker.
func (s *story) killLeader(ctx context.Context) error {
	leader, _, err := s.leader(ctx)
	if err != nil || leader == nil {
		return fmt.Errorf("find the leader: %w", err)
	}
	before, err := s.runningWorkers()
	if err != nil {
		return err
	}
	s.report.WorkersAtLeaderKill = len(before)
	s.view.title("The leader dies: kill -9 of server %s, while %d workers run", leader.name, len(before))
	killed := time.Now()
	leader.kill()
	s.report.LeaderKills++
	id, err := s.submit(ctx, &schedulerv1.JobSpec{Name: "after-failover", Queue: "research/sweep", Gpus: 1, Retries: 3, Command: []string{"/bin/sh", "-c", "echo submitted while the old leader was dead"}})
	if err != nil {
		return err
	}
	s.report.FailoverMS = max(1, time.Since(killed).Milliseconds())
	s.small = append(s.small, id)
	s.view.say("job %d was accepted %d ms after the leader's death", id, s.report.FailoverMS)
	// The cluster must be whole again before workers are counted: the job that
	// was just submitted has run, so agents are connected to the new leader.
	if _, err := s.jobs.wait(ctx, id, "its end", func(j *schedulerv1.Job) bool {
		return j.GetState() == schedulerv1.JobState_JOB_STATE_SUCCEEDED
	}); err != nil {
		return err
	}
	lost := s.lostWorkers(before)
	s.report.WorkersLostToLeaderKill = len(lost)
	s.view.say("of the %d workers that ran, %d were lost %s", len(before), len(lost), strings.Join(lost, " "))
	if err := s.p.start(leader); err != nil {
		return err
	}
	s.view.say("server %s is started again, and catches up", leader.name)
	return nil
}

// killNode kills a node under the training job.
func (s *story) killNode(ctx context.Context) error {
	was := s.jobs.job(s.digits.Load())
	from := was.GetCheckpoint().GetStep()
	job, err := s.jobs.wait(ctx, s.digits.Load(), "another checkpoint", func(j *schedulerv1.Job) bool {
		return j.GetState() == schedulerv1.JobState_JOB_STATE_RUNNING && j.GetCheckpoint().GetStep() > from
	})
	if err != nil {
		return err
	}
	// In between two checkpoints, so that there is work to repeat.
	if err := s.waitForStep(ctx, job.GetCheckpoint().GetStep()+stepsAtRisk); err != nil {
		return err
	}
	last := job.GetWorkers()[len(job.GetWorkers())-1]
	var node *process
	for _, n := range s.p.agents {
		if n.name == last.GetNodeName() {
			node = n
		}
	}
	if node == nil {
		return fmt.Errorf("the digits job's rank %d runs on node %q, which the demo does not have", last.GetRank(), last.GetNodeName())
	}
	if p, err := s.progress(ctx); err == nil {
		s.report.StepAtNodeKill = p.GetStep()
	}
	s.view.title("A node dies: kill -9 of everything on %s, agent and workers, at step %d", node.name, s.report.StepAtNodeKill)
	killed := time.Now()
	if err := s.p.killNode(node); err != nil {
		return err
	}
	s.report.NodeKills++
	epoch := job.GetEpoch()
	if _, err = s.jobs.wait(ctx, s.digits.Load(), "running again", func(j *schedulerv1.Job) bool {
		return j.GetState() == schedulerv1.JobState_JOB_STATE_RUNNING && j.GetEpoch() > epoch
	}); err != nil {
		return err
	}
	s.report.RecoveryMS = time.Since(killed).Milliseconds()
	s.view.say("digits runs again %.1f s after its node died", float64(s.report.RecoveryMS)/1000)
	return nil
}

// stepsAtRisk is how far the training is past its checkpoint when its node dies.
const stepsAtRisk = 40

func (s *story) waitForStep(ctx context.Context, step int64) error {
	return poll(ctx, 100*time.Millisecond, fmt.Sprintf("training step %d", step), func() (bool, error) {
		p, err := s.progress(ctx)
		return err == nil && p.GetStep() >= step, nil
	})
}

// finish waits for every job and gathers the report.
func (s *story) finish(ctx context.Context) error {
	s.view.title("Everything finishes")
	for _, id := range append([]uint64{s.digits.Load()}, s.small...) {
		if _, err := s.jobs.wait(ctx, id, "its end", func(j *schedulerv1.Job) bool {
			return j.GetState() == schedulerv1.JobState_JOB_STATE_SUCCEEDED
		}); err != nil {
			return err
		}
	}
	for _, id := range append([]uint64{s.digits.Load()}, s.small...) {
		resp, err := s.api.GetJob(ctx, &schedulerv1.GetJobRequest{Id: id})
		if err != nil {
			return err
		}
		s.report.Jobs = append(s.report.Jobs, jobReport(resp.GetJob()))
		if id == s.digits.Load() {
			metrics := resp.GetJob().GetProgress().GetMetrics()
			s.report.ResumedFromStep = int64(metrics["start_step"])
			s.report.ModelHash = fmt.Sprintf("%08x", uint32(metrics["model_hash32"]))
		}
	}
	s.report.StepsRepeated = max(0, s.report.StepAtNodeKill-s.report.ResumedFromStep)
	return s.trainAlone(ctx)
}

// trainAlone does the same training in one process, without Gangline and
// without a pause, and takes its model's hash.
func (s *story) trainAlone(ctx context.Context) error {
	args := slices.Clone(s.cfg.DigitsArgs)
	if i := slices.Index(args, "--step-delay"); i >= 0 {
		args = slices.Delete(args, i, i+2)
	}
	cmd := exec.CommandContext(ctx, s.cfg.Digits, args...)
	cmd.Env = outsideGangline()
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("train once more in one process: %w", err)
	}
	fields := strings.Fields(string(out))
	hash := fields[len(fields)-1]
	s.report.ModelHashAlone = hash[max(0, len(hash)-8):]
	s.view.say("the same training in one process, never interrupted, gives the model %s; the job's is %s", s.report.ModelHashAlone, s.report.ModelHash)
	return nil
}

func jobReport(j *schedulerv1.Job) JobReport {
	name := stateName(j)
	r := JobReport{
		ID: j.GetId(), Name: j.GetSpec().GetName(), State: strings.ToUpper(name[:1]) + name[1:], GPUs: j.GetSpec().GetGpus(), Epochs: j.GetEpoch(),
		Steps: j.GetProgress().GetStep(), WaitS: seconds(j.GetSubmittedUnixNs(), j.GetStartedUnixNs()), JCTS: seconds(j.GetSubmittedUnixNs(), j.GetFinishedUnixNs()),
	}
	if acc, ok := j.GetProgress().GetMetrics()["test_accuracy"]; ok {
		r.TestAccuracy = &acc
	}
	if h := j.GetHistory(); len(h) > 0 {
		r.WaitS = seconds(j.GetSubmittedUnixNs(), h[0].GetStartedUnixNs()) // to the first start
	}
	return r
}

func seconds(from, to int64) float64 {
	return time.Duration(to - from).Round(time.Millisecond).Seconds()
}

func ptr[T any](v T) *T { return &v }

// progress is the training job's newest progress.
func (s *story) progress(ctx context.Context) (*schedulerv1.Progress, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	resp, err := s.api.GetJob(ctx, &schedulerv1.GetJobRequest{Id: s.digits.Load()})
	return resp.GetJob().GetProgress(), err
}

// tail is the end of a log, for an error.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
