package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/jobfile"
)

// specFlags are the fields of a job file as flags.
type specFlags struct {
	values map[string]*string
	env    []string
}

func (s *specFlags) register(f *pflag.FlagSet) {
	s.values = map[string]*string{}
	short := map[string]string{"gpus": "g", "queue": "q", "name": "J", "dir": "D"}
	for _, field := range jobfile.Fields() {
		if field.IsFlag() {
			s.values[field.Flag()] = f.StringP(field.Flag(), short[field.Name], "", field.Usage)
		}
	}
	f.Lookup("preemptible").NoOptDefVal = "true"
	f.StringArrayVarP(&s.env, "env", "e", nil, "environment variable NAME=VALUE; may be repeated")
}

// spec makes the job: a file, or the command after "--", and flags over it.
func (s *specFlags) spec(cmd *cobra.Command, args []string, in io.Reader) (*schedulerv1.JobSpec, error) {
	spec := &schedulerv1.JobSpec{}
	dash := cmd.ArgsLenAtDash()
	switch {
	case dash == 0 && len(args) > 0:
		spec.Command = args
	case dash > 0 || len(args) != 1:
		return nil, usage("give one job file, or \"--\" and a command: see %q", cmd.CommandPath()+" --help")
	default:
		data, err := readFile(args[0], in)
		if err != nil {
			return nil, usage("%w", err)
		}
		if spec, err = jobfile.Parse(args[0], data); err != nil {
			return nil, &exitError{exitUsage, err}
		}
	}
	var errs []error
	for _, field := range jobfile.Fields() {
		v := s.values[field.Flag()]
		if v != nil && cmd.Flags().Changed(field.Flag()) {
			errs = append(errs, field.Set(spec, *v))
		}
	}
	for _, pair := range s.env {
		errs = append(errs, jobfile.SetEnv(spec, pair))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	if spec.GetGpus() == 0 {
		spec.Gpus = 1
	}
	if spec.GetName() == "" && len(spec.GetCommand()) > 0 {
		spec.Name = filepath.Base(spec.GetCommand()[0])
	}
	return spec, nil
}

// readFile reads a job file; "-" is standard input.
func readFile(path string, in io.Reader) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(in, jobfile.MaxBytes+1))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("job file: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	return io.ReadAll(io.LimitReader(f, jobfile.MaxBytes+1))
}

func (a *app) submitCmd() *cobra.Command {
	var flags specFlags
	var parsable, wait, follow bool
	var requestID string
	cmd := &cobra.Command{
		Use:   "submit [FLAGS] (FILE | - | -- COMMAND [ARG...])",
		Short: "Submit a job and print its number",
		Long: `Submit a job: a YAML file, standard input (-), or a command after "--".
Every field of the file is also a flag; a flag overrides the file. The fields
are described in docs/job-file.md.

A submission is safe to repeat with the same --request-id: it never makes a
second job.`,
		Example: `  gangline submit train.yaml
  gangline submit --gpus 8 --gpu-type h100 --retries 3 -- python train.py --lr 0.1
  gangline submit --follow train.yaml`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := flags.spec(cmd, args, a.in)
			if err != nil {
				return err
			}
			if spec.GetArray() != nil && (wait || follow) {
				return usage("--wait and --follow are for one job, not for an array: gangline jobs --array N shows how its members do")
			}
			job, err := a.submit(cmd.Context(), spec, requestID)
			if err != nil {
				return err
			}
			switch {
			case parsable:
				fmt.Fprintln(a.out, job.GetId())
			case a.json:
				err = a.printJSON(job)
			default:
				fmt.Fprintln(a.out, submittedText(job))
			}
			if err != nil || !(wait || follow) {
				return err
			}
			return a.attach(cmd.Context(), job.GetId(), follow)
		},
	}
	flags.register(cmd.Flags())
	cmd.Flags().BoolVar(&parsable, "parsable", false, "print the job's number and nothing else")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the job ends; exit with its code")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait and print the job's output")
	cmd.Flags().StringVar(&requestID, "request-id", "", "identity of this submission (default: random)")
	return cmd
}

func submittedText(j *schedulerv1.Job) string {
	array := j.GetSpec().GetArray()
	if array == nil {
		return fmt.Sprintf("Submitted job %d", j.GetId())
	}
	members := uint64((array.GetLast()-array.GetFirst())/max(array.GetStep(), 1)) + 1
	return fmt.Sprintf("Submitted jobs %d to %d, an array of %d", j.GetId(), j.GetId()+members-1, members)
}

func (a *app) submit(ctx context.Context, spec *schedulerv1.JobSpec, requestID string) (*schedulerv1.Job, error) {
	if requestID == "" {
		requestID = newRequestID()
	}
	var job *schedulerv1.Job
	err := a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
		resp, err := c.SubmitJob(ctx, &schedulerv1.SubmitJobRequest{RequestId: requestID, Spec: spec, User: userName()})
		job = resp.GetJob()
		return err
	})
	return job, err
}
