package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Validate returns every problem of the policy at once, joined, or nil. It
// knows nothing of the cluster; Warnings does.
func (p *Policy) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch p.Order {
	case OrderGangline, OrderFIFO, OrderLAS, OrderQSSF, OrderSJF, OrderSRTF:
	default:
		bad("order: %q is not one of gangline, fifo, las, qssf (and sjf, srtf in the simulator)", p.Order)
	}
	switch p.Score {
	case ScoreGangline, ScoreFGD, ScoreBestFit, ScoreConsolidated:
	default:
		bad("score: %q is not one of gangline, fgd, bestfit, consolidated", p.Score)
	}
	if p.HalfLife < time.Minute || p.HalfLife > maxPolicySpan {
		bad("fair_share.half_life: %s is not in 1m..10 years", p.HalfLife)
	}
	if p.Setback < 0 || p.Setback > maxSetback {
		bad("fair_share.setback: %s is not in 0s..30 days", p.Setback)
	}
	for i, w := range p.Weights {
		if err := validateType(w.Type); err != nil {
			bad("fair_share.gpu_weights: %s", err)
		}
		if w.Milli < 1 || w.Milli > maxWeightMilli {
			bad("fair_share.gpu_weights: %s: %g is not in 0.001..1000", w.Type, float64(w.Milli)/1000)
		}
		if i > 0 && p.Weights[i-1].Type >= w.Type {
			bad("fair_share.gpu_weights: %s is named twice", w.Type)
		}
	}
	errs = append(errs, p.validateLevels(), p.validateKnobs(), p.validateWindows(), p.Checkpoints.validate())
	if len(p.Queues) > MaxQueues {
		bad("queues: %d, at most %d", len(p.Queues), MaxQueues)
		return errors.Join(errs...)
	}
	for i := range p.Queues {
		errs = append(errs, p.validateQueue(i))
	}
	return errors.Join(append(errs, p.validateSums())...)
}

func validateType(t string) error {
	if t == "" || len(t) > maxGPUTypeLen || strings.ContainsFunc(t, control) {
		return fmt.Errorf("%.*q is not a GPU type such as h100", maxGPUTypeLen, t)
	}
	return nil
}

func (p *Policy) validateLevels() error {
	var errs []error
	if len(p.Levels) > maxLevels {
		errs = append(errs, fmt.Errorf("topology: %d levels, at most %d", len(p.Levels), maxLevels))
	}
	seen := map[string]bool{LevelNode: true, LevelIsland: true, LevelNUMA: true}
	labels := map[string]bool{}
	for _, l := range p.Levels {
		if l.Name == "" || len(l.Name) > maxLevelNameLen || strings.ContainsFunc(l.Name, control) {
			errs = append(errs, fmt.Errorf("topology: %.*q is not a name of a level such as rack", maxLevelNameLen, l.Name))
		}
		if seen[l.Name] {
			errs = append(errs, fmt.Errorf("topology: level %q is named twice (node, island and numa are always there)", l.Name))
		}
		seen[l.Name] = true
		if err := validateLabel(l.Label, ""); err != nil {
			errs = append(errs, fmt.Errorf("topology: level %s: label %w", l.Name, err))
		}
		if labels[l.Label] {
			errs = append(errs, fmt.Errorf("topology: level %s: label %s is that of a wider level", l.Name, l.Label))
		}
		labels[l.Label] = true
		errs = append(errs, l.validateDomains())
	}
	return errors.Join(errs...)
}

func (p *Policy) validateKnobs() error {
	var errs []error
	span := func(name string, d time.Duration) {
		if d < 0 || d > maxPolicySpan {
			errs = append(errs, fmt.Errorf("%s: %s is not in 0..10 years", name, d))
		}
	}
	count := func(name string, n int64) {
		if n < 0 || n > 1_000_000 {
			errs = append(errs, fmt.Errorf("%s: %d is not in 0..1000000", name, n))
		}
	}
	span("preemption.min_runtime", p.Preemption.MinRuntime)
	span("preemption.restart_cost", p.Preemption.RestartCost)
	count("preemption.max_per_job", int64(p.Preemption.MaxPerJob))
	count("preemption.min_gain", p.Preemption.MinGain)
	span("backfill.hold_after", p.Backfill.HoldAfter)
	if p.Backfill.Reserve < 0 || p.Backfill.Reserve > 64 {
		errs = append(errs, fmt.Errorf("backfill.reserve: %d is not in 0..64", p.Backfill.Reserve))
	}
	count("defragmentation.max_per_hour", int64(p.Defrag.MaxPerHour))
	span("defragmentation.max_cost", p.Defrag.MaxCost)
	return errors.Join(errs...)
}

