package delivery

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flosch/pongo2/v6"
	"github.com/mtadelivery/delivery/internal/address"
)

// hostile is a value that somebody chose in order to get somewhere else.
type hostile struct {
	value   string
	refused string // what is said of it; "": nothing, it is a name as it is
	encoded string // "": as it is
}

// cut is what encode makes of a long value, of which it keeps the beginning.
func cut(beginning, value string) string {
	return fmt.Sprintf("%s%%~%x", beginning, sha256.Sum256([]byte(value)))
}

func repeat(n int, s string) string { return strings.Repeat(s, n) }

const (
	separator = "holds a path separator"
	control   = "holds a control character"
	dot       = "begins with a dot"
	notUTF8   = "is not UTF-8"
	tooLong   = "makes a directory name of"
)

var hostiles = []hostile{
	// Names that climb.
	{".", dot, "%2E"}, {"..", dot, "%2E."}, {"...", dot, "%2E.."}, {"....", dot, "%2E..."},
	{"../", separator, "%2E.%2F"}, {"../..", separator, "%2E.%2F.."}, {"../../etc/passwd", separator, "%2E.%2F..%2Fetc%2Fpasswd"},
	{"./", separator, "%2E%2F"}, {"./x", separator, "%2E%2Fx"}, {"/", separator, "%2F"}, {"//", separator, "%2F%2F"}, {"///x", separator, "%2F%2F%2Fx"},
	{"/etc/passwd", separator, "%2Fetc%2Fpasswd"}, {"/..", separator, "%2F.."}, {"a/b", separator, "a%2Fb"}, {"a/", separator, "a%2F"},
	{"a/..", separator, "a%2F.."}, {"a/../b", separator, "a%2F..%2Fb"}, {"a/.", separator, "a%2F."}, {"a//b", separator, "a%2F%2Fb"},
	{"....//....//etc", separator, "%2E...%2F%2F....%2F%2Fetc"}, {"..;/x", separator, "%2E.;%2Fx"}, {"..;", dot, "%2E.;"},
	{"file:///etc/passwd", separator, "file:%2F%2F%2Fetc%2Fpasswd"}, {"c:/x", separator, "c:%2Fx"}, {"~/x", separator, "~%2Fx"},
	{"../secret", separator, "%2E.%2Fsecret"}, {"../../outside/secret/x", separator, "%2E.%2F..%2Foutside%2Fsecret%2Fx"},
	{".hidden", dot, "%2Ehidden"}, {".ssh", dot, "%2Essh"}, {".Trash", dot, "%2ETrash"}, {"..a", dot, "%2E.a"}, {".a.", dot, "%2Ea."},
	{". ", dot, "%2E "}, {". .", dot, "%2E ."}, {".. ", dot, "%2E. "}, {".-", dot, "%2E-"}, {".%", dot, "%2E%25"},
	{" ..", "", ""}, {" .", "", ""}, {"-..", "", ""}, {"a.", "", ""}, {"a..", "", ""}, {"a...b", "", ""}, {"a.b.", "", ""}, {"a. ", "", ""},

	// Other systems' paths, and what a shell or a program would take for something.
	{`\`, "", ""}, {`\\host\share`, "", ""}, {`a\b`, "", ""}, {`..\..\x`, dot, `%2E.\..\x`}, {`C:`, "", ""}, {`C:\x`, "", ""},
	{"~", "", ""}, {"~root", "", ""}, {"$HOME", "", ""}, {"${HOME}", "", ""}, {"`id`", "", ""}, {"$(id)", "", ""}, {"|id", "", ""},
	{";rm -rf .", "", ""}, {"a&b", "", ""}, {"-", "", ""}, {"--", "", ""}, {"-rf", "", ""}, {"--help", "", ""}, {"+", "", ""}, {"*", "", ""},
	{"?", "", ""}, {"[a]", "", ""}, {"{a,b}", "", ""}, {"!", "", ""}, {"#", "", ""}, {"'", "", ""}, {`"`, "", ""}, {`""`, "", ""}, {`a"b`, "", ""},
	{"'; drop table x; --", "", ""}, {"<", "", ""}, {">", "", ""}, {"<a>", "", ""}, {"a=b", "", ""}, {"@", "", ""}, {"a@b", "", ""}, {",", "", ""},
	{" ", "", ""}, {"  ", "", ""}, {" a", "", ""}, {"a ", "", ""}, {"a b", "", ""},

	// The escape itself, in every form that decodes once or twice to something else.
	{"%", "", "%25"}, {"%%", "", "%25%25"}, {"%25", "", "%2525"}, {"%2e", "", "%252e"}, {"%2e%2e", "", "%252e%252e"}, {"%2E%2E%2F", "", "%252E%252E%252F"},
	{"%2f", "", "%252f"}, {"%2Fetc", "", "%252Fetc"}, {"a%2Fb", "", "a%252Fb"}, {"%2E.", "", "%252E."}, {"..%2f", dot, "%2E.%252f"}, {".%2e", dot, "%2E%252e"},
	{"%252e%252e%252f", "", "%25252e%25252e%25252f"}, {"%c0%af", "", "%25c0%25af"}, {"%c0%ae%c0%ae", "", "%25c0%25ae%25c0%25ae"}, {"%u2216", "", "%25u2216"},
	{"%00", "", "%2500"}, {"a%00.txt", "", "a%2500.txt"}, {"%0a", "", "%250a"}, {"%_", "", "%25_"}, {"%~", "", "%25~"}, {"%s%n", "", "%25s%25n"},
	{cut("x", repeat(300, "x")), "", "x%25" + cut("", repeat(300, "x"))[1:]},
	{"&#46;&#46;&#47;", "", ""}, {"&sol;", "", ""}, {"=2E=2E=2F", "", ""}, {"=?utf-8?q?=2e=2e=2f?=", "", ""}, {`\x2e\x2e\x2f`, "", ""}, {`\u002e\u002f`, "", ""},
	{`\057`, "", ""}, {"+AC8-", "", ""}, {"&AC8-", "", ""}, {"0x2e", "", ""},

	// What looks like a slash or a dot, or becomes one where somebody normalises.
	{"／", "", ""}, {"．．／etc", "", ""}, {"⁄", "", ""}, {"∕", "", ""}, {"a∕..∕b", "", ""}, {"⧸", "", ""}, {"╱", "", ""}, {"⧵", "", ""}, {"﹨", "", ""}, {"＼", "", ""},
	{"․", "", ""}, {"․․", "", ""}, {"․․∕etc", "", ""}, {"‥", "", ""}, {"…", "", ""}, {"．", "", ""}, {"．．", "", ""}, {"。", "", ""}, {"｡", "", ""}, {"﹒", "", ""}, {"·", "", ""},
	{"a\u0338", "", ""}, {"\u0338", "", ""}, {"℀", "", ""}, {"℅", "", ""}, {"‰", "", ""}, {"％2f", "", ""},
	// Two spellings of one text are two names.
	{"é", "", ""}, {"e\u0301", "", ""}, {"Å", "", ""}, {"\u212b", "", ""}, {"A", "", ""}, {"a", "", ""}, {"\u212a", "", ""}, {"k", "", ""}, {"ß", "", ""}, {"ẞ", "", ""}, {"ﬁ", "", ""}, {"fi", "", ""}, {"ａ", "", ""}, {"İ", "", ""}, {"ı", "", ""},

	// What is not seen.
	{"\u202etxt.exe", "", ""}, {"\u200e", "", ""}, {"\u200f", "", ""}, {"\u2066a\u2069", "", ""}, {"a\u200bb", "", ""}, {"\ufeff", "", ""}, {"\u00ad", "", ""}, {"\u2060", "", ""},
	{"\u3164", "", ""}, {"\u2028", "", ""}, {"a\u2029b", "", ""}, {"\u00a0", "", ""}, {"\u3000", "", ""}, {"\U000e0001", "", ""}, {"\ufffd", "", ""}, {"\uffff", "", ""},
	{"\ue000", "", ""}, {"\U0010ffff", "", ""}, {"👨\u200d👩\u200d👧", "", ""},

	// Control characters, in both sets, and what is not UTF-8.
	{"\x00", control, "%00"}, {"a\x00b", control, "a%00b"}, {"\x00/..", control, "%00%2F.."}, {"..\x00", control, "%2E.%00"}, {"x\x00.txt", control, "x%00.txt"},
	{"\n", control, "%0A"}, {"a\nb", control, "a%0Ab"}, {"a\r\nb", control, "a%0D%0Ab"}, {"\t", control, "%09"}, {"\x1b[2J", control, "%1B[2J"}, {"\x7f", control, "%7F"},
	{"\b", control, "%08"}, {"\x01", control, "%01"}, {"\x1f", control, "%1F"}, {"\u0080", control, "%C2%80"}, {"a\u0085b", control, "a%C2%85b"}, {"\u009b2J", control, "%C2%9B2J"},
	{"\xff", notUTF8, "%FF"}, {"\x80", notUTF8, "%80"}, {"\x85", notUTF8, "%85"}, {"a\xc3", notUTF8, "a%C3"}, {"é\xff", notUTF8, "é%FF"}, {"\xc0\xaf", notUTF8, "%C0%AF"},
	{"\xc0\xae\xc0\xae\xc0\xaf", notUTF8, "%C0%AE%C0%AE%C0%AF"}, {"\xe0\x80\xaf", notUTF8, "%E0%80%AF"}, {"\xed\xa0\x80", notUTF8, "%ED%A0%80"}, {"\xf5\x80\x80\x80", notUTF8, "%F5%80%80%80"},
	{"\xf8\x88\x80\x80\x80", notUTF8, "%F8%88%80%80%80"}, {"\xfe\xff\x00.", notUTF8, "%FE%FF%00."},

	// Text that means something to a template.
	{"{{ 7*7 }}", "", ""}, {"{{", "", ""}, {"}}", "", ""}, {"{{ local_part }}", "", ""}, {"{{ meta }}", "", ""}, {"{{ ''.__class__ }}", "", ""}, {"{# x #}", "", ""},
	{"{% raw %}", "", "{%25 raw %25}"}, {"{% include 'x' %}", "", "{%25 include 'x' %25}"}, {"{% ssi '/etc/passwd' %}", separator, "{%25 ssi '%2Fetc%2Fpasswd' %25}"},
	{"{% autoescape off %}", "", "{%25 autoescape off %25}"}, {"{% endautoescape %}", "", "{%25 endautoescape %25}"}, {"%}", "", "%25}"},
	{"${7*7}", "", ""}, {"#{7*7}", "", ""}, {"<%= 1 %>", "", "<%25= 1 %25>"}, {"o'brien&co", "", ""}, {"&lt;b&gt;", "", ""}, {"none", "", ""}, {"null", "", ""}, {"undefined", "", ""}, {"0", "", ""},

	// Names that mean something to a file system or to a reader of Maildirs.
	{"CON", "", ""}, {"con", "", ""}, {"NUL", "", ""}, {"nul.txt", "", ""}, {"AUX", "", ""}, {"PRN", "", ""}, {"COM1", "", ""}, {"COM¹", "", ""}, {"LPT9", "", ""}, {"CONIN$", "", ""}, {"aux.", "", ""},
	{"a:stream", "", ""}, {"a::$DATA", "", ""}, {"PROGRA~1", "", ""}, {"desktop.ini", "", ""},
	{"cur", "", ""}, {"new", "", ""}, {"tmp", "", ""}, {"new/x", separator, "new%2Fx"}, {"tmp/../new", separator, "tmp%2F..%2Fnew"}, {".Sent", dot, "%2ESent"}, {"a.b.c", "", ""}, {"INBOX", "", ""},
	{"1:2,S", "", ""}, {"x,S=0", "", ""}, {"maildirsize", "", ""}, {"dovecot-uidlist", "", ""}, {"lost+found", "", ""},

	// Sizes.
	{"", "is empty", "%_"},
	{repeat(255, "x"), "", ""},
	{repeat(256, "x"), tooLong, cut(repeat(189, "x"), repeat(256, "x"))},
	{repeat(256, "x") + "y", tooLong, cut(repeat(189, "x"), repeat(256, "x")+"y")},
	{repeat(10<<10, "x"), tooLong, cut(repeat(189, "x"), repeat(10<<10, "x"))},
	{repeat(127, "ü") + "x", "", ""},
	{repeat(128, "ü"), tooLong, cut(repeat(94, "ü"), repeat(128, "ü"))},
	{repeat(64, "😀"), tooLong, cut(repeat(47, "😀"), repeat(64, "😀"))},
	{repeat(85, "/"), separator, repeat(85, "%2F")},
	{repeat(86, "/"), separator, cut(repeat(63, "%2F"), repeat(86, "/"))},
	{"x" + repeat(85, "/"), separator, cut("x"+repeat(62, "%2F"), "x"+repeat(85, "/"))},
	{"xx" + repeat(85, "/"), separator, cut("xx"+repeat(62, "%2F"), "xx"+repeat(85, "/"))},
	{repeat(100, "../"), separator, cut("%2E."+repeat(37, "%2F.."), repeat(100, "../"))},
	{"." + repeat(254, "x"), dot, cut("%2E"+repeat(186, "x"), "."+repeat(254, "x"))},
	{repeat(86, "%"), "", cut(repeat(63, "%25"), repeat(86, "%"))},
	{repeat(128, "a."), tooLong, cut(repeat(94, "a.")+"a", repeat(128, "a."))},
	{repeat(250, "x") + "/../../y", separator, cut(repeat(189, "x"), repeat(250, "x")+"/../../y")},
	{repeat(999, " "), tooLong, cut(repeat(189, " "), repeat(999, " "))},
	{repeat(100, "\xff"), notUTF8, cut(repeat(63, "%FF"), repeat(100, "\xff"))},
}

// name is the directory that the value goes to, or what is said of it.
func (h *hostile) name(encode bool) (name, refused string) {
	switch {
	case !encode && h.refused != "":
		return "", h.refused
	case encode && h.encoded != "":
		return h.encoded, ""
	}
	return h.value, ""
}

// TestEncodedNamesAreApart: no two of the values share a name, encoded or where both are names as they are.
func TestEncodedNamesAreApart(t *testing.T) {
	if len(hostiles) < 200 {
		t.Errorf("%d values", len(hostiles))
	}
	seen := map[string]string{}
	for _, h := range hostiles {
		name, _ := h.name(true)
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q are both %q", h.value, other, name)
		}
		if seen[name] = h.value; !encodes(name, h.value) {
			t.Errorf("%q does not stand for %q", name, h.value)
		}
	}
}

// outside is a directory with a tree for Maildirs in it and things around that nobody may touch.
type outside struct {
	dir, root string
	before    map[string]string
}

func newOutside(t *testing.T) *outside {
	o := &outside{dir: t.TempDir()}
	o.root = filepath.Join(o.dir, "maildirs")
	for _, dir := range []string{"maildirs/example.com/real", "etc", "secret/new", "secret/tmp", "secret/cur", "new", "cur", "tmp", "outside/secret"} {
		if err := os.MkdirAll(filepath.Join(o.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"etc/passwd", "secret/x", "outside/secret/x", "x", "-rf", "%2E.", "maildirs/example.com/file"} {
		if err := os.WriteFile(filepath.Join(o.dir, file), []byte("of "+file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"link": "../../secret", "absolute": filepath.Join(o.dir, "secret"), "upper": "../..", "dangling": "../../nowhere",
		"chain": "link", "loop": "loop", "through": "real/../../../secret", "inside": "real", "lead.test": "../secret", "to.test": "example.com/real",
	} {
		dir := filepath.Join(o.root, "example.com")
		if strings.HasSuffix(name, ".test") {
			dir = o.root
		}
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	o.before = o.around(t)
	return o
}

// around describes everything outside the root.
func (o *outside) around(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(o.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == o.root {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := fmt.Sprint(info.Mode(), info.Size(), info.ModTime())
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += string(content)
		}
		all[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// check compares what is around the root with what was, and the Maildirs below it with those expected.
func (o *outside) check(t *testing.T, want map[string]int) {
	t.Helper()
	if after := o.around(t); !maps.Equal(o.before, after) {
		t.Errorf("the surroundings changed:\n%v\n%v", o.before, after)
	}
	got := map[string]int{}
	err := filepath.WalkDir(o.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, o.root+"/")
		if d.Type().IsRegular() && filepath.Base(filepath.Dir(path)) == "new" {
			got[filepath.Dir(filepath.Dir(rel))]++
		} else if !d.IsDir() && d.Type() != fs.ModeSymlink && rel != "example.com/file" {
			t.Errorf("there is a %s", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%d messages in %q, want %d", got[name], name, n)
		}
	}
	for name := range got {
		if want[name] == 0 {
			t.Errorf("a Maildir at %q", name)
		}
	}
}

// bothModes runs a test under refuse and under encode, with a tree and a protocol for it.
func bothModes(t *testing.T, template string, test func(t *testing.T, encode bool, o *outside, p Protocol)) {
	for _, mode := range []string{"refuse", "encode"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := newOutside(t)
			test(t, mode == "encode", o, protocolOf(t, newRuntime(t),
				`{"protocol": {"maildir_path": `+mustJSON(o.root+template)+`, "unsafe_values": "`+mode+`"}}`))
		})
	}
}

// checkPath compares a recipient's plan and result with the path or the refusal expected. permanent: it is the
// recipient's own doing.
func checkPath(t *testing.T, what string, o *outside, plan PlannedPath, r Result, name, refused string, permanent bool) {
	t.Helper()
	if refused == "" {
		if want := filepath.Join(o.root, name); plan.Path != want || plan.Err != nil || r.Status != Delivered {
			t.Errorf("%q: planned %q (%v), want %q: %s %s", what, plan.Path, plan.Err, want, r.Status, r.Response)
		}
		return
	}
	ok := r.Status == Transient && r.RetryAfter == time.Minute && r.Response.Enhanced == EnhancedCode{4, 3, 5}
	if permanent {
		ok = r.Status == Permanent && r.Response.Enhanced == EnhancedCode{5, 1, 3}
	}
	if !ok || plan.Path != "" || plan.Err == nil || !strings.Contains(r.Response.Text, refused) {
		t.Errorf("%q: %s after %v: %s; planned %q (%v); want one that says %q", what, r.Status, r.RetryAfter, r.Response, plan.Path, plan.Err, refused)
	}
}

// TestHostileLocalParts: each value, quoted, as a recipient's local part.
func TestHostileLocalParts(t *testing.T) {
	bothModes(t, "/{{ domain_part }}/{{ local_part }}", func(t *testing.T, encode bool, o *outside, p Protocol) {
		msg := messageTo()
		for _, h := range hostiles {
			msg.Recipients = append(msg.Recipients, Recipient{Address: address.Address{Local: h.value, Domain: "example.com"}.String()})
		}
		plan, err := p.Plan(t.Context(), msg)
		if err != nil {
			t.Fatal(err)
		}
		outcome := p.Deliver(t.Context(), msg)
		want := map[string]int{}
		for i, h := range hostiles {
			name, refused := h.name(encode)
			if _, err := address.Parse(msg.Recipients[i].Address); err != nil { // no address at all
				name, refused = "", "delivery: "
			}
			if refused == "" {
				name = "example.com/" + name
				want[name] = 1
			}
			checkPath(t, h.value, o, plan.Paths[i], outcome.Results[i], name, refused, true)
		}
		o.check(t, want)
	})
}

// TestHostileMetadata: each value as metadata, which may be another one next time.
func TestHostileMetadata(t *testing.T) {
	bothModes(t, "/{{ meta.v }}", func(t *testing.T, encode bool, o *outside, p Protocol) {
		want := map[string]int{}
		var all sync.WaitGroup
		for _, h := range hostiles {
			name, refused := h.name(encode)
			if refused == "" {
				want[name] = 1
			}
			all.Go(func() {
				msg := messageTo("user@example.com")
				msg.Meta = map[string]any{"v": h.value}
				plan, err := p.Plan(t.Context(), msg)
				if err != nil {
					t.Error(err)
					return
				}
				checkPath(t, h.value, o, plan.Paths[0], p.Deliver(t.Context(), msg).Results[0], name, refused, false)
			})
		}
		all.Wait()
		o.check(t, want)
	})
}

// TestHostileAddresses: whole addresses as hosts hand them over. Quoted local parts lose their quotes and their
// backslashes and keep their case; domains are A-labels in lower case.
func TestHostileAddresses(t *testing.T) {
	const no = "delivery: " // no address
	tests := []struct {
		to, refused, name string
		encoded           string // "": as name
	}{
		// Quoting.
		{`user@example.com`, "", "example.com/user", ""}, {`"user"@example.com`, "", "example.com/user", ""}, {`"u\s\er"@example.com`, "", "example.com/user", ""},
		{`User@example.com`, "", "example.com/User", ""}, {`"USER"@Example.COM`, "", "example.com/USER", ""},
		{`"a b"@example.com`, "", "example.com/a b", ""}, {`"a\"b"@example.com`, "", `example.com/a"b`, ""}, {`"a\\b"@example.com`, "", `example.com/a\b`, ""},
		{`"a@b"@example.com`, "", "example.com/a@b", ""}, {`a@b@example.com`, "", "example.com/a@b", ""}, {`"info@"@example.com`, "", "example.com/info@", ""},
		{`a"b@example.com`, "", `example.com/a"b`, ""}, {`"a@example.com`, "", `example.com/"a`, ""}, {`"a"b"@example.com`, "", `example.com/"a"b"`, ""},
		{`"\."@example.com`, dot, "", "example.com/%2E"}, {`".\."@example.com`, dot, "", "example.com/%2E."}, {`..@example.com`, dot, "", "example.com/%2E."},
		{`"..\/.."@example.com`, separator, "", "example.com/%2E.%2F.."}, {`../../x@example.com`, separator, "", "example.com/%2E.%2F..%2Fx"}, {`a/b@example.com`, separator, "", "example.com/a%2Fb"},
		{`"\\"@example.com`, "", `example.com/\`, ""}, {`-rf@example.com`, "", "example.com/-rf", ""}, {`user+tag@example.com`, "", "example.com/user+tag", ""},
		{`a%b@example.com`, "", "example.com/a%b", "example.com/a%25b"}, {`dömi@example.com`, "", "example.com/dömi", ""},
		{`@a.example:user@example.com`, "", "example.com/user", ""}, {`Postmaster`, "value of domain_part is empty", "", "%_/postmaster"},
		{``, no, "", ""}, {`""@example.com`, no, "", ""}, {`@example.com`, no, "", ""}, {`no-at-sign`, no, "", ""}, {`a b@example.com`, no, "", ""}, {` a@example.com`, no, "", ""},
		{`<a@example.com>`, no, "", ""}, {"a\r\nb@example.com", no, "", ""}, {"\"a\x00b\"@example.com", no, "", ""}, {"\x00@example.com", no, "", ""}, {"\"a\nb\"@example.com", no, "", ""},
		{"a\xff@example.com", no, "", ""}, {"a\u0085b@example.com", no, "", ""}, {repeat(1000, "a") + "@example.com", no, "", ""},

		// Domains.
		{`a@`, no, "", ""}, {`a@.`, no, "", ""}, {`a@..`, no, "", ""}, {`a@...`, no, "", ""}, {`a@../x`, no, "", ""}, {`a@../../etc`, no, "", ""}, {`a@/`, no, "", ""}, {`a@/etc/passwd`, no, "", ""}, {`a@b/c`, no, "", ""},
		{`a@.example.com`, no, "", ""}, {`a@example..com`, no, "", ""}, {`a@example.com..`, no, "", ""}, {`a@example.com/..`, no, "", ""}, {`a@example.com%2f..`, no, "", ""}, {`a@%2e%2e`, no, "", ""}, {`a@a\b`, no, "", ""},
		{`a@-rf`, no, "", ""}, {`a@a-.test`, no, "", ""}, {`a@*`, no, "", ""}, {`a@~`, no, "", ""}, {`a@$HOME`, no, "", ""}, {`a@example.com:25`, no, "", ""}, {`a@exa mple.com`, no, "", ""}, {"a@example.com\x00", no, "", ""},
		{"a@example\n.com", no, "", ""}, {"a@\xff.test", no, "", ""}, {`a@{{ 7*7 }}`, no, "", ""}, {`a@{{7*7}}`, no, "", ""}, {`a@a,b`, no, "", ""}, {`a@"x"`, no, "", ""}, {`a@<x>`, no, "", ""},
		{`a@．．`, no, "", ""}, {`a@．．／etc`, no, "", ""}, {`a@ex／ample.com`, no, "", ""}, {`a@‥`, no, "", ""}, {`a@․․`, no, "", ""}, {`a@。`, no, "", ""}, {`a@％2e`, no, "", ""},
		{"a@\u202eexample.com", no, "", ""}, {`a@xn--`, no, "", ""}, {`a@xn--a`, no, "", ""}, {`a@xn--../x`, no, "", ""}, {`a@[../x]`, no, "", ""}, {`a@[]`, no, "", ""}, {`a@[/etc]`, no, "", ""},
		{`a@[IPv6:fe80::1%eth0]`, no, "", ""}, {`a@[IPv6:fe80::1%/../x]`, no, "", ""}, {`a@[127.0.0.1`, no, "", ""}, {"a@" + repeat(64, "x") + ".test", no, "", ""}, {"a@" + repeat(127, "x.") + "test", no, "", ""},
		{`a@EXAMPLE.Com.`, "", "example.com/a", ""}, {`a@example．com`, "", "example.com/a", ""}, {"a@ex\u00adample.com", "", "example.com/a", ""}, {"a@example\u200b.com", "", "example.com/a", ""},
		{`a@con`, "", "con/a", ""}, {`a@nul.test`, "", "nul.test/a", ""}, {`a@cur`, "", "cur/a", ""}, {`a@new`, "", "new/a", ""}, {`a@tmp`, "", "tmp/a", ""}, {`a@a_b.test`, "", "a_b.test/a", ""}, {`a@_`, "", "_/a", ""},
		{`a@1`, "", "1/a", ""}, {`a@127.0.0.1`, "", "127.0.0.1/a", ""}, {`a@0x7f.1`, "", "0x7f.1/a", ""}, {`a@[127.0.0.1]`, "", "[127.0.0.1]/a", ""}, {`a@[IPv6:::1]`, "", "[IPv6:::1]/a", ""},
		{`a@ß.test`, "", "xn--zca.test/a", ""}, {`a@💩.test`, "", "xn--ls8h.test/a", ""}, {`a@BÜCHER.test`, "", "xn--bcher-kva.test/a", ""},
		{"a@" + repeat(63, "x") + ".test", "", repeat(63, "x") + ".test/a", ""}, {"a@" + repeat(124, "x.") + "test", "", repeat(124, "x.") + "test/a", ""},
	}
	bothModes(t, "/{{ domain_part }}/{{ local_part }}", func(t *testing.T, encode bool, o *outside, p Protocol) {
		msg := messageTo()
		for _, tt := range tests {
			msg.Recipients = append(msg.Recipients, Recipient{Address: tt.to})
		}
		plan, err := p.Plan(t.Context(), msg)
		if err != nil {
			t.Fatal(err)
		}
		outcome := p.Deliver(t.Context(), msg)
		want := map[string]int{}
		for i, tt := range tests {
			name, refused := tt.name, tt.refused
			if encode && tt.encoded != "" {
				name, refused = tt.encoded, ""
			}
			if refused == "" {
				want[name]++
			}
			checkPath(t, tt.to, o, plan.Paths[i], outcome.Results[i], name, refused, true)
		}
		o.check(t, want)
	})
}

// TestSymlinksLeadNowhereElse: a symbolic link is followed where the template's own text names it, and below that
// only as far as it stays below; a plain file is no directory.
func TestSymlinksLeadNowhereElse(t *testing.T) {
	bothModes(t, "/{{ domain_part }}/{{ local_part }}", func(t *testing.T, _ bool, o *outside, p Protocol) {
		bad := []string{"link@example.com", "absolute@example.com", "dangling@example.com", "chain@example.com", "loop@example.com",
			"through@example.com", "upper@example.com", "file@example.com", "x@lead.test", "secret@lead.test"}
		good := []string{"inside@example.com", "new@to.test", "real@example.com"}
		outcome := p.Deliver(t.Context(), messageTo(slices.Concat(bad, good)...))
		for i, r := range outcome.Results {
			if i >= len(bad) {
				if r.Status != Delivered {
					t.Errorf("%s: %s %s", r.Recipient, r.Status, r.Response)
				}
			} else if r.Status != Transient || r.RetryAfter != time.Minute {
				t.Errorf("%s: %s after %v: %s", r.Recipient, r.Status, r.RetryAfter, r.Response)
			}
		}
		o.check(t, map[string]int{"example.com/real": 2, "example.com/real/new": 1})

		// The operator's own link, and a template without values: all of it is his.
		theirs := filepath.Join(o.dir, "theirs")
		if err := os.Symlink(o.root, theirs); err != nil {
			t.Fatal(err)
		}
		o.before = o.around(t)
		for _, template := range []string{theirs + "/ours.test/{{ local_part }}", theirs + "/example.com/inside"} {
			p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(template)+`}}`)
			if r := p.Deliver(t.Context(), messageTo("user@example.com")).Results[0]; r.Status != Delivered {
				t.Errorf("%s: %s", template, r.Response)
			}
		}
		o.check(t, map[string]int{"example.com/real": 3, "example.com/real/new": 1, "ours.test/user": 1})
	})
}

// TestPlaces: which part of a path is the operator's, what the values in one name do to each other, and whose fault it
// is when there is no path.
func TestPlaces(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	long := repeat(300, "x")
	tests := []struct {
		template, local string
		meta            map[string]any
		refuse, encode  string // root|rel, or what is said, with ! where it is the recipient's doing; encode "": the same
	}{
		// The root.
		{"/m", "u", nil, "/m|.", ""},
		{"/m/", "u", nil, "/m|.", ""},
		{"/m//n/../o/./{{ local_part }}", "u", nil, "/m/o|u", ""},
		{"/m/{{ local_part }}", "u", nil, "/m|u", ""},
		{"/m/u-{{ local_part }}/x", "u", nil, "/m|u-u/x", ""},
		{"/{{ local_part }}", "u", nil, "/|u", ""},
		{"{{ local_part }}/x", "u", nil, wd + "|u/x", ""},
		{"m", "u", nil, wd + "/m|.", ""},
		{"m/{{ local_part }}", "u", nil, wd + "/m|u", ""},
		{"./{{ local_part }}", "u", nil, wd + "|u", ""},
		{"/m/{{ local_part }}//./x/", "u", nil, "/m|u/x", ""},
		{"/m/{{ 'a/b' }}/{{ local_part }}", "u", nil, "/m/a/b|u", ""},
		{"/m{% if domain == 'example.com' %}/ours{% else %}/theirs{% endif %}/{{ local_part }}", "u", nil, "/m/ours|u", ""},
		{"/m{% if tenant %}/{{ tenant }}{% endif %}/x", "u", nil, "/m/x|.", ""},
		{"{% set x = local_part|lower %}/m/{{ x }}", "U", nil, "/m|u", ""},
		{"/m/{% for c in local_part[:2] %}{{ c }}/{% endfor %}{{ local_part }}", "user", nil, "/m|u/s/user", ""},
		{"/m/{{ local_part }}/../x", "u", nil, "climbs", ""},
		{"/m/{{ local_part }}/..", "u", nil, "climbs", ""},
		{"/m/{{ local_part }}/..x/...", "u", nil, "/m|u/..x/...", ""},
		{"/m/{{ '\\x00' }}", "u", nil, "NUL", ""},
		{"{{ '' }}", "u", nil, "the path is empty", ""},
		{"{% if tenant %}/m{% endif %}", "u", nil, "the path is empty", ""},

		// Dots between the template and values.
		{"/m/.{{ meta.k }}", "u", map[string]any{"k": ""}, "is empty", "/m|.%_"},
		{"/m/.{{ meta.k }}", "u", map[string]any{"k": "."}, dot, "/m|.%2E"},
		{"/m/.{{ meta.k }}", "u", map[string]any{"k": "./"}, separator, "/m|.%2E%2F"},
		{"/m/.{{ meta.k }}", "u", map[string]any{"k": "Sent"}, "/m|.Sent", ""},
		{"/m/{{ meta.k }}.", "u", map[string]any{"k": ""}, "is empty", "/m|%_."},
		{"/m/{{ meta.k }}.", "u", map[string]any{"k": "."}, dot, "/m|%2E."},
		{"/m/..{{ meta.k }}", "u", map[string]any{"k": ""}, "is empty", "/m|..%_"},
		{"/m/..{{ meta.k }}", "u", map[string]any{"k": "x"}, "/m|..x", ""},
		{"/m/.{{ meta.k }}.", "u", map[string]any{"k": ""}, "is empty", "/m|.%_."},
		{"/m/...{{ meta.k }}", "u", map[string]any{"k": ""}, "/m|...", ""},
		{"/m/u{{ meta.k }}", "u", map[string]any{"k": ".."}, "/m|u..", ""},
		{"/m/u{{ meta.k }}", "u", map[string]any{"k": ""}, "/m|u", ""},
		{"/m/u{{ meta.k }}", "u", map[string]any{"k": "%_"}, "/m|u%_", "/m|u%25_"},
		{"/m/{{ meta.a }}{{ meta.b }}", "u", map[string]any{"a": ".", "b": "."}, dot, "/m|%2E."},
		{"/m/{{ meta.a }}{{ meta.b }}", "u", map[string]any{"a": "", "b": ".."}, dot, "/m|%2E."},
		{"/m/{{ meta.a }}{{ meta.b }}", "u", map[string]any{"a": "", "b": ""}, "is empty", "/m|%_"},
		{"/m/{{ meta.a ~ '.' ~ meta.b }}", "u", map[string]any{"a": "", "b": "."}, dot, "/m|%2E."},
		{"/m/{{ meta.a ~ '/' ~ meta.b }}", "u", map[string]any{"a": "x", "b": "y"}, separator, "/m|x%2Fy"},
		{"/m/{{ 'x/y' if tenant else 'a/b' }}", "u", nil, separator, "/m|a%2Fb"},
		{"/m/{{ 'x' if tenant }}/y", "u", nil, "is empty", "/m|%_/y"},
		{"/m/{{ local_part }}{{ '-x' if tenant }}", "u", nil, "/m|u", ""},

		// Long values: what the template says stays.
		{"/m/u-{{ local_part }}.d", long, nil, "!" + tooLong, "/m|u-" + cut(repeat(185, "x"), long) + ".d"},
		{"/m/{{ local_part }}-{{ meta.k }}", long, map[string]any{"k": "y"}, "!" + tooLong, "/m|" + cut(repeat(61, "x"), long) + "-y"},
		{"/m/{{ meta.k }}-{{ local_part }}", "u", map[string]any{"k": long}, tooLong, "/m|" + cut(repeat(61, "x"), long) + "-u"},
		{"/m/{{ meta.k }}-{{ local_part }}", long, map[string]any{"k": long}, "!" + tooLong, "/m|" + cut(repeat(61, "x"), long) + "-" + cut(repeat(61, "x"), long)},
		{"/m/{{ meta.k }}-{{ local_part }}", repeat(200, "x"), map[string]any{"k": repeat(100, "y")}, tooLong, "/m|" + repeat(100, "y") + "-" + cut(repeat(61, "x"), repeat(200, "x"))},
		{"/m/" + repeat(190, "z") + "{{ local_part }}", long, nil, "!" + tooLong, tooLong},
		{"/m/" + repeat(189, "z") + "{{ local_part }}", long, nil, "!" + tooLong, "/m|" + repeat(189, "z") + cut("", long)},
		{"/m/{{ local_part }}{{ local_part }}{{ local_part }}{{ local_part }}", long, nil, "!" + tooLong, tooLong},
		{"/m/{{ local_part }}/" + long, "u", nil, "/m|u/" + long, ""},

		// Whose doing it is.
		{"/m/{{ local_part }}", "..", nil, "!" + dot, "/m|%2E."},
		{"/m/{{ email }}", "a/b", nil, "!" + separator, "/m|a%2Fb@example.com"},
		{"/m/{{ email }}", "a b/", nil, "!" + separator, `/m|"a b%2F"@example.com`},
		{"/m/{{ meta.k or local_part }}", "a/b", nil, separator, "/m|a%2Fb"},
		{"/m/{{ meta.k or local_part }}", "a/b", map[string]any{"k": "k"}, "/m|k", ""},
		{"/m/{{ local_part.split('+')[1] }}", "u", nil, "!is missing", ""},
		{"/m/{{ local_part.split('+')[1] }}", "u+t", nil, "/m|t", ""},
		{"/m/{{ local_part.split('+')[1] or 'inbox' }}", "u", nil, "/m|inbox", ""},
		{"/m/{{ local_part.split('+')[1]|default('inbox') }}", "u", nil, "/m|inbox", ""},
		{"/m/{{ local_part|int % 4 }}", "u", nil, "!no number", ""},
		{"/m/{{ local_part|int % 4 }}", "7", nil, "/m|3", ""},
		{"/m/{{ (local_part ~ meta.k)|int }}", "u", map[string]any{"k": "v"}, "no number", ""},
		{"/m/{{ local_part + 1 }}", "7", nil, "cannot apply", ""},
		{"/m/{{ local_part|replace('u', '') }}", "u", nil, "!is empty", "/m|%_"},
		{"/m/{{ local_part[1:] }}{{ meta.k }}", "u", map[string]any{"k": ""}, "is empty", "/m|%_"},
		{"/m/{{ meta.k }}", "u", nil, "is missing", ""},
		{"/m/{{ meta.k }}", "u", map[string]any{"k": nil}, "is missing", ""},
		{"/m/{{ meta.k|default('x') }}", "u", nil, "/m|x", ""},
		{"/m/{{ meta.k or 'x' }}", "u", map[string]any{"k": nil}, "/m|x", ""},
		{"/m/{{ meta.a.b }}", "u", nil, "has no attribute", ""},
		{"/m/{{ meta }}", "u", nil, "cannot print a map", ""},
		{"/m/{{ meta.k }}", "u", map[string]any{"k": []any{"x"}}, "cannot print a list", ""},
	}
	for _, tt := range tests {
		msg := messageTo(address.Address{Local: tt.local, Domain: "example.com"}.String())
		msg.Meta = tt.meta
		a, err := newAttempt(msg)
		if err != nil || len(a.rcpts) != 1 {
			t.Fatalf("%q: %v, %+v", tt.local, err, a.results)
		}
		if tt.encode == "" {
			tt.encode = tt.refuse
		}
		for mode, want := range map[string]string{"refuse": tt.refuse, "encode": tt.encode} {
			template, err := compilePath(tt.template, mode)
			if err != nil {
				t.Errorf("%s: %v", tt.template, err)
				continue
			}
			at, err := template.of(a).render(a.rcpts[0].Address)
			root, rel, ok := strings.Cut(want, "|")
			if ok {
				if err != nil || at != (place{root, rel}) {
					t.Errorf("%s of %.20q, %s: %q, %v; want %q", tt.template, tt.local, mode, at, err, want)
				}
				continue
			}
			want, recipient := strings.CutPrefix(want, "!")
			var e *pathError
			if !errors.As(err, &e) || !strings.Contains(e.reason, want) || e.recipient != recipient {
				t.Errorf("%s of %.20q, %s: %q, %+v; want %q, the recipient's: %v", tt.template, tt.local, mode, at, err, want, recipient)
			}
		}
	}
}

// BenchmarkPath is the path of one recipient, from the variables of a message to the place on the disk, and beside it what
// pongo2's Execute alone takes for the same template with the variables at hand.
func BenchmarkPath(b *testing.B) {
	a, err := newAttempt(messageTo("John.Doe@example.com"))
	if err != nil {
		b.Fatal(err)
	}
	for _, source := range []string{
		"/maildirs/{{ domain_part }}/{{ local_part }}",
		"/maildirs/{{ domain_part }}/{% if tenant %}{{ tenant }}/{% endif %}{{ local_part|lower }}",
		"/var/mail/all",
	} {
		for _, mode := range []string{"refuse", "encode"} {
			b.Run(mode+" "+source, func(b *testing.B) {
				template, err := compilePath(source, mode)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := template.of(a).render(a.rcpts[0].Address); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run("pongo2 "+source, func(b *testing.B) {
			template, err := pongo2.FromString(source)
			if err != nil {
				b.Fatal(err)
			}
			vars := pongo2.Context{"domain_part": "example.com", "local_part": "John.Doe", "tenant": nil}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := template.Execute(vars); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
