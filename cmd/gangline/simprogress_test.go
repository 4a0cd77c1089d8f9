package main

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// terminal makes a terminal: what is written to the one end can be read at the other.
func terminal(t *testing.T) (screen, end *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() }) // perhaps closed already
	fd := int(screen.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100})
	}
	if err == nil {
		end, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR, 0)
	}
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	return screen, end
}

// TestProgressBar: on a terminal a bar shows how far a replay is; where there is none there is no bar.
func TestProgressBar(t *testing.T) {
	t.Parallel()
	var nowhere bytes.Buffer
	if w, end := (&app{err: &nowhere}).progress("replaying", "no such file", &trace.Options{}); w != nil {
		t.Error("a bar for what is no terminal")
	} else {
		end()
	}
	screen, end := terminal(t)
	a := &app{err: end}
	w, done := a.progress("replaying", "no such file", &trace.Options{})
	if w == nil {
		t.Fatal("no bar on a terminal")
	}
	p := &simProgress{size: 1000, read: 100}
	if got := p.total(&replay.Progress{Submitted: 1000}); got != 10*(1000+trace.Window) {
		t.Errorf("%d jobs are expected in all", got)
	}
	for range 2 * momentsBetweenLooks {
		w.Progress(&replay.Progress{Submitted: 50, Ended: 40, Total: 80, Now: 36e12})
	}
	seen := make(chan []byte)
	go func() {
		var all []byte
		buf := make([]byte, 4096)
		for !bytes.Contains(all, []byte("40 jobs ended")) {
			n, err := screen.Read(buf)
			if err != nil {
				break
			}
			all = append(all, buf[:n]...)
		}
		seen <- all
	}()
	text := <-seen
	done()
	_ = end.Close() // of a terminal that nobody looks at any longer
	for _, want := range []string{"replaying", "50 %", "40 jobs ended, day 0.4", "ETA"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the bar lacks %q: %q", want, text)
		}
	}
}
