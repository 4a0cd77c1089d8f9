package cluster

func (s *JobSpec) code(c *coder) {
	c.str(&s.Name)
	c.str(&s.Queue)
	c.i32(&s.Priority)
	c.i32(&s.GPUs)
	c.i32(&s.GPUsPerNode)
	codeList(c, &s.GPUTypes, codeStr)
	c.i64(&s.CPUPerGPU)
	c.i64(&s.MemPerGPU)
	c.dur(&s.TimeLimit)
	codeUint(c, &s.Launch)
	codeList(c, &s.Command, codeStr)
	codeList(c, &s.Env, func(c *coder, e *EnvVar) { c.str(&e.Name); c.str(&e.Value) })
	codeText(c, &s.Dir)
	c.i32(&s.Retries)
	c.bool(&s.Preemptible)
	c.dur(&s.Warn)
	c.dur(&s.Grace)
	c.i32(&s.KeepCkpts)
	if c.version < 2 {
		return
	}
	c.i32(&s.MinGPUs)
	c.i32(&s.GPUMilli)
	c.str(&s.Topology.Level)
	c.bool(&s.Topology.Required)
	codeList(c, &s.Selector, codeLabel)
	codeList(c, &s.Tolerations, codeStr)
	c.i32(&s.Array.First)
	c.i32(&s.Array.Last)
	c.i32(&s.Array.Step)
	c.i32(&s.Array.Parallel)
	if c.version < 3 {
		return
	}
	codePtr(c, &s.After, func(c *coder, a *Conditions) { codeList(c, &a.All, codeDependency) })
	if c.version >= 5 {
		codePtr(c, &s.Checkpoints, func(c *coder, p *CheckpointPolicy) { p.code(c) })
	}
	if c.version >= 6 {
		codeUint(c, &s.OnFailure)
	}
}

func codeDependency(c *coder, d *Dependency) {
	codeUint(c, &d.Job)
	c.i32(&d.Index)
	codeUint(c, &d.Cond)
	codeUint(c, &d.Scope)
}

func codeLabel(c *coder, l *Label) {
	c.str(&l.Key)
	c.str(&l.Value)
}

func codeSpec(c *coder, s **JobSpec) {
	if c.reading {
		*s = new(JobSpec)
	}
	(*s).code(c)
}

func (w *Worker) code(c *coder) {
	codeInt(c, &w.Rank)
	codeNodeID(c, &w.Node)
	codeList(c, &w.GPUs, codeStr)
	codeUint(c, &w.State)
	codeSmall(c, &w.ExitCode)
	codeSmall(c, &w.Signal)
	c.bool(&w.PeerLost)
	c.bool(&w.Blamed)
	c.str(&w.Message)
	if c.version >= 6 {
		c.bool(&w.Left)
		c.i32(&w.Joined)
	}
	if c.version >= 7 {
		c.i32(&w.Asks)
		c.i32(&w.Names)
	}
}

func (k *Checkpoint) code(c *coder) {
	c.i64(&k.Step)
	codeUint(c, &k.Epoch)
	c.str(&k.Path)
	c.i64(&k.Bytes)
	codeInt(c, &k.RecordedAt)
	if c.version < 5 {
		return
	}
	c.dur(&k.Cost)
	c.dur(&k.Took)
	c.str(&k.Remote)
	c.i64(&k.RemoteStep)
	c.i64(&k.Covers)
}

func (p *Progress) code(c *coder) {
	c.i64(&p.Step)
	c.i64(&p.TotalSteps)
	c.f64(&p.DataEpoch)
	codeList(c, &p.Metrics, func(c *coder, m *Metric) { c.str(&m.Name); c.f64(&m.Value) })
}

func (j *Job) code(c *coder) {
	j.codeVersion2(c)
	if c.version < 3 {
		if c.reading {
			j.ReadyAt = j.SubmittedAt
		}
		return
	}
	codeUint(c, &j.Unmet)
	codeInt(c, &j.ReadyAt)
	if c.version >= 6 {
		c.i32(&j.Reformed)
	}
}

