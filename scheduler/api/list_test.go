package api

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

func TestListPagesAreStable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := within(t)
	for range 25 {
		f.submit(nil)
	}
	var got []uint64
	token := ""
	for page := 0; ; page++ {
		resp, err := f.s1().client.ListJobs(ctx, &schedulerv1.ListJobsRequest{PageSize: 10, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range resp.GetJobs() {
			got = append(got, j.GetId())
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
		// Between two pages jobs come and go.
		f.submit(nil)
		if page == 0 {
			f.apply(&cluster.CancelJob{Job: 3})
			f.apply(&cluster.ForgetJobs{Jobs: []cluster.JobID{3}})
		}
	}
	var want []uint64
	for id := uint64(25); id > 0; id-- {
		if id != 3 {
			want = append(want, id)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.submit(func(s *cluster.JobSpec) { s.Queue, s.Name = "research/vision", "vit-1" })
	f.submit(func(s *cluster.JobSpec) { s.Queue, s.Name = "research", "vit-2" })
	f.submit(func(s *cluster.JobSpec) { s.Queue, s.Name = "researchers", "bert" })
	f.apply(&cluster.CancelJob{Job: 2})
	for name, c := range map[string]struct {
		req  *schedulerv1.ListJobsRequest
		want []uint64
	}{
		"all":        {&schedulerv1.ListJobsRequest{}, []uint64{3, 2, 1}},
		"queue tree": {&schedulerv1.ListJobsRequest{Queue: "research"}, []uint64{2, 1}},
		"name":       {&schedulerv1.ListJobsRequest{NamePrefix: "vit"}, []uint64{2, 1}},
		"state": {&schedulerv1.ListJobsRequest{States: []schedulerv1.JobState{
			schedulerv1.JobState_JOB_STATE_PENDING, schedulerv1.JobState_JOB_STATE_RUNNING,
		}}, []uint64{3, 1}},
		"user": {&schedulerv1.ListJobsRequest{User: "bob"}, nil},
	} {
		resp, err := f.s1().client.ListJobs(within(t), c.req)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, j := range resp.GetJobs() {
			got = append(got, j.GetId())
		}
		if !slices.Equal(got, c.want) || resp.GetNextPageToken() != "" {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestListPageIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	big := strings.Repeat("x", 200<<10)
	for range 30 {
		f.submit(func(s *cluster.JobSpec) { s.Command = []string{"echo", big} })
	}
	resp, err := f.s1().client.ListJobs(within(t), &schedulerv1.ListJobsRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(resp.GetJobs()); n == 0 || n >= 30 || resp.GetNextPageToken() == "" {
		t.Errorf("%d jobs of 200 KiB in one page, token %q", n, resp.GetNextPageToken())
	}
}

func TestListRefusesForeignTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := within(t)
	f.submit(nil)
	f.submit(nil)
	first, err := f.s1().client.ListJobs(ctx, &schedulerv1.ListJobsRequest{PageSize: 1, User: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.s1().client.ListJobs(ctx, &schedulerv1.ListJobsRequest{PageSize: 1, PageToken: first.GetNextPageToken()})
	wantStatus(t, err, codes.InvalidArgument, "other filters")
	_, err = f.s1().client.ListJobs(ctx, &schedulerv1.ListJobsRequest{PageToken: "nonsense"})
	wantStatus(t, err, codes.InvalidArgument, "page_token")
	_, err = f.s1().client.ListJobs(ctx, &schedulerv1.ListJobsRequest{PageSize: 1001})
	wantStatus(t, err, codes.InvalidArgument, "page_size")
}
