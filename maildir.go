package delivery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/maildrop"
)

// Maildir is the part of a protocol table that has maildir_path: each recipient gets a copy of its
// own, synced to the disk before it is reported.
//
// # What survives
//
// A copy is written where no reader looks and synced, then gets its name in new, where that name must not
// exist, then new is synced, and only then is the recipient Delivered. Directories that had to be made are synced
// before anything is in them. So whenever the machine stops or the process is killed, what was reported is whole in
// new, once, and nothing in new is ever a part of a message. A delivery that was cut off before it was
// reported may have got as far as new; the host tries it again, and it is there twice. Leftovers in tmp are removed
// once they are 36 hours old.
//
// All deliveries of a [Runtime] that are under way on one file system, be they the recipients of one message or
// calls of Deliver, wait for the disk together where the system can do that (Linux since 5.17 on ext4, XFS,
// Btrfs and tmpfs). On each file system no more than 64 are in system calls at a time and 256 have files open; the
// others wait for their turn. One that is slow or does not answer holds up none but its own deliveries. A context
// that ends takes a delivery back, Unsent and without a trace, until its copy has its name in new.
//
// A failure of the disk is the recipient's own: Transient, to be tried again after a minute, with 4.3.1 for a full disk,
// 4.2.2 for a full quota, 4.3.2 where the disk is read-only or the process has too many files open, 4.3.5 for missing
// rights and whatever stands in the way, and 4.3.0 for all else, such as a disk that fails.
//
// [PlannedPath] has the Maildir for a reader.
//
// # The path
//
// maildir_path is a template in the manner of Jinja, with the meaning that minijinja gives it. This much of
// the language is understood, and all else is refused when the config is parsed, by name, line and column:
//
//	text        {{ expression }}  {# comment #}  {% raw %}  {{- and -}}
//	statements  {% if %} {% elif %} {% else %}  {% for x in list %} with loop.index, first, last, length, ...
//	            {% set x = expression %} outside loops
//	values      'text'  1  1.5  true  false  none  [a, b]  {'key': a}
//	access      meta.a.b  meta['a']  list[-1]  local_part[:2]
//	operators   and  or  not  in  is  == != < <= > >=  ~  + - * / // %  a if c else b
//	filters     abs bool capitalize count d default first float int join last length list lower replace
//	            reverse round safe split string title trim upper
//	methods     capitalize count endswith get isalnum isalpha isascii isdigit islower isnumeric isspace
//	            isupper join lower lstrip replace rstrip split startswith strip title upper
//	tests       boolean defined divisibleby endingwith eq equalto even false float ge greaterthan gt in int
//	            integer iterable le lessthan lt mapping ne none number odd sequence startingwith string true
//	            undefined
//
// The variables are:
//
//	local_part, domain_part, email                       of the recipient
//	sender_local_part, sender_domain_part, sender_email  of the sender; empty for the null sender
//	queue, domain                                        of the queue
//	campaign, tenant, routing_domain                     of the queue; none where it has none
//	meta                                                 the message's metadata
//
// Local parts are without the quotes and backslashes of the envelope, so that "user"@example.com and
// user@example.com are one Maildir, and keep their case: local_part|lower folds it. email and sender_email are
// quoted where they have to be. Domains are A-labels in lower case. The default filter stands in for what is
// undefined, as meta.nosuch is; tenant or 'x' also for what is none or empty. What is undefined or none and
// reaches the output is refused: mail would share a directory by accident. A path that is not absolute begins
// at the working directory.
//
// # What a value may do to the path
//
// What an expression with a variable in it renders to is a value. It fills in a part of one directory's name
// and can never change the tree. These cannot be a part of a name: a slash, control characters, what is not
// UTF-8, and a dot at the beginning of a name. Nor can a name be empty or longer than 255 bytes. By default
// (unsafe_values = "refuse") a recipient with such a value fails: for good with 550 5.1.3 where it is the
// recipient's own address that makes it so, else with 451 4.3.5, to be tried again after a minute. All else is
// kept, be it a look-alike of a slash or a dot, a mark of text direction, or text in the form of a template.
//
// With unsafe_values = "encode" no value is refused, except for a missing one, and for a long one where the template's
// own text and other values leave it less than 66 bytes of a name. Different values make different names:
//
//	%XX     a byte, in hexadecimal, of a slash, of a control character, of what is not UTF-8, of a dot that
//	        begins the name, and of every "%"
//	%_      an empty value, where there would be no name without it
//	%~HEX   what comes before it is the beginning of a value that was cut to make the name 255 bytes long, and
//	        HEX is the SHA-256 of all of it: two such names are equal only if two values have the same digest
//
// That holds for one value in a name. Where a template puts two into one, as {{ tenant }}-{{ local_part }}
// does, what is between them has to tell them apart: "a-b" and "c" make the same of it as "a" and "b-c".
// Case and Unicode's normal forms are left alone, so that a file system that folds them, as is common on macOS
// and Windows, folds names with them; and on Windows names that it does not have (CON, a dot at the end) are
// refused either way.
//
// The directory that the template's own text names up to the first name with a value in it is the root:
// /maildirs in /maildirs/{{ domain_part }}/{{ local_part }}, the whole path where there is no value. Symbolic links on
// the way to it are followed wherever they lead; below it, only as far as they stay below. cur, new and tmp are
// names like any other, so a template should not let values put one Maildir into another.
type Maildir struct {
	// Path is the path of the Maildir, a template as described above. Directories that do not exist are
	// created.
	Path string `config:"maildir_path" required:"true"`
	// DirMode is the mode of every directory that is created, exactly; nil: the umask decides.
	DirMode *Mode `config:"dir_mode"`
	// FileMode is the mode of the files, exactly; nil: the umask decides.
	FileMode *Mode `config:"file_mode"`

	// UnsafeValues is what is done about a value that cannot be a part of a name as it is: "refuse" (the
	// default) fails the recipient, "encode" writes it in another way. See above.
	UnsafeValues string `config:"unsafe_values" default:"refuse" enum:"refuse,encode"`
	// NoSync trades durability for speed: a delivery is reported when the message is whole in new for all who look,
	// and not only when it would survive the end of the power too. Then a machine that stops may lose
	// messages that were reported, or keep names of theirs with any part of the content.
	NoSync bool `config:"no_sync" default:"false"`
	// AddReturnPath puts "Return-Path: <sender>" in front of the content, as RFC 5321 section 4.4 asks of
	// whoever makes the final delivery; of the null sender it is "<>". One that is there already stays.
	AddReturnPath bool `config:"add_return_path" default:"false"`
	// AddDeliveredTo puts "Delivered-To: recipient" in front of the content. Both lines end with CRLF.
	AddDeliveredTo bool `config:"add_delivered_to" default:"false"`
}

