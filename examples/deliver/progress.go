package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// progress is the bar of a bulk run on a terminal; nil: none.
type progress struct{ out io.Writer }

// newProgress makes a bar if there is something to show and a terminal to show it on. The trace would
// tear it to pieces.
func newProgress(o *options, stderr io.Writer) *progress {
	f, ok := stderr.(*os.File)
	if !ok || !o.bulk() || o.trace {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return &progress{stderr}
}

// start draws the bar until the function that it returns is called.
func (p *progress) start(r *report) (stop func()) {
	if p == nil {
		return func() {}
	}
	done := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() {
		began := time.Now()
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fmt.Fprint(p.out, "\r"+drawBar(r.progress(), time.Since(began)))
			case <-done:
				fmt.Fprint(p.out, "\r\x1b[K") // the table and the summary take its place
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		drawing.Wait()
	})
}

// progress is how many messages of how many came back.
func (r *report) progress() [2]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return [2]int{r.messages, r.expected}
}

// barWidth is the number of characters in the bar.
const barWidth = 40

// drawBar draws a bar: [####----] 500/1000  1234/s.
func drawBar(messages [2]int, elapsed time.Duration) string {
	done, all := messages[0], max(messages[1], 1)
	full := done * barWidth / all
	return fmt.Sprintf("[%s%s] %d/%d  %.0f/s ", strings.Repeat("#", full), strings.Repeat("-", barWidth-full),
		done, messages[1], float64(done)/max(elapsed.Seconds(), 0.001))
}
