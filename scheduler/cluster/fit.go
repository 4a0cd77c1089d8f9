package cluster

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// checkPlacement re-checks a plan for one job against the state as it is now.
// It returns the gang's nodes in order of first appearance by rank.
func (s *State) checkPlacement(spec *JobSpec, workers []Placement) ([]NodeID, error) {
	var few [16]int32 // no allocation for most gangs
	var nodes []NodeID
	gpus := few[:0]            // on each of them
	taken := gpuSet{}          // of the last of them
	known := map[NodeID]bool{} // of many of them
	gpuType := ""
	total, share := int32(0), spec.Share()
	for i, p := range workers {
		n := s.Node(p.Node)
		switch {
		case p.Rank != Rank(i):
			return nil, fmt.Errorf("worker %d of the plan has rank %d", i, p.Rank)
		case n == nil || n.State != NodeReady:
			return nil, fmt.Errorf("node %s is not ready", p.Node)
		case spec.Launch == LaunchPerGPU && len(p.GPUs) != 1:
			return nil, fmt.Errorf("rank %d has %d GPUs: per-gpu workers have one", i, len(p.GPUs))
		}
		last := len(nodes) - 1
		switch again := last >= 0 && nodes[last] == p.Node; {
		case again && spec.Launch == LaunchPerNode:
			return nil, fmt.Errorf("node %s has two launchers of the job", n.Name)
		case again:
		case known[p.Node] || (len(known) == 0 && slices.Contains(nodes, p.Node)):
			return nil, fmt.Errorf("ranks on node %s are not consecutive", n.Name)
		default:
			nodes, gpus, taken = append(nodes, p.Node), append(gpus, 0), gpuSet{}
			if last++; len(nodes) > len(few) {
				for _, id := range nodes[len(known):] {
					known[id] = true
				}
			}
		}
		for _, uuid := range p.GPUs {
			g := n.FindGPU(uuid)
			if g < 0 || n.UsableMilli(g) < share || !taken.add(g) {
				return nil, fmt.Errorf("GPU %s on node %s is not free", uuid, n.Name)
			}
			if gpuType == "" {
				gpuType = n.GPUs[g].Type
			}
			if n.GPUs[g].Type != gpuType || !AllowsType(spec, gpuType) {
				return nil, fmt.Errorf("GPU %s on node %s is of type %s", uuid, n.Name, n.GPUs[g].Type)
			}
			gpus[last]++
			total++
		}
	}
	if total < spec.Least() || total > spec.GPUs {
		return nil, fmt.Errorf("the plan has %d of %d GPUs", total, spec.GPUs)
	}
	if t := &spec.Topology; t.Required {
		if err := s.checkDomain(t.Level, nodes, workers); err != nil {
			return nil, err
		}
	}
	for i, id := range nodes {
		n, k := s.Node(id), gpus[i]
		if lacks := n.Admits(spec); lacks != "" {
			return nil, fmt.Errorf("node %s is not for the job, which needs %s", n.Name, lacks)
		}
		if spec.GPUsPerNode > 0 && k != spec.GPUsPerNode {
			return nil, fmt.Errorf("node %s gets %d GPUs, not gpus_per_node %d", n.Name, k, spec.GPUsPerNode)
		}
		if FitByResources(n, spec) < k {
			return nil, fmt.Errorf("node %s lacks CPUs or memory for %d GPUs", n.Name, k)
		}
	}
	return nodes, nil
}

// gpuSet is a set of GPUs of one node, by index.
type gpuSet [MaxNodeGPUs / 64]uint64

// add reports whether the GPU was not in the set.
func (s *gpuSet) add(i int) bool {
	was := s[i>>6]
	s[i>>6] |= 1 << (i & 63)
	return s[i>>6] != was
}

