//go:build unix

package maildrop

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// killedHere says that this process is the one that delivers until it is killed, into the directory
// of that name.
const killedHere = "MAILDROP_TEST_KILLED"

// TestKilled kills a process that delivers at full speed, time and again, at whatever it is doing then.
// What it had reported must be in new, whole and once, and nothing in new may be a part of a message.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killedHere); dir != "" {
		deliverUntilKilled(dir)
		return
	}
	if testing.Short() {
		killOften(t, 20)
		return
	}
	killOften(t, 200)
}

func killOften(t *testing.T, times int) {
	root, reported, unreported := t.TempDir(), 0, 0
	for i := range times {
		dir := filepath.Join(root, strconv.Itoa(i))
		names := killOnce(t, dir)
		found := wholeMessages(t, filepath.Join(dir, "u"))
		ids := make(map[string]string)
		for name, id := range found {
			if other, twice := ids[id]; twice {
				t.Errorf("message %s is there twice: %q and %q", id, name, other)
			}
			ids[id] = name
		}
		for name, id := range names {
			if found[name] != id {
				t.Errorf("message %s was reported as %q: there is %q", id, name, found[name])
			}
		}
		reported += len(names)
		unreported += len(found) - len(names)
		if t.Failed() {
			return
		}
	}
	t.Logf("killed %d times: %d messages reported, %d more delivered", times, reported, unreported)
	if reported == 0 {
		t.Error("nothing was ever delivered")
	}
}

// killOnce returns the ids of the messages that were reported, by their names.
func killOnce(t *testing.T, dir string) map[string]string {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), killedHere+"="+dir)
	child.Stderr = os.Stderr
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	names := make(map[string]string)
	alive, enough := true, rand.IntN(100)
	for lines := bufio.NewScanner(output); ; {
		// A report in the pipe was made before the kill, whether it was read before or after.
		if alive && len(names) >= enough {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			alive = false
		}
		if !lines.Scan() {
			break
		}
		id, name, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			t.Fatalf("the child says %q", lines.Text())
		}
		names[name] = id
	}
	_ = child.Wait() // killed
	if alive {
		t.Fatal("the child ended by itself")
	}
	return names
}

// deliverUntilKilled delivers with many callers, and tells the id and name of each message in one
// write.
func deliverUntilKilled(dir string) {
	var d Drop
	d.named.Store(rand.IntN(2) == 0)
	ended := make(chan error)
	for caller := range 16 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d", caller, i)
				body := strings.Repeat(id+"\r\n", rand.IntN(1<<rand.IntN(14)))
				message := fmt.Sprintf("%s %x\r\n%s", id, sha256.Sum256([]byte(body)), body)
				name, err := d.Store(context.Background(), Maildir{Root: dir, Rel: "u"}, text(message))
				if err != nil {
					ended <- err
				}
				_, _ = fmt.Fprintf(os.Stdout, "%s %s\n", id, name)
			}
		}()
	}
	panic(<-ended)
}

// wholeMessages returns the ids of the messages in new by their names, and fails if one is not whole.
func wholeMessages(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for name, message := range files(t, filepath.Join(dir, "new")) {
		line, body, _ := strings.Cut(message, "\r\n")
		id, sum, _ := strings.Cut(line, " ")
		if sum != fmt.Sprintf("%x", sha256.Sum256([]byte(body))) || !strings.HasSuffix(name, fmt.Sprintf(",S=%d", len(message))) {
			t.Errorf("%q holds a part of a message: %.100q", name, message)
		}
		found[name] = id
	}
	return found
}
