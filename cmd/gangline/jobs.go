package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

func (a *app) jobsCmd() *cobra.Command {
	req := &schedulerv1.ListJobsRequest{}
	var states []string
	var mine, all bool
	var limit int
	cmd := &cobra.Command{
		Use: "jobs", Aliases: []string{"queue", "ps"},
		Short: "List jobs, newest first",
		Long: `List jobs, newest first: the newest 50, or as --limit and --all say. --state
pending,starting,running shows what has not ended. Members of an array are named name[index]; those that wait for the
same reason share a line. With --json, prints one JSON object with the jobs, each one, and the index of the state they
were read from.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range states {
				st, err := parseState(s)
				if err != nil {
					return err
				}
				req.States = append(req.States, st)
			}
			if mine {
				req.User = userName()
			}
			if all {
				limit = 0
			}
			return a.listJobs(cmd.Context(), req, limit)
		},
	}
	f := cmd.Flags()
	f.StringSliceVarP(&states, "state", "s", nil, "only jobs in these states, such as pending,running")
	f.StringVarP(&req.Queue, "queue", "q", "", "only jobs of this queue or below it")
	f.StringVarP(&req.User, "user", "u", "", "only jobs of this user")
	f.StringVar(&req.NamePrefix, "name-prefix", "", "only jobs whose name begins so")
	f.Uint64Var(&req.Array, "array", 0, "only members of the array whose first job has this number")
	f.BoolVar(&mine, "me", false, "only my jobs")
	f.IntVarP(&limit, "limit", "n", 50, "at most this many")
	f.BoolVarP(&all, "all", "a", false, "all that are remembered")
	f.BoolVar(&req.Stale, "stale", false, "take what the server asked has, without asking the leader")
	return cmd
}

// maxPages bounds how far a list looks for more lines: an array's many members
// may share one.
const maxPages = 20

func (a *app) listJobs(ctx context.Context, req *schedulerv1.ListJobsRequest, limit int) error {
	all := &schedulerv1.ListJobsResponse{}
	var lines jobLines
	err := a.call(ctx, func(ctx context.Context, c schedulerv1.SchedulerServiceClient) error {
		for pages := 1; ; pages++ {
			req.PageSize = 1000
			if limit > 0 && (a.json || pages == 1) {
				req.PageSize = int32(min(1000, limit-len(all.GetJobs())))
			}
			page, err := c.ListJobs(ctx, req)
			if err != nil {
				return err
			}
			all.Index = page.GetIndex()
			all.Jobs = append(all.Jobs, page.GetJobs()...)
			lines.add(page.GetJobs())
			req.PageToken = page.GetNextPageToken()
			enough := limit > 0 && (len(all.GetJobs()) >= limit && a.json || len(lines.groups) > limit || pages >= maxPages)
			if req.GetPageToken() == "" || enough {
				all.NextPageToken = req.GetPageToken()
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(all)
	}
	more := all.GetNextPageToken() != ""
	if limit > 0 && len(lines.groups) > limit {
		lines.groups, more = lines.groups[:limit], true
	}
	if err := table(a.out, lines.rows()); err != nil {
		return err
	}
	if more {
		a.statef("there are more: --limit N or --all shows them")
	}
	return nil
}

// jobLines are jobs as a list shows them, newest first.
type jobLines struct {
	groups [][]*schedulerv1.Job // jobs of one line each
}

// add appends jobs. Neighbours of one array that wait for one reason share a line.
func (l *jobLines) add(jobs []*schedulerv1.Job) {
	for _, j := range jobs {
		if n := len(l.groups); n > 0 {
			group := l.groups[n-1]
			last := group[len(group)-1]
			if j.GetArray() != 0 && j.GetArray() == last.GetArray() && j.GetId() == last.GetId()-1 && waitAlike(j, last) {
				l.groups[n-1] = append(group, j)
				continue
			}
		}
		l.groups = append(l.groups, []*schedulerv1.Job{j})
	}
}

func waitAlike(a, b *schedulerv1.Job) bool {
	const pending = schedulerv1.JobState_JOB_STATE_PENDING
	return a.GetState() == pending && b.GetState() == pending && a.GetReason() == b.GetReason()
}

func (l *jobLines) rows() [][]string {
	rows := [][]string{{"JOB", "NAME", "USER", "QUEUE", "GPUS", "STATE", "AGE", "REASON"}}
	for _, group := range l.groups {
		j, first := group[0], group[len(group)-1]
		id, name := strconv.FormatUint(j.GetId(), 10), jobName(j)
		if len(group) > 1 {
			id = fmt.Sprintf("%d-%d", first.GetId(), j.GetId())
			name = fmt.Sprintf("%s[%d-%d]", clip(j.GetSpec().GetName(), 20), first.GetArrayIndex(), j.GetArrayIndex())
		}
		size := sizeText(j.GetSpec())
		if held := j.GetHeldGpus(); held > 0 && j.GetSpec().GetMinGpus() > 0 {
			size = fmt.Sprintf("%d of %s", held, size)
		}
		rows = append(rows, []string{
			id, name, clip(j.GetUser(), 12), clip(j.GetSpec().GetQueue(), 20), size, stateName(j.GetState()), age(j.GetSubmittedUnixNs()), jobNote(j),
		})
	}
	return rows
}

// jobName is a job's name, with its index if it is a member of an array.
func jobName(j *schedulerv1.Job) string {
	name := clip(j.GetSpec().GetName(), 24)
	if j.GetArray() != 0 {
		name += fmt.Sprintf("[%d]", j.GetArrayIndex())
	}
	return name
}

// jobNote is the most telling short text about a job.
func jobNote(j *schedulerv1.Job) string {
	if p := j.GetProgress(); p != nil && j.GetState() != schedulerv1.JobState_JOB_STATE_PENDING {
		return clip(progressText(p), 90)
	}
	return clip(j.GetReason(), 90)
}

func clip(s string, n int) string {
	s = strings.ReplaceAll(s, "\n", " ")
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
