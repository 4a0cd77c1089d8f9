package main

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// simProgress shows how far a replay is, on a terminal.
type simProgress struct {
	out  *mpb.Progress
	bar  *mpb.Bar
	skip int // moments until the next look at the clock
	next time.Time

	virtual, jobs atomic.Int64 // read by the bar's own goroutine

	read, size int64 // bytes of the workload's file: read so far, and all; 0: not known
}

// Looks at the clock cost; a person sees no more than ten pictures a second.
const (
	momentsBetweenLooks = 64
	timeBetweenPictures = 100 * time.Millisecond
)

// progress shows a bar for a replay on standard error, if that is a terminal. It returns what the replay must tell, or
// nil, and how to end the bar. The replay is to read its jobs with the options, which it lets count.
func (a *app) progress(name, file string, opt *trace.Options) (*replay.Watch, func()) {
	p := a.terminalBar(name)
	if p == nil {
		return nil, func() {}
	}
	if st, err := os.Stat(file); err == nil {
		p.size, opt.Read = st.Size(), &p.read
	}
	return &replay.Watch{Progress: p.moment}, p.end
}

// terminalBar begins a bar on standard error, or returns nil if that is no terminal.
func (a *app) terminalBar(name string) *simProgress {
	f, ok := a.err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return newSimProgress(f, name)
}

func newSimProgress(w io.Writer, name string) *simProgress {
	p := &simProgress{out: mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithWidth(28))}
	p.bar = p.out.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(name+" ")),
		mpb.AppendDecorators(
			decor.Percentage(decor.WC{W: 5}),
			decor.Any(func(decor.Statistics) string { return p.words() }, decor.WC{W: 1}),
			decor.Name("  ETA "), decor.AverageETA(decor.ET_STYLE_GO),
		))
	return p
}

// end takes the bar away.
func (p *simProgress) end() {
	p.bar.Abort(true)
	p.out.Wait()
}

// words are what stands behind the bar.
func (p *simProgress) words() string {
	if p.jobs.Load() == 0 {
		return ""
	}
	return fmt.Sprintf("  %d jobs ended, day %.1f", p.jobs.Load(), time.Duration(p.virtual.Load()).Hours()/24)
}

// due reports whether it is time for another picture.
func (p *simProgress) due() bool {
	if p.skip--; p.skip > 0 {
		return false
	}
	p.skip = momentsBetweenLooks
	now := time.Now()
	if now.Before(p.next) {
		return false
	}
	p.next = now.Add(timeBetweenPictures)
	return true
}

// total is how many jobs there are, or will be if the rest of the file is like what was read of it.
func (p *simProgress) total(x *replay.Progress) int {
	if x.Total > 0 || p.read == 0 {
		return x.Total
	}
	return int(float64(x.Submitted+trace.Window) * float64(p.size) / float64(p.read)) // a window of jobs was read ahead
}

// part shows how much is done, 0..1.
func (p *simProgress) part(done float64) {
	if p.due() {
		p.bar.SetTotal(1000, false)
		p.bar.SetCurrent(int64(1000 * done))
	}
}

// moment is called after each moment of the replay.
func (p *simProgress) moment(x *replay.Progress) bool {
	if !p.due() {
		return true
	}
	p.virtual.Store(int64(x.Now))
	p.jobs.Store(int64(x.Ended))
	p.bar.SetTotal(int64(max(p.total(x), x.Submitted)), false)
	p.bar.SetCurrent(int64(x.Ended))
	return true
}