func (p *Policy) validateWindows() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(p.Windows) > MaxWindows {
		bad("reservations: %d, at most %d", len(p.Windows), MaxWindows)
	}
	for i := range p.Windows {
		w := &p.Windows[i]
		if w.Name == "" || len(w.Name) > MaxNameLen || strings.ContainsFunc(w.Name, control) {
			bad("reservations: %.*q is not a name", MaxNameLen, w.Name)
		}
		if i > 0 && p.Windows[i-1].Name >= w.Name {
			bad("reservations: %s is named twice", w.Name)
		}
		if w.Start <= 0 || w.End <= w.Start {
			bad("reservations: %s: must end after it starts", w.Name)
		}
		if w.Maintenance == (w.Queue != "") {
			bad("reservations: %s: name either the queue that it is for, or maintenance: true", w.Name)
		}
		if w.Queue != "" {
			if err := validateQueue(w.Queue); err != nil {
				bad("reservations: %s: %s", w.Name, err)
			} else if p.Queue(w.Queue) == nil {
				bad("reservations: %s: queue %s is not in the policy", w.Name, w.Queue)
			}
		}
	}
	return errors.Join(errs...)
}

func (p *Policy) validateQueue(i int) error {
	var errs []error
	q := &p.Queues[i]
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("queue %s: %s", q.Path, fmt.Sprintf(format, args...)))
	}
	if err := validateQueue(q.Path); err != nil {
		return err
	}
	if i > 0 && p.Queues[i-1].Path >= q.Path {
		bad("is named twice")
	}
	if parent := ParentQueue(q.Path); parent != "" && p.Queue(parent) == nil {
		bad("its parent %s is not in the policy", parent)
	}
	if q.Weight < 1 || q.Weight > maxWeightMilli {
		bad("weight: %g is not in 0.001..1000", float64(q.Weight)/1000)
	}
	if q.UserLimit < 0 || q.UserLimit > maxQuotaGPUs {
		bad("user_limit: %d is not in 0..%d", q.UserLimit, maxQuotaGPUs)
	}
	for _, list := range []struct {
		name  string
		items []TypeCount
	}{{"quota", q.Quota}, {"limit", q.Limit}} {
		if len(list.items) > maxTypeCounts {
			bad("%s: %d types, at most %d", list.name, len(list.items), maxTypeCounts)
		}
		for k, c := range list.items {
			if c.Type != "" && validateType(c.Type) != nil {
				bad("%s: %s", list.name, validateType(c.Type))
			}
			if c.GPUs < 0 || c.GPUs > maxQuotaGPUs {
				bad("%s: %d GPUs of type %q is not in 0..%d", list.name, c.GPUs, c.Type, maxQuotaGPUs)
			}
			if k > 0 && list.items[k-1].Type >= c.Type {
				bad("%s: type %q is named twice", list.name, c.Type)
			}
		}
	}
	if _, ofAny := CountOf(q.Quota, ""); ofAny && len(q.Quota) > 1 {
		bad("quota: give either a number for each GPU type or one for all types together, not both")
	}
	for _, c := range q.Quota {
		if l, ok := CountOf(q.Limit, c.Type); ok && l < c.GPUs {
			bad("limit of %d is below its quota of %d GPUs of type %q", l, c.GPUs, c.Type)
		}
	}
	return errors.Join(errs...)
}

// validateSums checks that no queue promises its children more than it has. A
// queue that names no quota has what its children have together; if one of
// these is of any type, all of it is.
func (p *Policy) validateSums() error {
	below := make(map[string][]TypeCount, len(p.Queues)) // what a queue's children have together
	var errs []error
	for i := len(p.Queues) - 1; i >= 0; i-- { // sorted by path: children come before their parents
		q := &p.Queues[i]
		promised := below[q.Path]
		has := promised
		if len(q.Quota) > 0 {
			errs = append(errs, q.keeps(promised))
			has = q.Quota
		}
		for _, c := range has {
			parent := ParentQueue(q.Path)
			below[parent] = addCount(below[parent], c)
		}
	}
	slices.Reverse(errs)
	return errors.Join(errs...)
}

// keeps returns an error if the queue has less than it promises its children.
func (q *QueuePolicy) keeps(promised []TypeCount) error {
	var errs []error
	if total, ofAny := CountOf(q.Quota, ""); ofAny {
		sum := int64(0)
		for _, c := range promised {
			sum += c.GPUs
		}
		promised = []TypeCount{{GPUs: min(sum, total)}}
		if sum > total {
			errs = append(errs, fmt.Errorf("queue %s: its children's quotas of type \"\" add up to %d GPUs, more than its own %d", q.Path, sum, total))
		}
	}
	for _, c := range promised {
		own, named := CountOf(q.Quota, c.Type)
		switch {
		case c.GPUs <= own:
		case c.Type == "":
			errs = append(errs, fmt.Errorf("queue %s: its quota is of GPU types, but one of its children has a quota of %d GPUs of any type: name the types there too", q.Path, c.GPUs))
		case named:
			errs = append(errs, fmt.Errorf("queue %s: its children's quotas of type %q add up to %d GPUs, more than its own %d", q.Path, c.Type, c.GPUs, own))
		default:
			errs = append(errs, fmt.Errorf("queue %s: its children's quotas of type %q add up to %d GPUs, but its own does not name the type", q.Path, c.Type, c.GPUs))
		}
	}
	return errors.Join(errs...)
}

// addCount returns the list, sorted by type, with so many GPUs of a type more.
func addCount(list []TypeCount, c TypeCount) []TypeCount {
	i, found := slices.BinarySearchFunc(list, c.Type, func(x TypeCount, want string) int { return strings.Compare(x.Type, want) })
	if found {
		list[i].GPUs += c.GPUs
		return list
	}
	return slices.Insert(list, i, c)
}
