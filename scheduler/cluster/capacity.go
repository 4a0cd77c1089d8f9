package cluster

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// kind is what decides what a node could hold if it were empty. Few kinds
// stand for many nodes.
type kind struct {
	node  *Node // one of them
	key   string
	count int32
	plain bool // it has GPUs, all of one type
}

// kindKey is the key of a node's kind: GPUs by type in their order, CPUs,
// memory and taints. Labels are left out: most nodes differ in one.
func kindKey(n *Node) string {
	b := binary.AppendVarint(nil, n.CPUMilli)
	b = binary.AppendVarint(b, n.MemBytes)
	for i := 0; i < len(n.GPUs); {
		k := i
		for k < len(n.GPUs) && n.GPUs[k].Type == n.GPUs[i].Type {
			k++
		}
		b = binary.AppendUvarint(append(append(b, n.GPUs[i].Type...), 0), uint64(k-i))
		i = k
	}
	for _, t := range n.Taints {
		b = append(append(append(append(b, 1), t.Key...), 2), t.Value...)
	}
	return string(b)
}

// sameKind reports whether two versions of a node are of one kind, and have the
// same GPUs.
func sameKind(a, b *Node) bool {
	return a.CPUMilli == b.CPUMilli && a.MemBytes == b.MemBytes && slices.Equal(a.Taints, b.Taints) &&
		slices.EqualFunc(a.GPUs, b.GPUs, func(a, b GPU) bool { return a.UUID == b.UUID && a.Type == b.Type })
}

func (s *State) countKind(n *Node, by int32) {
	key := kindKey(n)
	next := kind{node: n, key: key}
	next.plain = len(n.GPUs) > 0 && !slices.ContainsFunc(n.GPUs, func(g GPU) bool { return g.Type != n.GPUs[0].Type })
	if old, ok := s.kinds.Get(key); ok {
		next.count = old.count
	}
	if next.count += by; next.count == 0 {
		s.kinds.Delete(key)
		return
	}
	s.kinds.Set(key, &next)
}

// capacity is what jobs of one spec could have of the cluster if it were empty.
type capacity struct {
	types []string
	room  map[string]int64 // GPUs that the job could have, by type
	total map[string]int64 // GPUs, by type
}

func (c *capacity) add(n *Node, spec *JobSpec, count int64) {
	admits := n.Admits(spec) == ""
	for i := range n.GPUs {
		t, here := n.GPUs[i].Type, int32(0)
		if slices.ContainsFunc(n.GPUs[:i], func(g GPU) bool { return g.Type == t }) {
			continue // counted with the first of its type
		}
		for k := i; k < len(n.GPUs); k++ {
			if n.GPUs[k].Type == t {
				here++
			}
		}
		if _, known := c.total[t]; !known {
			c.types = append(c.types, t)
		}
		c.total[t] += int64(here) * count
		if admits {
			c.room[t] += int64(Room(n, spec, here)) * count
		}
	}
}

// addPart adds the largest part of a node by a level within it, for each type.
func (c *capacity) addPart(n *Node, spec *JobSpec) {
	if n.Admits(spec) != "" {
		return
	}
	for i := range n.GPUs {
		t, here := n.GPUs[i].Type, int32(0)
		part, known := n.GPUs[i].Part(spec.Topology.Level)
		for k := range n.GPUs {
			if other, ok := n.GPUs[k].Part(spec.Topology.Level); n.GPUs[k].Type == t && (k == i || known && ok && other == part) {
				here++
			}
		}
		if room, known := c.room[t]; !known || room < int64(Room(n, spec, here)) {
			if !known {
				c.types = append(c.types, t)
			}
			c.room[t] = int64(Room(n, spec, here))
		}
	}
}

func newCapacity() *capacity {
	return &capacity{room: map[string]int64{}, total: map[string]int64{}}
}

// typesFor lists the GPU types of the nodes that a job may have.
func (s *State) typesFor(spec *JobSpec) []string {
	var types []string
	s.kinds.Scan(func(_ string, k *kind) bool {
		for i := range k.node.GPUs {
			if t := k.node.GPUs[i].Type; AllowsType(spec, t) && !slices.Contains(types, t) {
				types = append(types, t)
			}
		}
		return true
	})
	return types
}

