package cluster

func (p *Policy) code(c *coder) {
	c.str((*string)(&p.Order))
	c.str((*string)(&p.Score))
	c.dur(&p.HalfLife)
	codeList(c, &p.Weights, func(c *coder, w *TypeWeight) { c.str(&w.Type); c.i64(&w.Milli) })
	codeList(c, &p.Queues, codeQueue)
	codeList(c, &p.Levels, func(c *coder, l *Level) { c.str(&l.Name); c.str(&l.Label) })
	c.bool(&p.Preemption.Off)
	c.dur(&p.Preemption.MinRuntime)
	c.dur(&p.Preemption.RestartCost)
	c.i32(&p.Preemption.MaxPerJob)
	c.i64(&p.Preemption.MinGain)
	c.bool(&p.Backfill.Off)
	c.i32(&p.Backfill.Reserve)
	c.dur(&p.Backfill.HoldAfter)
	c.bool(&p.Defrag.On)
	c.i32(&p.Defrag.MaxPerHour)
	c.dur(&p.Defrag.MaxCost)
	codeList(c, &p.Windows, codeWindow)
	if c.version >= 3 {
		for i := range p.Levels {
			codeList(c, &p.Levels[i].Domains, func(c *coder, d *LevelDomain) { c.str(&d.Name); codeList(c, &d.Nodes, codeStr) })
		}
	}
	if c.version >= 4 {
		c.dur(&p.Setback)
	} else if c.reading {
		p.Setback = defaultSetback
	}
	if c.version >= 5 {
		c.i64(&p.Checkpoints.UserBytes)
		codeList(c, &p.Checkpoints.Users, func(c *coder, u *UserBytes) { c.str(&u.User); c.i64(&u.Bytes) })
	}
}

func codeQueue(c *coder, q *QueuePolicy) {
	c.str(&q.Path)
	codeList(c, &q.Quota, codeTypeCount)
	codeList(c, &q.Limit, codeTypeCount)
	c.i64(&q.Weight)
	c.i64(&q.UserLimit)
	c.bool(&q.Closed)
}

func codeTypeCount(c *coder, t *TypeCount) {
	c.str(&t.Type)
	c.i64(&t.GPUs)
}

func codeWindow(c *coder, w *Window) {
	c.str(&w.Name)
	codeInt(c, &w.Start)
	codeInt(c, &w.End)
	codeList(c, &w.Nodes, codeStr)
	codeList(c, &w.Selector, codeLabel)
	c.str(&w.Queue)
	c.bool(&w.Maintenance)
}

func (a *Account) code(c *coder) {
	c.str(&a.Queue)
	c.str(&a.User)
	c.i64(&a.Used)
	c.i64(&a.Rate)
	codeInt(c, &a.Since)
	c.i64(&a.Period)
}

func (h *History) code(c *coder) {
	for i := range historyBins {
		codeUint(c, &h.Ended[i])
		codeUint(c, &h.Reached[i])
		codeUint(c, &h.Alive[i])
	}
	c.u64(&h.Jobs)
	c.i64(&h.Error)
}

func codePolicyPtr(c *coder, p **Policy) {
	codePtr(c, p, func(c *coder, p *Policy) { p.code(c) })
}

func (m *SetPolicy) code(c *coder) {
	codePolicyPtr(c, &m.Policy)
	c.str(&m.By)
	c.u64(&m.Was)
	c.bool(&m.Any)
}

func (m *DrainNode) code(c *coder) {
	codeNodeID(c, &m.Node)
	c.str(&m.Reason)
	c.str(&m.By)
	codeInt(c, &m.Deadline)
	c.bool(&m.Off)
}

func (m *KeepNodes) code(c *coder) {
	codeUint(c, &m.Job)
	codeList(c, &m.Nodes, codeNodeID)
	codeInt(c, &m.At)
}

func (m *ExplainJobs) code(c *coder) {
	codeList(c, &m.Jobs, func(c *coder, id *JobID) { codeUint(c, id) })
	c.str(&m.Reason)
}