// checkDomain returns an error if a gang is not within one domain of a level.
func (s *State) checkDomain(level string, nodes []NodeID, workers []Placement) error {
	p := s.Policy()
	first := p.Domain(s.Node(nodes[0]), level)
	for _, id := range nodes {
		if d := p.Domain(s.Node(id), level); d == "" || d != first {
			return fmt.Errorf("nodes %s and %s are not in one %s", s.Node(nodes[0]).Name, s.Node(id).Name, level)
		}
	}
	if level == LevelNode || !WithinNode(level) {
		return nil
	}
	n, parts := s.Node(nodes[0]), []int32(nil)
	for _, p := range workers {
		for _, uuid := range p.GPUs {
			part, known := n.GPUs[n.FindGPU(uuid)].Part(level)
			parts = append(parts, part)
			if len(parts) > 1 && (!known || part != parts[0]) { // one GPU is always in one
				return fmt.Errorf("GPUs of node %s are not in one %s", n.Name, LevelText(level))
			}
		}
	}
	return nil
}

// Domain is the name of the domain of a level that a node is in: the values of
// the level's label and of those above it, joined by slashes. It is empty if
// the policy has no such level, or the node lacks the level's own label. At
// level "node" each node is a domain of its own, and so it is at the levels
// within a node.
func (p *Policy) Domain(n *Node, level string) string {
	if WithinNode(level) {
		return string(n.ID)
	}
	path := ""
	for _, l := range p.Levels {
		v := n.Label(l.Label)
		path += v
		if l.Name == level {
			if v == "" {
				return ""
			}
			return path
		}
		path += "/"
	}
	return ""
}

// AllowsType reports whether a job may run on GPUs of this type: on one that it
// names, or if it names none on any but MIG instances.
func AllowsType(spec *JobSpec, gpuType string) bool {
	if len(spec.GPUTypes) > 0 {
		return slices.Contains(spec.GPUTypes, gpuType)
	}
	_, _, instance := InstanceOf(gpuType)
	return !instance
}

// FitByResources returns for how many of the job's GPUs the node has CPUs and
// memory left, at most the node's number of GPUs.
func FitByResources(n *Node, spec *JobSpec) int32 {
	return spec.fitIn(n.CPUMilli-n.CPUUsed, n.MemBytes-n.MemUsed, len(n.GPUs))
}

// fitIn is for how many of so many GPUs the CPUs and memory suffice.
func (s *JobSpec) fitIn(cpu, mem int64, gpus int) int32 {
	fit := int64(gpus)
	if s.CPUPerGPU > 0 {
		fit = min(fit, cpu/s.CPUPerGPU)
	}
	if s.MemPerGPU > 0 {
		fit = min(fit, mem/s.MemPerGPU)
	}
	return int32(max(fit, 0))
}

// Room returns how many of a node's given GPUs the job could have there if the
// node were empty: by CPUs, memory and the job's shape.
func Room(n *Node, spec *JobSpec, gpus int32) int32 {
	k := min(gpus, spec.fitIn(n.CPUMilli, n.MemBytes, len(n.GPUs)))
	switch {
	case spec.GPUsPerNode == 0:
		return k
	case k < spec.GPUsPerNode:
		return 0
	default:
		return spec.GPUsPerNode
	}
}

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

// Wants says in words which GPUs the job asks for, such as
// "8 GPUs of type h100 or a100, 4 on each node".
func (s *JobSpec) Wants() string {
	out := plural(int(s.GPUs), "GPU")
	switch {
	case s.Shared():
		out = fmt.Sprintf("%g of a GPU", float64(s.GPUMilli)/WholeGPU)
	case s.Elastic():
		out = fmt.Sprintf("%d to %d GPUs", s.MinGPUs, s.GPUs)
	}
	switch {
	case len(s.GPUTypes) > 0:
		out += " of type " + strings.Join(s.GPUTypes, " or ")
	case s.GPUs > 1:
		out += " of one type"
	}
	if s.GPUsPerNode > 0 && s.GPUs > 1 {
		out += fmt.Sprintf(", %d on each node", s.GPUsPerNode)
	}
	if s.Topology.Required {
		out += ", within one " + LevelText(s.Topology.Level)
	}
	return out
}