// Validate says what is wrong with the table.
func (m *Maildir) Validate() error {
	_, err := compilePath(m.Path, m.UnsafeValues)
	return decode.In("maildir_path", err)
}

// Mode is a file mode in Unix's bits, 0 to 07777: permissions, sticky, setgid and setuid.
type Mode uint32

// String prints the mode in octal: "02775".
func (m Mode) String() string { return "0" + strconv.FormatUint(uint64(m), 8) }

// Validate says whether the mode is one.
func (m Mode) Validate() error {
	if m > 0o7777 {
		return fmt.Errorf("%#o is not a file mode (0 to 07777)", uint32(m))
	}
	return nil
}

// MarshalJSON prints the mode as a number.
func (m Mode) MarshalJSON() ([]byte, error) { return strconv.AppendUint(nil, uint64(m), 10), nil }

// UnmarshalJSON reads a number, or a text of octal digits.
func (m *Mode) UnmarshalJSON(text []byte) error {
	tree, err := decode.ParseJSON(text)
	if err != nil {
		return err
	}
	v, err := decode.ParseMode(tree)
	*m = Mode(v)
	return err
}

// maildirRetry is when a failed write is tried again, outside the normal schedule.
const maildirRetry = time.Minute

// maildirEngine delivers into Maildirs.
type maildirEngine struct {
	config   *Maildir
	template *pathTemplate
	drop     *maildrop.Drop // the Runtime's
}

