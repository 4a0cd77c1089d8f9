package api

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of one page of jobs.
const (
	defaultPage  = 100
	maxPage      = 1000
	maxPageBytes = 2 << 20 // specs can be large; half of gRPC's default limit of a reply
)

// ListJobs returns a page of jobs, newest first. Pages are stable: jobs that
// come or go between two pages neither repeat nor hide others.
func (s *Service) ListJobs(ctx context.Context, req *schedulerv1.ListJobsRequest) (*schedulerv1.ListJobsResponse, error) {
	size := int(req.GetPageSize())
	if size < 0 || size > maxPage {
		return nil, status.Errorf(codes.InvalidArgument, "page_size: %d is not in 0..%d", size, maxPage)
	}
	if size == 0 {
		size = defaultPage
	}
	before, err := decodePageToken(req)
	if err != nil {
		return nil, err
	}
	local := func(ctx context.Context) (*schedulerv1.ListJobsResponse, error) {
		st, err := s.read(ctx, req.GetStale())
		if err != nil {
			return nil, err
		}
		return s.page(st, req, before, size), nil
	}
	if req.GetStale() {
		out, err := local(ctx)
		return out, toStatus(s.log, err)
	}
	return viaLeader(ctx, s, local,
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.ListJobsResponse, error) {
			return c.ListJobs(ctx, req)
		})
}

// page collects up to size jobs with ids below before (0: from the newest).
func (s *Service) page(st *cluster.State, req *schedulerv1.ListJobsRequest, before cluster.JobID, size int) *schedulerv1.ListJobsResponse {
	out := &schedulerv1.ListJobsResponse{Index: st.Index()}
	bytes := 0
	st.EachJobBefore(before, func(j *cluster.Job) bool {
		if !matches(j, req) {
			return true
		}
		if len(out.Jobs) == size || bytes > maxPageBytes {
			out.NextPageToken = encodePageToken(req, cluster.JobID(out.Jobs[len(out.Jobs)-1].GetId()))
			return false
		}
		p := jobToProto(j, s.now())
		s.addProgress(p, j)
		bytes += proto.Size(p)
		out.Jobs = append(out.Jobs, p)
		return true
	})
	return out
}

func matches(j *cluster.Job, req *schedulerv1.ListJobsRequest) bool {
	if len(req.GetStates()) > 0 && !slices.Contains(req.GetStates(), schedulerv1.JobState(j.State)) {
		return false
	}
	if q := req.GetQueue(); q != "" && j.Spec.Queue != q && !strings.HasPrefix(j.Spec.Queue, q+"/") {
		return false
	}
	if a := cluster.JobID(req.GetArray()); a != 0 && j.Array != a {
		return false
	}
	return (req.GetUser() == "" || j.User == req.GetUser()) && strings.HasPrefix(j.Spec.Name, req.GetNamePrefix())
}

// A page token is the last id of the page and a sum of the filters it belongs to.
const pageTokenBytes = 16

func encodePageToken(req *schedulerv1.ListJobsRequest, last cluster.JobID) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(last))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, filterSum(req)))
}

// decodePageToken returns the id below which the page begins, 0 for the first.
func decodePageToken(req *schedulerv1.ListJobsRequest) (cluster.JobID, error) {
	if req.GetPageToken() == "" {
		return 0, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil || len(b) != pageTokenBytes || binary.BigEndian.Uint64(b) == 0 {
		return 0, status.Error(codes.InvalidArgument, "page_token: is not one that a server gave: start again without it")
	}
	if binary.BigEndian.Uint64(b[8:]) != filterSum(req) {
		return 0, status.Error(codes.InvalidArgument, "page_token: belongs to a list with other filters: start again without it")
	}
	return cluster.JobID(binary.BigEndian.Uint64(b)), nil
}

func filterSum(req *schedulerv1.ListJobsRequest) uint64 {
	h := fnv.New64a()
	states := slices.Clone(req.GetStates())
	slices.Sort(states)
	for _, st := range slices.Compact(states) {
		_, _ = h.Write([]byte{clampByte(st)}) // a hash never fails
	}
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, req.GetArray()))
	for _, f := range []string{req.GetQueue(), req.GetUser(), req.GetNamePrefix()} {
		_, _ = h.Write([]byte{0})
		_, _ = h.Write([]byte(f))
	}
	return h.Sum64()
}