// fits reports whether one type has room for the smallest gang of the spec.
func (c *capacity) fits(spec *JobSpec) bool {
	return slices.ContainsFunc(c.types, func(t string) bool { return AllowsType(spec, t) && c.room[t] >= int64(spec.Least()) })
}

// CanEverFit returns an error for people if the gang is larger than what the
// cluster would have with every job gone. Lost nodes count: they may come
// back. A cluster that has no node yet refuses nothing. Its cost is that of the
// kinds of nodes, but for jobs that ask for labels or must stay in one domain:
// then it is that of the nodes.
func (s *State) CanEverFit(spec *JobSpec) error {
	if s.nodes.Len() == 0 || s.fitsOneKind(spec) {
		return nil
	}
	all := newCapacity()
	if len(spec.Selector) == 0 {
		s.kinds.Scan(func(_ string, k *kind) bool {
			all.add(k.node, spec, int64(k.count))
			return true
		})
	} else {
		s.EachNode(func(n *Node) bool {
			all.add(n, spec, 1)
			return true
		})
	}
	if all.fits(spec) {
		return s.fitsDomain(spec)
	}
	slices.Sort(all.types)
	var have []string
	for _, t := range all.types {
		has := fmt.Sprintf("%d of type %s", all.total[t], t)
		if AllowsType(spec, t) && all.room[t] < all.total[t] {
			has += fmt.Sprintf(" (%d with the CPUs, memory, shape and labels asked for)", all.room[t])
		}
		have = append(have, has)
	}
	if len(have) == 0 {
		have = []string{"no GPU"}
	}
	if i := slices.IndexFunc(all.types, func(t string) bool { _, _, ok := InstanceOf(t); return ok }); i >= 0 && len(spec.GPUTypes) == 0 {
		have = append(have, fmt.Sprintf("and MIG instances go to jobs that name their type only (gpu_type: %s)", all.types[i]))
	}
	return fmt.Errorf("a gang of %s can never start here: the cluster has at most %s: ask for fewer GPUs, another type, or less on each node",
		spec.Wants(), strings.Join(have, ", "))
}

// fitsOneKind reports whether the nodes of one kind with one type of GPU would
// do, which is soon found out and nearly always so.
func (s *State) fitsOneKind(spec *JobSpec) (fits bool) {
	if len(spec.Selector) > 0 || spec.Topology.Required {
		return false
	}
	s.kinds.Scan(func(_ string, k *kind) bool {
		n := k.node
		fits = k.plain && AllowsType(spec, n.GPUs[0].Type) && n.Admits(spec) == "" &&
			int64(Room(n, spec, int32(len(n.GPUs))))*int64(k.count) >= int64(spec.Least())
		return !fits
	})
	return fits
}

// fitsDomain returns an error for people if the gang must stay within one
// domain and no domain is large enough.
func (s *State) fitsDomain(spec *JobSpec) error {
	if !spec.Topology.Required {
		return nil
	}
	p, level := s.Policy(), spec.Topology.Level
	whole := level == LevelNode || !WithinNode(level)
	domains := map[string]*capacity{}
	fits, most, where := false, int64(0), ""
	s.EachNode(func(n *Node) bool {
		d := p.Domain(n, level)
		if d == "" {
			return true
		}
		c := domains[d]
		if c == nil {
			c = newCapacity()
			domains[d] = c
		}
		if whole {
			c.add(n, spec, 1)
		} else {
			c.addPart(n, spec)
		}
		for _, t := range c.types {
			if AllowsType(spec, t) && c.room[t] > most {
				most, where = c.room[t], d
			}
		}
		fits = c.fits(spec)
		return !fits
	})
	switch {
	case fits:
		return nil
	case where == "":
		return fmt.Errorf("a gang of %s can never start here: no node with such GPUs says which %s it is in: label the nodes, or prefer the %s instead of requiring it",
			spec.Wants(), LevelText(level), LevelText(level))
	default:
		return fmt.Errorf("a gang of %s can never start here: the largest %s (%s) has room for %d: ask for fewer GPUs, or prefer the %s instead of requiring it",
			spec.Wants(), LevelText(level), s.domainText(level, where), most, LevelText(level))
	}
}

// domainText names a domain for people.
func (s *State) domainText(level, domain string) string {
	if n := s.Node(NodeID(domain)); WithinNode(level) && n != nil {
		return "on node " + n.Name
	}
	return strings.Trim(domain, "/")
}
