package maildrop

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-maildir"
)

// BenchmarkDelivery puts a message of 4 KiB into Maildirs in every way that there is to compare with,
// one after another in one run. All but what says otherwise are durable. Nothing is removed before the
// end, because file systems pay for that later.
//
//   - bare: write, fsync, rename, fsync of the directory, in a loop.
//   - bare threads: the same by many at a time.
//   - go-maildir, not durable: what its writer does, which syncs nothing.
//   - Store: this package, by as many callers, into one Maildir or into one each.
func BenchmarkDelivery(b *testing.B) {
	top := b.TempDir()
	fresh := func(b *testing.B, n int) []string {
		dir, err := os.MkdirTemp(top, "")
		if err != nil {
			b.Fatal(err)
		}
		dirs := make([]string, n)
		for i := range dirs {
			dirs[i] = makeMaildir(b, filepath.Join(dir, strconv.Itoa(i)))
		}
		return dirs
	}
	message := strings.Repeat("0123456789abcde\n", 256)
	bare := func(dir string, id int) error { return bareDelivery(dir, id, message) }
	b.Run("bare", func(b *testing.B) { simultaneous(b, 1, fresh(b, 1), bare) })
	for _, n := range []int{16, 256} {
		b.Run(fmt.Sprint("bare threads/", n), func(b *testing.B) { simultaneous(b, n, fresh(b, 1), bare) })
	}
	b.Run("go-maildir, not durable", func(b *testing.B) {
		simultaneous(b, 1, fresh(b, 1), func(dir string, _ int) error { return otherDelivery(dir, message) })
	})
	for _, n := range []int{1, 2, 4, 16, 256} {
		for _, boxes := range slices.Compact([]int{1, n}) {
			b.Run(fmt.Sprintf("Store/%d into %d", n, boxes), func(b *testing.B) {
				var d Drop
				b.ReportAllocs()
				simultaneous(b, n, fresh(b, boxes), func(dir string, _ int) error {
					_, err := d.Store(b.Context(), Maildir{Root: filepath.Dir(dir), Rel: filepath.Base(dir)}, text(message))
					return err
				})
			})
		}
	}
	b.Run("Store/new maildirs", func(b *testing.B) {
		var d Drop
		root := fresh(b, 1)[0]
		simultaneous(b, 1, []string{root}, func(_ string, id int) error {
			_, err := d.Store(b.Context(), Maildir{Root: root, Rel: strconv.Itoa(id)}, text(message))
			return err
		})
	})
	b.Run("Store/NoSync", func(b *testing.B) {
		var d Drop
		simultaneous(b, 1, fresh(b, 1), func(dir string, _ int) error {
			_, err := d.Store(b.Context(), Maildir{Root: filepath.Dir(dir), Rel: filepath.Base(dir), NoSync: true}, text(message))
			return err
		})
	})
}

// BenchmarkTimesBare measures in pairs, for machines that others use too: a round is the bare loop, and
// right after it this package with as many callers, into one Maildir or one each. What it reports is
// how many times as fast as the loop the callers were, in the middle one of the rounds.
func BenchmarkTimesBare(b *testing.B) {
	top := b.TempDir()
	message := strings.Repeat("0123456789abcde\n", 256)
	for _, n := range []int{1, 16, 256} {
		for _, boxes := range slices.Compact([]int{1, n}) {
			b.Run(fmt.Sprintf("%d into %d", n, boxes), func(b *testing.B) {
				var d Drop
				var times []float64
				for b.Loop() {
					root, err := os.MkdirTemp(top, "")
					if err != nil {
						b.Fatal(err)
					}
					beside := makeMaildir(b, filepath.Join(root, "bare"))
					rels := make([]string, boxes)
					for i := range rels {
						rels[i] = strconv.Itoa(i)
						makeMaildir(b, filepath.Join(root, rels[i]))
					}
					loop := together(b, 1, 100, []string{beside}, func(dir string, id int) error { return bareDelivery(dir, id, message) })
					store := together(b, n, 100+10*n, rels, func(rel string, _ int) error {
						_, err := d.Store(b.Context(), Maildir{Root: root, Rel: rel}, text(message))
						return err
					})
					times = append(times, store/loop)
				}
				slices.Sort(times)
				b.ReportMetric(times[len(times)/2], "times-bare")
			})
		}
	}
}

// simultaneous has n callers deliver b.N messages, by turns into dirs.
func simultaneous(b *testing.B, n int, dirs []string, deliver func(dir string, id int) error) {
	b.ResetTimer()
	rate := together(b, n, b.N, dirs, deliver)
	b.StopTimer()
	b.ReportMetric(rate, "messages/s")
}

// together has n callers deliver messages, by turns into dirs, and returns how many in a second.
func together(b *testing.B, n, messages int, dirs []string, deliver func(dir string, id int) error) (rate float64) {
	var next atomic.Int64
	var wait sync.WaitGroup
	began := time.Now()
	for caller := range n {
		wait.Go(func() {
			for {
				id := int(next.Add(1))
				if id > messages {
					return
				}
				if err := deliver(dirs[caller%len(dirs)], id); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	return float64(messages) / time.Since(began).Seconds()
}

func bareDelivery(dir string, id int, message string) error {
	name := strconv.Itoa(id)
	tmp := filepath.Join(dir, "tmp", name)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.WriteString(f, message); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, "new", name)); err != nil {
		return err
	}
	return osDisk{}.syncDir(filepath.Join(dir, "new"))
}

func otherDelivery(dir, message string) error {
	delivery, err := maildir.NewDelivery(dir)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(delivery, message); err != nil {
		return err
	}
	return delivery.Close()
}
