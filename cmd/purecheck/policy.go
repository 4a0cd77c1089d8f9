package main

import (
	"fmt"
	"path"
	"strings"
)

// modulePath is the module whose packages are checked; the folders of the policy table are relative to it.
const modulePath = "github.com/gangline/gangline"

// level says how strict the rules are.
type level int

const (
	// pure packages are functions of their arguments: no clock, I/O, lock, goroutine, global or map order.
	pure level = iota
	// deterministic packages may hold state and write files, yet the same seed must give the same bytes.
	deterministic
)

// policy says how one package is checked.
type policy struct {
	dir   string   // folder below the module root, for example "scheduler/cluster"
	level level    // which rules hold
	allow []string // import paths outside the standard library that it may reach, directly or not; ignored below pure
}

// importPath returns the package's import path.
func (p policy) importPath() string { return modulePath + "/" + p.dir }

const (
	clusterPath = modulePath + "/scheduler/cluster"
	plannerPath = modulePath + "/scheduler/planner"
	fleetPath   = plannerPath + "/fleet"
	quotaPath   = plannerPath + "/quota"
	controlPath = modulePath + "/scheduler/control"
	btreePath   = "github.com/tidwall/btree"
)

// policies is the table of packages that must be pure or deterministic. A package that is named here and missing
// from the tree is an error: a check that silently covers nothing is worse than none.
//
//nolint:gochecknoglobals // table, never written
var policies = []policy{
	{dir: "scheduler/cluster", level: pure, allow: []string{btreePath}},
	{dir: "scheduler/planner", level: pure, allow: []string{clusterPath, fleetPath, quotaPath, btreePath}},
	{dir: "scheduler/planner/fleet", level: pure, allow: []string{clusterPath, btreePath}},
	{dir: "scheduler/planner/quota", level: pure, allow: []string{clusterPath, btreePath}},
	{dir: "scheduler/control", level: pure, allow: []string{clusterPath, plannerPath, fleetPath, quotaPath, btreePath}},
	{dir: "scheduler/forecast", level: pure, allow: []string{clusterPath, plannerPath, fleetPath, quotaPath, controlPath, btreePath}},
	{dir: "nodeagent/reconcile", level: pure},
	{dir: "sim", level: deterministic},
	{dir: "allreduce/kernel", level: deterministic},
}

// choose returns the policies of the named folders, or the whole table when args is empty.
func choose(table []policy, args []string) ([]policy, error) {
	if len(args) == 0 {
		return table, nil
	}
	chosen := make([]policy, 0, len(args))
	for _, arg := range args {
		p, err := lookup(table, strings.TrimPrefix(path.Clean(arg), modulePath+"/"))
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

func lookup(table []policy, dir string) (policy, error) {
	known := make([]string, 0, len(table))
	for _, p := range table {
		if p.dir == dir {
			return p, nil
		}
		known = append(known, p.dir)
	}
	return policy{}, fmt.Errorf("check %q: it is not in the policy table (%s): add it to cmd/purecheck/policy.go",
		dir, strings.Join(known, ", "))
}
