package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// LevelDomain is one domain of a level as the policy names it: the nodes that
// are in it, whatever labels their agents give them.
type LevelDomain struct {
	Name  string   // such as "r7"
	Nodes []string // names, or patterns as Hosts reads them
}

// Bounds of a topology that the policy names.
const (
	maxDomains  = 8192
	maxPatterns = 65_536
)

// validateDomains checks the domains of a level. What is wrong with one of them
// begins with its name.
func (l *Level) validateDomains() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("topology: level %s: %s", l.Name, fmt.Sprintf(format, args...)))
	}
	if len(l.Domains) > maxDomains {
		bad("%d domains, at most %d", len(l.Domains), maxDomains)
		return errors.Join(errs...)
	}
	in := map[string]string{} // by node: its domain
	patterns := 0
	for i := range l.Domains {
		d := &l.Domains[i]
		if err := validateLabel(l.Label, d.Name); err != nil || d.Name == "" || strings.Contains(d.Name, "/") {
			bad("domain %.*q is not a name such as r7 (without slashes)", MaxNameLen, d.Name)
		}
		if i > 0 && l.Domains[i-1].Name >= d.Name {
			bad("domain %s is named twice", d.Name)
		}
		if len(d.Nodes) == 0 {
			bad("domain %s has no nodes: name some, or leave it out", d.Name)
		}
		if patterns += len(d.Nodes); patterns > maxPatterns {
			bad("more than %d names of nodes: write runs of them as n[001-128]", maxPatterns)
			return errors.Join(errs...)
		}
		for _, pattern := range d.Nodes {
			hosts, err := Hosts(pattern)
			if err != nil {
				bad("domain %s: %s", d.Name, err)
			}
			for _, host := range hosts {
				if was, twice := in[host]; twice {
					bad("domain %s: node %s is in domain %s already", d.Name, host, was)
					break // the rest of the pattern most likely too
				}
				in[host] = d.Name
			}
			if len(in) > MaxNodes {
				bad("it names more than %d nodes", MaxNodes)
				return errors.Join(errs...)
			}
		}
	}
	return errors.Join(errs...)
}

// placed lists by node which labels a policy gives it, each list sorted by key;
// nil if it gives none.
func (p *Policy) placed() map[string][]Label {
	var out map[string][]Label
	for i := range p.Levels {
		l := &p.Levels[i]
		for k := range l.Domains {
			for _, pattern := range l.Domains[k].Nodes {
				hosts, _ := Hosts(pattern) // Validate has seen it
				for _, host := range hosts {
					if out == nil {
						out = map[string][]Label{}
					}
					out[host] = append(out[host], Label{Key: l.Label, Value: l.Domains[k].Name})
				}
			}
		}
	}
	for _, labels := range out { // any order: each is sorted for itself
		slices.SortFunc(labels, func(a, b Label) int { return strings.Compare(a.Key, b.Key) })
	}
	return out
}

// place gives a node the labels that the policy has for it.
func (s *State) place(n *Node) { n.Placed = s.places[n.Name] }

// placeAll gives all nodes the labels of a new policy, and returns those that
// have changed.
func (s *State) placeAll() (changes []Change) {
	was := s.places
	s.places = s.Policy().placed()
	if was == nil && s.places == nil {
		return nil
	}
	var moved []*Node
	s.EachNode(func(n *Node) bool {
		if !slices.Equal(n.Placed, s.places[n.Name]) {
			moved = append(moved, n)
		}
		return true
	})
	for _, old := range moved {
		n := *old
		s.place(&n)
		s.putNode(&n)
		changes = append(changes, Change{Node: n.ID})
	}
	return changes
}
