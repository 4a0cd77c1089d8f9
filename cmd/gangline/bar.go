package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"github.com/gangline/gangline/checkpoint"
)

// bar shows how far a long transfer is, on a terminal; elsewhere, and with --json, nothing. Several goroutines may add to it.
type bar struct {
	what  string
	total int64
	done  atomic.Int64
	stop  chan struct{}
	ended chan struct{}
}

// barEvery is how often the bar is drawn: what eyes follow.
const barEvery = 100 * time.Millisecond

// startBar begins a bar for total bytes, 0 if that is not known. End it.
func (a *app) startBar(what string, total int64) *bar {
	b := &bar{what: what, total: total}
	f, ok := a.err.(*os.File)
	if !ok || a.json || !term.IsTerminal(int(f.Fd())) {
		return b
	}
	b.stop, b.ended = make(chan struct{}), make(chan struct{})
	go b.draw(f)
	return b
}

func (b *bar) add(n int64) { b.done.Add(n) }

// end takes the bar off the terminal.
func (b *bar) end() {
	if b.stop != nil {
		close(b.stop)
		<-b.ended
		b.stop = nil
	}
}

func (b *bar) draw(w io.Writer) {
	defer close(b.ended)
	start := time.Now()
	tick := time.NewTicker(barEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintf(w, "\r\x1b[K%s", b.line(time.Since(start)))
		case <-b.stop:
			fmt.Fprint(w, "\r\x1b[K")
			return
		}
	}
}

// barWidth is the bar's own width; with its words it fits 80 columns.
const barWidth = 24

func (b *bar) line(passed time.Duration) string {
	done := b.done.Load()
	rate := int64(float64(done) / max(passed.Seconds(), 1e-9))
	if b.total <= 0 {
		return fmt.Sprintf("%s %s, %s/s", b.what, checkpoint.BytesText(done), checkpoint.BytesText(rate))
	}
	part := min(1, float64(done)/float64(b.total))
	full := int(part * barWidth)
	out := fmt.Sprintf("%s [%s%s] %3.0f%% of %s, %s/s", b.what, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), part*100, checkpoint.BytesText(b.total), checkpoint.BytesText(rate))
	if rate > 0 && done < b.total {
		out += ", " + short(time.Duration(float64(b.total-done)/float64(rate)*float64(time.Second))) + " left"
	}
	return out
}