func (j *Job) codeVersion2(c *coder) {
	codeUint(c, &j.ID)
	codeSpec(c, &j.Spec)
	c.str(&j.User)
	c.str(&j.RequestID)
	codeUint(c, &j.State)
	c.str(&j.Reason)
	codeUint(c, &j.Epoch)
	codeList(c, &j.Workers, func(c *coder, w *Worker) { w.code(c) })
	codeList(c, &j.NodeRanks, codeNodeID)
	codeUint(c, &j.Stop)
	c.str(&j.StopReason)
	c.bool(&j.Blamed)
	codePtr(c, &j.Checkpoint, func(c *coder, k *Checkpoint) { k.code(c) })
	codePtr(c, &j.Progress, func(c *coder, p *Progress) { p.code(c) })
	c.i32(&j.Failures)
	c.i32(&j.Requeues)
	codeInt(c, &j.NotBefore)
	codeInt(c, &j.SubmittedAt)
	codeInt(c, &j.PendingAt)
	codeInt(c, &j.StartedAt)
	codeInt(c, &j.RunningAt)
	codeInt(c, &j.FinishedAt)
	c.u64(&j.FinishSeq)
	codeList(c, &j.History, func(c *coder, l *Launch) { l.code(c) })
	if c.version < 2 {
		return
	}
	codeSmall(c, &j.Bin)
	c.i32(&j.Level)
	c.dur(&j.Expected)
	c.i64(&j.Predicted)
	codeUint(c, &j.Array)
	c.i32(&j.ArrayIndex)
	c.i64(&j.Attained)
	c.i64(&j.Rate)
	c.i32(&j.Preemptions)
	codeInt(c, &j.PreemptedAt)
	codeList(c, &j.Avoid, codeNodeID)
	codePtr(c, &j.Kept, func(c *coder, k *Kept) {
		codeList(c, &k.Nodes, codeNodeID)
		codeInt(c, &k.At)
		codeInt(c, &k.Made)
	})
}

func (l *Launch) code(c *coder) {
	codeUint(c, &l.Epoch)
	codeList(c, &l.Nodes, func(c *coder, n *LaunchNode) { codeNodeID(c, &n.Node); c.i32(&n.Workers) })
	codeInt(c, &l.StartedAt)
	codeInt(c, &l.EndedAt)
	c.str(&l.Outcome)
}

func codeNodeID(c *coder, id *NodeID) { c.str((*string)(id)) }

func (g *GPU) code(c *coder) {
	c.str(&g.UUID)
	c.str(&g.Type)
	c.i64(&g.MemBytes)
	c.bool(&g.Healthy)
	c.str(&g.Reason)
	codeUint(c, &g.Job)
	codeUint(c, &g.Epoch)
	if c.version < 2 {
		if c.reading {
			g.NUMA = NUMAUnknown
		}
		return
	}
	codeList(c, &g.Shares, func(c *coder, h *Share) {
		codeUint(c, &h.Job)
		codeUint(c, &h.Epoch)
		c.i32(&h.Milli)
	})
	c.i32(&g.Island)
	if c.version < 3 {
		if c.reading {
			g.NUMA = NUMAUnknown
		}
		return
	}
	c.i32(&g.NUMA)
}

func codeWorkerRef(c *coder, w *WorkerRef) {
	codeUint(c, &w.Job)
	codeUint(c, &w.Epoch)
	codeInt(c, &w.Rank)
	codeList(c, &w.GPUs, codeStr)
}

func (n *Node) code(c *coder) {
	codeNodeID(c, &n.ID)
	c.str(&n.Name)
	codeUint(c, &n.State)
	c.str(&n.Reason)
	c.str(&n.Address)
	c.str(&n.Host)
	c.str(&n.BootID)
	c.u64(&n.Incarnation)
	c.str(&n.Version)
	codeList(c, &n.GPUs, func(c *coder, g *GPU) { g.code(c) })
	c.i64(&n.CPUMilli)
	c.i64(&n.MemBytes)
	c.i64(&n.CPUUsed)
	c.i64(&n.MemUsed)
	codeList(c, &n.Labels, codeLabel)
	codeList(c, &n.Stale, codeWorkerRef)
	codeInt(c, &n.RegisteredAt)
	codeInt(c, &n.ChangedAt)
	if c.version < 2 {
		return
	}
	codeList(c, &n.Taints, func(c *coder, t *Taint) { c.str(&t.Key); c.str(&t.Value) })
	codePtr(c, &n.Drain, func(c *coder, d *Drain) {
		c.str(&d.Reason)
		c.str(&d.By)
		codeInt(c, &d.Since)
		codeInt(c, &d.Deadline)
	})
	if c.version >= 5 {
		n.Experience.code(c)
	}
}

