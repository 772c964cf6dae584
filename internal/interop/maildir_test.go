//go:build interop && linux

package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Dovecot and mblaze find what the library writes, Dovecot as it was written, and the modes let the group work with it
// although the umask of the writer let nobody.
func TestMaildirForDovecot(t *testing.T) {
	root, err := os.MkdirTemp(lab.dir, "maildirs-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	messages := []string{
		"From: a@sender.test\nSubject: first\n\n.\n..dots\nthe end\n",
		"From: b@sender.test\nSubject: second\nContent-Transfer-Encoding: 8bit\nContent-Type: text/plain; charset=utf-8\n\nGrüße\n\nthe end\n",
		"From: c@sender.test\r\nSubject: third\r\n\r\nCRLF\r\nthe end\r\n",
	}
	args := []string{"-json", "-from", "sender@sender.test", "-to", "user@example.test,other@example.test", "-config",
		fields{"protocol": fields{"maildir_path": root + "/{{ domain_part }}/{{ local_part }}",
			"dir_mode": 0o775, "file_mode": 0o664}}.json()}
	for _, m := range messages {
		args = append(args, messageFile(t, m))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := finish(t, exec.CommandContext(ctx, "/bin/sh",
		append([]string{"-c", `umask 077; exec "$0" "$@"`, lab.program}, args...)...))
	r.exited(t, 0)
	r.all(t, 6, "delivered")

	user := filepath.Join(root, "example.test", "user")
	stored := checkModes(t, filepath.Join(root, "example.test"), user)
	if len(stored) != len(messages) {
		t.Fatalf("%d files, want %d", len(stored), len(messages))
	}
	for _, m := range messages {
		if !stored[m] {
			t.Errorf("no file holds exactly %q", m)
		}
	}

	// A stranger in the group of the files, which is that of this process.
	reader, err := account("nobody")
	if err != nil {
		t.Fatal(err)
	}
	reader.Gid = uint32(os.Getegid())
	checkMblazeSees(t, reader, user, messages)
	checkDovecotSees(t, reader, user, messages)
	checkDovecotSees(t, reader, filepath.Join(root, "example.test", "other"), messages)
}

// checkModes checks the modes of a Maildir and the directory above, and returns what its files hold.
func checkModes(t *testing.T, above, maildir string) map[string]bool {
	t.Helper()
	for _, dir := range []string{above, maildir, maildir + "/tmp", maildir + "/new", maildir + "/cur"} {
		checkMode(t, dir, os.ModeDir|0o775)
	}
	files, err := filepath.Glob(filepath.Join(maildir, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	for _, f := range files {
		checkMode(t, f, 0o664)
		content, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		stored[string(content)] = true
	}
	return stored
}

func checkMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != want {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
	}
}

// checkMblazeSees checks that another reader of Maildirs finds the messages, as new ones. It is asked before
// Dovecot, which moves them to cur.
func checkMblazeSees(t *testing.T, as *syscall.Credential, maildir string, messages []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	list := exec.CommandContext(ctx, "/bin/sh", "-c", `/usr/bin/mlist -N "$0" | /usr/bin/mhdr -h subject`, maildir)
	list.Dir = "/"
	list.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	output, err := list.CombinedOutput()
	if err != nil {
		t.Errorf("mblaze: %v\n%s", err, output)
	}
	var want []string
	for _, m := range messages {
		_, rest, _ := strings.Cut(m, "Subject: ")
		want = append(want, rest[:strings.IndexAny(rest, "\r\n")])
	}
	got := strings.Fields(string(output))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("mblaze reads %q in %s, want %q", got, maildir, want)
	}
}

// checkDovecotSees checks that Dovecot finds the messages, by their subjects too, and reads them as
// they are.
func checkDovecotSees(t *testing.T, as *syscall.Credential, maildir string, messages []string) {
	t.Helper()
	if found := strings.Count(doveadm(t, as, maildir, "search", "ALL"), "\n"); found != len(messages) {
		t.Errorf("Dovecot finds %d messages in %s, want %d", found, maildir, len(messages))
	}
	for _, m := range messages {
		_, rest, _ := strings.Cut(m, "Subject: ")
		subject := rest[:strings.IndexAny(rest, "\r\n")]
		crlf := len(unixLines(m)) + strings.Count(unixLines(m), "\n")
		got := doveadm(t, as, maildir, "fetch", "size.physical size.virtual text", "HEADER", "Subject", subject)
		want := fmt.Sprintf("size.physical: %d\nsize.virtual: %d\ntext:\n%s", len(m), crlf, m)
		if got != want {
			t.Errorf("Dovecot reads %q\nwant %q", got, want)
		}
	}
}
