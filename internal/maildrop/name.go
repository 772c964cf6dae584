package maildrop

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// maxHost bounds the host in a file name, so that a name stays within the 255 octets that file systems
// allow; the rest of it takes at most 140.
const maxHost = 100

// stamp is what makes a file name unique: a clock reading and a count for this process, and the
// process and its host. Where it is not enough (two Drops of one process may count alike in the same
// nanosecond) O_EXCL and link say so, and the next stamp is taken.
type stamp struct {
	time    time.Time
	counter uint64
	pid     int
	host    string
}

func (d *Drop) newStamp() stamp {
	return stamp{d.clock(), d.counter.Add(1), os.Getpid(), d.host}
}

func (d *Drop) clock() time.Time {
	if d.now != nil {
		return d.now()
	}
	return time.Now()
}

// tmpName is SECS.#COUNTERMNANOSPPID.HOST, the counter in hex.
func (s stamp) tmpName() string {
	return s.unique() + "." + s.host
}

// newName is SECS.#COUNTERMNANOSPPIDVDEVIINODE.HOST,S=BYTES. Readers that know Maildir++ take the size
// from there and need not ask the file for it.
func (s stamp) newName(id identity, size int64) string {
	place := ""
	if id != (identity{}) {
		place = fmt.Sprintf("V%dI%d", id.device, id.inode)
	}
	return fmt.Sprintf("%s%s.%s,S=%d", s.unique(), place, s.host, size)
}

func (s stamp) unique() string {
	return fmt.Sprintf("%d.#%xM%dP%d", s.time.Unix(), s.counter, s.time.Nanosecond(), s.pid)
}

// hostPart returns a host's name as it stands in file names, this host's for "".
func hostPart(name string) string {
	if name == "" {
		name, _ = os.Hostname()
	}
	if name == "" {
		name = "localhost"
	}
	return sanitizeHost(name)
}

// sanitizeHost writes what has a meaning in a path or a Maildir name (slash, colon, comma) and
// whatever else is not usual in a host's name as backslash and three octal digits, the Maildir
// convention's \057 and \072.
func sanitizeHost(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()[:min(b.Len(), maxHost)]
}
