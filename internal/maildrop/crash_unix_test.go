//go:build unix

package maildrop

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// place is where an entry is.
type place struct {
	dir  *memNode
	name string
}

// crash is all that a crash could leave of what was done to a disk: what each entry may lead to, and
// each file may hold.
type crash struct {
	top      *memNode
	entries  map[place][]*memNode
	contents map[*memNode][]string
	reported []string
}

// crashAfter is the crash when the first n operations are done. What a sync covered is as it was then
// or as it became later; nothing keeps the changes to different entries or files in order.
func (d *memDisk) crashAfter(n int) *crash {
	c := &crash{d.top, make(map[place][]*memNode), make(map[*memNode][]string), nil}
	durable := func(i int, node *memNode) bool {
		return slices.ContainsFunc(d.ops[i+1:n], func(op memOp) bool {
			return op.began > i && (op.kind == "sync all" || op.kind == "sync" && op.node == node)
		})
	}
	for i, op := range d.ops[:n] {
		switch op.kind {
		case "entry":
			at := place{op.node, op.name}
			if durable(i, op.node) {
				c.entries[at] = []*memNode{op.to}
				break
			}
			if c.entries[at] == nil {
				c.entries[at] = []*memNode{nil}
			}
			if !slices.Contains(c.entries[at], op.to) {
				c.entries[at] = append(c.entries[at], op.to)
			}
		case "write":
			if durable(i, op.node) {
				c.contents[op.node] = []string{op.text}
				break
			}
			if c.contents[op.node] == nil {
				c.contents[op.node] = []string{""}
			}
			garbled := strings.Repeat("\x00", len(op.text))
			c.contents[op.node] = append(c.contents[op.node], op.text[:len(op.text)/2], garbled, op.text)
		case "report":
			c.reported = append(c.reported, op.text)
		}
	}
	return c
}

// state is one of the states that a crash could leave.
type state struct {
	crash   *crash
	entry   map[place]*memNode
	content map[*memNode]string
}

// states calls check for each.
func (c *crash) states(check func(state)) {
	s := state{c, make(map[place]*memNode), make(map[*memNode]string)}
	places := slices.Collect(maps.Keys(c.entries))
	nodes := slices.Collect(maps.Keys(c.contents))
	var choose func(i int)
	choose = func(i int) {
		switch {
		case i < len(places):
			for _, to := range c.entries[places[i]] {
				s.entry[places[i]] = to
				choose(i + 1)
			}
		case i < len(places)+len(nodes):
			node := nodes[i-len(places)]
			for _, text := range c.contents[node] {
				s.content[node] = text
				choose(i + 1)
			}
		default:
			check(s)
		}
	}
	choose(0)
}

// messages returns what is in new of the Maildir at path.
func (s state) messages(path string) []string {
	n := s.crash.top
	for _, name := range strings.Split(filepath.Join(path, "new")[1:], "/") {
		if n = s.entry[place{n, name}]; n == nil {
			return nil
		}
	}
	var found []string
	for at, to := range s.entry {
		if at.dir == n && to != nil {
			found = append(found, s.content[to])
		}
	}
	return found
}

// disk is what a machine finds that starts again in this state.
func (s state) disk() *memDisk {
	d := newMemDisk()
	copies := map[*memNode]*memNode{s.crash.top: d.top}
	twin := func(n *memNode) *memNode {
		if copies[n] == nil {
			copies[n] = d.newNode(n.entries != nil)
			copies[n].content = []byte(s.content[n])
		}
		return copies[n]
	}
	for at, to := range s.entry {
		if to != nil {
			d.set(twin(at.dir), at.name, twin(to))
		}
	}
	for node, text := range s.content {
		d.ops = append(d.ops, memOp{kind: "write", node: twin(node), text: text})
	}
	d.ops = append(d.ops, memOp{kind: "sync all", began: len(d.ops)})
	return d
}

// checkCrashes checks every state after a crash at every point from the given one on: what was
// reported is whole in new, what is in new is whole, and no message is there more often than most.
func checkCrashes(t *testing.T, d *memDisk, from int, known []string, most int) (states int) {
	t.Helper()
	for n := from; n <= len(d.ops); n++ {
		c := d.crashAfter(n)
		c.states(func(s state) {
			states++
			found := s.messages(mailbox)
			count := make(map[string]int)
			for _, message := range found {
				count[message]++
				if !slices.Contains(known, message) {
					t.Errorf("after %d operations: new holds %q", n, message)
				}
				if count[message] > most {
					t.Errorf("after %d operations: %q is there %d times", n, message, count[message])
				}
			}
			for _, message := range c.reported {
				if count[message] == 0 {
					t.Errorf("after %d operations: %q was reported and is not there", n, message)
				}
			}
		})
		if t.Failed() {
			return states
		}
	}
	return states
}