func newMaildirEngine(c *Maildir, drop *maildrop.Drop) (*maildirEngine, error) {
	t, err := compilePath(c.Path, c.UnsafeValues)
	if err != nil {
		return nil, decode.In("protocol.maildir_path", err)
	}
	return &maildirEngine{config: c, template: t, drop: drop}, nil
}

func (e *maildirEngine) readyName(queue QueueName) string {
	return unspecified + "->" + queue.routing() + "@maildir:" + e.config.Path
}

func (e *maildirEngine) plan(_ context.Context, a *attempt) (Plan, error) {
	p := Plan{Protocol: "maildir", ReadyName: e.readyName(a.queue), Paths: make([]PlannedPath, len(a.results))}
	for i := range a.results {
		p.Paths[i] = PlannedPath{Recipient: a.results[i].Recipient, Err: a.results[i].Err}
	}
	paths := e.template.of(a)
	for _, r := range a.rcpts {
		at, err := paths.render(r.Address)
		if err != nil {
			p.Paths[r.index].Err = err
			continue
		}
		p.Paths[r.index].Path = at.path()
	}
	return p, nil
}

// deliver stores all recipients' copies at once, so that they share their waits for the disk.
func (e *maildirEngine) deliver(ctx context.Context, a *attempt) {
	session := &Session{ID: newID(), Protocol: "maildir", ReadyName: e.readyName(a.queue)}
	copies := e.copies(a)
	together(min(len(copies), maxCopies), len(copies), func(i int) {
		c := &copies[i]
		c.result = e.store(ctx, a, c)
	})
	for i := range copies {
		c := &copies[i]
		if c.result.Status != Unsent {
			c.result.Session = session
		}
		a.settle(c.rcpt, c.result)
	}
}

// maxCopies bounds how many copies of one message are under way at a time. How many files are open and how
// many threads wait is up to maildrop, over all messages.
const maxCopies = 256

// mailCopy is one recipient's copy, on its way.
type mailCopy struct {
	rcpt   *recipient
	at     place
	err    error // of the path
	result Result
}

// copies renders the paths, all before any of them is written to.
func (e *maildirEngine) copies(a *attempt) []mailCopy {
	copies := make([]mailCopy, len(a.rcpts))
	paths := e.template.of(a)
	for i := range a.rcpts {
		c := &copies[i]
		c.rcpt = &a.rcpts[i]
		c.at, c.err = paths.render(c.rcpt.Address)
	}
	return copies
}

// together does work 0 to n-1, at most workers at a time. If the work panics, so does the caller, once no
// other is under way.
func together(workers, n int, work func(int)) {
	if workers <= 1 {
		for i := range n {
			work(i)
		}
		return
	}
	var next atomic.Int64
	var wait sync.WaitGroup
	var panicked atomic.Pointer[any]
	for range workers {
		wait.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					panicked.CompareAndSwap(nil, &p)
				}
			}()
			for i := next.Add(1) - 1; i < int64(n) && panicked.Load() == nil; i = next.Add(1) - 1 {
				work(int(i))
			}
		})
	}
	wait.Wait()
	if p := panicked.Load(); p != nil {
		panic(*p)
	}
}

// store writes one recipient's copy.
func (e *maildirEngine) store(ctx context.Context, a *attempt, c *mailCopy) Result {
	to := c.rcpt.Address.String()
	if err := ctx.Err(); err != nil {
		return unsent(context.Cause(ctx))
	}
	if c.err != nil {
		return noPath(to, c.err)
	}
	id, err := e.drop.Store(ctx, maildrop.Maildir{Root: c.at.root, Rel: c.at.rel,
		DirMode: (*uint32)(e.config.DirMode), FileMode: (*uint32)(e.config.FileMode), NoSync: e.config.NoSync},
		headed(e.config.headers(a.sender, c.rcpt.Address), a.msg.Body))
	if err == nil {
		return Result{Status: Delivered, Response: Response{
			Code: 200, Text: fmt.Sprintf("%s: wrote to maildir with id=%s", to, id)}}
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return unsent(context.Cause(ctx)) // nothing was left behind
	}
	return Result{Status: Transient, RetryAfter: maildirRetry, Err: err, Response: Response{
		Code: 400, Enhanced: diskStatus(err), Text: safeText(fmt.Sprintf("%s: failed to write to maildir: %v", to, err))}}
}

