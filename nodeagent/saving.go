package nodeagent

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/interval"
	"github.com/gangline/gangline/nodeagent/keeper"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// labelSaving is the job's checkpoint policy as it was at the launch, for an agent that adopts the worker.
const labelSaving = "checkpoints"

// savingEnv is what of its checkpoint policy a program sees.
func savingEnv(p *agentv1.CheckpointPolicy) map[string]string {
	env := map[string]string{}
	switch {
	case p.GetIntervalAuto():
		env["GANGLINE_CHECKPOINT_INTERVAL"] = "auto"
	case p.GetIntervalSteps() > 0:
		env["GANGLINE_CHECKPOINT_INTERVAL"] = strconv.FormatInt(p.GetIntervalSteps(), 10) + " steps"
	case p.GetIntervalMs() > 0:
		env["GANGLINE_CHECKPOINT_INTERVAL"] = (time.Duration(p.GetIntervalMs()) * time.Millisecond).String()
	}
	if p.GetKeepEvery() > 0 {
		env["GANGLINE_CHECKPOINT_EVERY"] = strconv.FormatInt(p.GetKeepEvery(), 10)
	}
	if best := bestOf(p); len(best) > 0 {
		texts := make([]string, len(best))
		for i, b := range best {
			texts[i] = b.String()
		}
		env["GANGLINE_CHECKPOINT_BEST"] = strings.Join(texts, ",")
	}
	return env
}

func bestOf(p *agentv1.CheckpointPolicy) []checkpoint.Best {
	var out []checkpoint.Best
	for _, b := range p.GetKeepBest() {
		out = append(out, checkpoint.Best{Metric: b.GetMetric(), Lowest: b.GetLowest(), Count: int(b.GetCount())})
	}
	return out
}

// retention is which of a job's checkpoints stay.
func retention(keep int32, p *agentv1.CheckpointPolicy) keeper.Retention {
	return keeper.Retention{Keep: int(keep), Every: uint64(max(p.GetKeepEvery(), 0)), Best: bestOf(p)}
}

// pacePolicy is when a worker is to save.
func pacePolicy(p *agentv1.CheckpointPolicy) interval.Policy {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	return interval.Policy{
		Time: ms(p.GetIntervalMs()), Steps: p.GetIntervalSteps(), Auto: p.GetIntervalAuto(), Between: ms(p.GetBetweenFailuresMs()), Cost: ms(p.GetCostMs()),
	}
}

// setSaving keeps a job's policy in the labels of a worker that is about to start.
func setSaving(labels map[string]string, as *agentv1.Assignment) {
	if keep := as.GetCheckpointKeep(); keep > 0 {
		labels[labelKeep] = number(keep)
	}
	if limit := as.GetCheckpointLimitBytes(); limit > 0 {
		labels[labelLimit] = strconv.FormatInt(limit, 10)
	}
	if p := as.GetCheckpoints(); p != nil {
		if text, err := protojson.Marshal(p); err == nil {
			labels[labelSaving] = string(text)
		}
	}
}

// savingOf reads them: what the job said when the worker was launched. The leader's newest order may know failures and costs better.
func savingOf(st worker.Status) (keep int32, p *agentv1.CheckpointPolicy) {
	if n, err := strconv.ParseInt(st.Labels[labelKeep], 10, 32); err == nil {
		keep = int32(n)
	}
	text := st.Labels[labelSaving]
	if text == "" {
		return keep, nil
	}
	p = &agentv1.CheckpointPolicy{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(text), p); err != nil {
		return keep, nil
	}
	return keep, p
}

// paceOf tells a living worker's socket when it is to save: by the newest order, or as the worker's own labels have it.
func (r *reconciler) paceOf(st worker.Status) {
	key := reconcile.Key(st.Key)
	r.setOwner(st)
	if r.order != nil {
		if w, ok := r.order.by[key]; ok {
			r.sockets.SetPolicy(key, pacePolicy(w.assignment.GetCheckpoints()))
			return
		}
	}
	_, p := savingOf(st)
	r.sockets.SetPolicy(key, pacePolicy(p))
}