const mailbox = "/m/a/u"

// premade makes the Maildir as one that has been there for long.
func (d *memDisk) premade() *memDisk {
	path := ""
	for _, name := range append(strings.Split(mailbox[1:], "/"), "cur", "new", "tmp") {
		if err := d.mkdir(path+"/"+name, 0); err != nil {
			panic(err)
		}
		if len(name) == 1 {
			path += "/" + name
		}
	}
	d.ops = append(d.ops, memOp{kind: "sync all", began: len(d.ops)})
	return d
}

// deliver delivers messages, all at the same time, and returns the errors.
func (d *memDisk) deliver(t *testing.T, drop *Drop, messages ...string) []error {
	t.Helper()
	drop.disk = d
	errs := make([]error, len(messages))
	var wait sync.WaitGroup
	for i, message := range messages {
		wait.Go(func() {
			_, errs[i] = drop.Store(t.Context(), Maildir{Root: filepath.Dir(mailbox), Rel: filepath.Base(mailbox)}, text(message))
			if errs[i] == nil {
				d.report(message)
			}
		})
	}
	wait.Wait()
	return errs
}

// kinds are the disks that a delivery knows.
var kinds = map[string]func(*memDisk){
	"plain":               func(*memDisk) {},
	"no links":            func(d *memDisk) { d.noLinks = true },
	"unnamed":             func(d *memDisk) { d.unnamed = true },
	"volumes":             func(d *memDisk) { d.volumes = true },
	"unnamed and volumes": func(d *memDisk) { d.unnamed, d.volumes = true, true },
}

// TestCrash enumerates what a crash of the machine could leave, at every point of one delivery and of
// a group of them.
func TestCrash(t *testing.T) {
	messages := []string{"first message", "second message", "third message", "fourth message"}
	for kind, set := range kinds {
		for _, fresh := range []bool{true, false} {
			for _, n := range []int{1, 2, len(messages)} {
				if fresh && n > 2 || testing.Short() && n > 2 {
					continue // the directories multiply the states
				}
				t.Run(fmt.Sprintf("%s, fresh %v, %d", kind, fresh, n), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						d := newMemDisk()
						set(d)
						if !fresh {
							d.premade()
						}
						for _, err := range d.deliver(t, &Drop{}, messages[:n]...) {
							if err != nil {
								t.Fatal(err)
							}
						}
						if n > 2 && d.volumes && !slices.ContainsFunc(d.ops[10:], func(op memOp) bool { return op.kind == "sync all" }) {
							t.Error("nothing was synced together")
						}
						states := checkCrashes(t, d, 0, messages[:n], 1)
						t.Logf("%d operations, %d states", len(d.ops), states)
					})
				})
			}
		}
	}
}

// TestCrashAndRetry starts again from every state that a crash in a delivery could leave. Who was not
// told that it was delivered delivers again: the message is there once or twice, and the second
// delivery stands every crash as well.
func TestCrashAndRetry(t *testing.T) {
	const message = "the message"
	for kind, set := range kinds {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newMemDisk()
				set(d)
				if err := d.deliver(t, &Drop{}, message)[0]; err != nil {
					t.Fatal(err)
				}
				again := 0
				for n := range d.ops {
					d.crashAfter(n).states(func(s state) {
						second := s.disk()
						set(second)
						from := len(second.ops)
						if err := second.deliver(t, &Drop{}, message)[0]; err != nil {
							t.Fatal(err)
						}
						again += checkCrashes(t, second, from, []string{message}, 2)
					})
				}
				t.Logf("%d states after the second crash", again)
			})
		})
	}
}

// TestKilledAndCrash ends the process at every operation of a delivery, so that the disk still knows
// what was not synced; another process delivers again, and then the machine crashes.
func TestKilledAndCrash(t *testing.T) {
	const message = "the message"
	for kind, set := range kinds {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for last := 0; ; last++ {
					d := newMemDisk()
					set(d)
					left := last
					d.fault = func(string, string) error {
						if left--; left < 0 {
							return errKilled // and so does all that it does to tidy up
						}
						return nil
					}
					first := d.deliver(t, &Drop{}, message)[0]
					d.fault = nil
					from := len(d.ops)
					if err := d.deliver(t, &Drop{}, message)[0]; err != nil {
						t.Fatal(err)
					}
					checkCrashes(t, d, from, []string{message}, 2)
					if first == nil && left >= 0 || t.Failed() {
						return
					}
				}
			})
		})
	}
}

var errKilled = fmt.Errorf("killed")