// headers are the lines that go in front of a recipient's copy. An address holds no control character
// (see package address), so that each is one line.
func (m *Maildir) headers(sender, rcpt address.Address) string {
	var lines string
	if m.AddReturnPath {
		lines = "Return-Path: <" + sender.String() + ">\r\n"
	}
	if m.AddDeliveredTo {
		lines += "Delivered-To: " + rcpt.String() + "\r\n"
	}
	return lines
}

// headed opens a body with headers in front of it. Content that begins with white space begins with no
// header: an empty line keeps it from carrying on the last of ours (RFC 5322 section 2.2.3).
func headed(headers string, body Body) func() (io.ReadCloser, error) {
	open := sized(body)
	if headers == "" {
		return open
	}
	return func() (io.ReadCloser, error) {
		r, err := open()
		if err != nil {
			return nil, err
		}
		content := bufio.NewReader(r)
		first, err := content.Peek(1)
		if err != nil && err != io.EOF {
			return nil, errors.Join(err, r.Close())
		}
		front := headers
		if len(first) > 0 && (first[0] == ' ' || first[0] == '\t') {
			front += "\r\n"
		}
		return &headedReader{io.MultiReader(strings.NewReader(front), content), r}, nil
	}
}

// headedReader closes what it reads last.
type headedReader struct {
	io.Reader
	io.Closer
}

// sized opens a body and holds it to the size that it said: a copy of another size is not the
// message.
func sized(body Body) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		r, err := open(body)
		if err != nil {
			return nil, err
		}
		return &sizedReader{ReadCloser: r, left: body.Size()}, nil
	}
}

// open opens a body, whose Open is the host's and may forget something.
func open(body Body) (io.ReadCloser, error) {
	r, err := body.Open()
	if r == nil && err == nil {
		err = errors.New("Body.Open returned no reader")
	}
	return r, err
}

type sizedReader struct {
	io.ReadCloser
	left int64
}

var errBodySize = errors.New("the content is not of the size that it said")

func (r *sizedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.left -= int64(n)
	if r.left < 0 || err == io.EOF && r.left > 0 {
		return n, errBodySize
	}
	return n, err
}

// noPath is the result of a recipient for whom there is no path: permanent if it is the recipient's
// own doing, else the config, the metadata or the sender may be other ones next time.
func noPath(to string, err error) Result {
	if e, ok := errors.AsType[*pathError](err); ok && e.recipient {
		return Result{Status: Permanent, Err: err, Response: Response{
			Code: 550, Enhanced: EnhancedCode{5, 1, 3}, Text: safeText(fmt.Sprintf("%s: no maildir: %v", to, err))}}
	}
	return Result{Status: Transient, RetryAfter: maildirRetry, Err: err, Response: Response{
		Code: 451, Enhanced: EnhancedCode{4, 3, 5}, Text: safeText(fmt.Sprintf("%s: no maildir: %v", to, err))}}
}

// diskStatus is the enhanced code for a failure to write (RFC 3463 sections 3.3 and 3.4).
func diskStatus(err error) EnhancedCode {
	for _, known := range []struct {
		status EnhancedCode
		errnos []error
	}{
		{EnhancedCode{4, 2, 2}, []error{syscall.EDQUOT}},                                // mailbox full
		{EnhancedCode{4, 3, 1}, []error{syscall.ENOSPC}},                                // mail system full
		{EnhancedCode{4, 3, 2}, []error{syscall.EROFS, syscall.EMFILE, syscall.ENFILE}}, // system not accepting messages
		{EnhancedCode{4, 3, 5}, []error{fs.ErrPermission, fs.ErrNotExist, fs.ErrInvalid, // system incorrectly configured
			syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG}},
	} {
		for _, errno := range known.errnos {
			if errors.Is(err, errno) {
				return known.status
			}
		}
	}
	return EnhancedCode{4, 3, 0} // other or undefined mail system status, such as EIO
}

func (e *maildirEngine) close() {}