func (r *Request) code(c *coder) {
	c.str(&r.ID)
	codeUint(c, &r.Job)
	codeInt(c, &r.At)
	c.u64(&r.Seq)
}

func (m *Init) code(c *coder) {
	c.str(&m.ClusterID)
	codeUint(c, &m.Version)
}

func (m *SubmitJob) code(c *coder) {
	c.str(&m.RequestID)
	c.str(&m.User)
	codeSpec(c, &m.Spec)
}

func (m *CancelJob) code(c *coder) {
	codeUint(c, &m.Job)
	c.str(&m.By)
	c.str(&m.Reason)
}

func (m *StartJob) code(c *coder) {
	codeUint(c, &m.Job)
	codeUint(c, &m.Epoch)
	last := NodeID("") // a node is named once for a run of workers: a large gang must fit into one entry
	codeList(c, &m.Workers, func(c *coder, p *Placement) {
		codeInt(c, &p.Rank)
		node := p.Node
		if !c.reading && node == last {
			node = ""
		}
		codeNodeID(c, &node)
		if node != "" {
			last = node
		}
		if c.reading {
			p.Node = last
		}
		codeList(c, &p.GPUs, codeStr)
	})
}

func (m *ExplainJob) code(c *coder) {
	codeUint(c, &m.Job)
	c.str(&m.Reason)
}

func (m *RegisterNode) code(c *coder) {
	m.Node.code(c)
	codeList(c, &m.Running, codeWorkerRef)
}

func (m *LoseNode) code(c *coder) {
	codeNodeID(c, &m.Node)
	c.u64(&m.Incarnation)
	c.str(&m.Reason)
}

func (m *ReportWorkers) code(c *coder) {
	codeNodeID(c, &m.Node)
	codeList(c, &m.Workers, func(c *coder, r *WorkerReport) {
		codeUint(c, &r.Job)
		codeUint(c, &r.Epoch)
		codeInt(c, &r.Rank)
		codeUint(c, &r.State)
		c.i32(&r.ExitCode)
		c.i32(&r.Signal)
		c.bool(&r.PeerLost)
		c.bool(&r.Stopped)
		c.str(&r.Message)
		codePtr(c, &r.Progress, func(c *coder, p *Progress) { p.code(c) })
		if c.version >= 6 {
			c.bool(&r.Arrived)
		}
		if c.version >= 7 {
			c.i32(&r.Asks)
			c.i32(&r.Names)
		}
		if c.version >= 8 {
			codeUint(c, &r.Silence)
		}
	})
}

func (m *EvictJob) code(c *coder) {
	codeUint(c, &m.Job)
	codeUint(c, &m.Epoch)
	codeUint(c, &m.Cause)
	c.str(&m.Reason)
}

func (m *RecordCheckpoint) code(c *coder) {
	codeUint(c, &m.Job)
	codeUint(c, &m.Epoch)
	c.i64(&m.Step)
	c.str(&m.Path)
	c.i64(&m.Bytes)
	if c.version < 5 {
		return
	}
	c.dur(&m.Cost)
	c.dur(&m.Took)
	c.str(&m.Remote)
	c.i64(&m.RemoteStep)
	if c.version >= 9 {
		c.dur(&m.Age)
	}
}

func (m *ForgetJobs) code(c *coder) {
	codeList(c, &m.Jobs, func(c *coder, id *JobID) { codeUint(c, id) })
}

func (m *ForgetNode) code(c *coder) { codeNodeID(c, &m.Node) }
