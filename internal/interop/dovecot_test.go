//go:build interop && linux

package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// dovecot is a Dovecot that takes LMTP for dovecot.test and checks passwords for Postfix.
type dovecot struct {
	dir  string
	port int
	lmtp string // address
	unix string // the same as a socket
	sasl string // socket
}

// dovecotUsers are those who exist; the mailbox of "full" is full.
var dovecotUsers = strings.Fields(`one two three socket by-policy full
	pool-1 pool-2 pool-3 pool-4 pool-5 pool-6 pool-7 pool-8`)

// dovecotTrace are the header fields that Dovecot puts on top.
var dovecotTrace = []string{"Return-Path", "Delivered-To", "Received"}

// dovecotPassword is everybody's.
const dovecotPassword = "correct horse"

// dovecotSaved is what Dovecot says of a message that it stored, with the id of the transaction; behind
// it stands which recipient it was for, from the second one on.
var dovecotSaved = regexp.MustCompile(`^<\S+> (\S+?)(?::R\d+)? Saved$`)

func startDovecot(dir string) (*dovecot, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	d := &dovecot{dir: dir, port: port, lmtp: loopback(port), unix: filepath.Join(dir, "lmtp.sock"), sasl: filepath.Join(dir, "sasl.sock")}
	if err := d.configure(port); err != nil {
		return nil, err
	}
	server, err := launch(nil, filepath.Join(dir, "output"), "/usr/sbin/dovecot", "-F", "-c", filepath.Join(dir, "conf"))
	if err != nil {
		return nil, err
	}
	if err := server.listens(port); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return nil, fmt.Errorf("%w\n%s", err, log)
	}
	return d, nil
}

func (d *dovecot) configure(port int) error {
	nobody, err := account("nobody")
	if err != nil {
		return err
	}
	var users strings.Builder
	for _, u := range dovecotUsers {
		quota := "1G"
		if u == "full" {
			quota = "1B"
		}
		fmt.Fprintf(&users, "%s@dovecot.test:{PLAIN}%s:%d:%d::%s/home/%s::userdb_quota_rule=*:storage=%s\n",
			u, dovecotPassword, nobody.Uid, nobody.Gid, d.dir, u, quota)
	}
	conf := strings.NewReplacer("DIR", d.dir, "PORT", fmt.Sprint(port)).Replace(dovecotConf)
	for name, content := range map[string]string{"conf": conf, "users": users.String()} {
		if err := writeFile(filepath.Join(d.dir, name), content); err != nil {
			return err
		}
	}
	for _, name := range []string{"run", "state", "home", "mail"} {
		path := filepath.Join(d.dir, name)
		if err := errors.Join(os.Mkdir(path, 0o755), os.Chown(path, int(nobody.Uid), int(nobody.Gid))); err != nil {
			return err
		}
	}
	return nil
}

// Wrong passwords cost no time here: auth_failure_delay and anvil-auth-penalty are switched off.
const dovecotConf = `
protocols = lmtp
listen = 127.0.0.1
base_dir = DIR/run
state_dir = DIR/state
log_path = DIR/log
ssl = no
default_vsz_limit = 0
auth_failure_delay = 0
first_valid_uid = 1
mail_location = maildir:DIR/mail/%n
postmaster_address = postmaster@dovecot.test
hostname = lmtp.dovecot.test
mail_plugins = quota
plugin {
  quota = count:User quota
  quota_vsizes = yes
}
passdb {
  driver = passwd-file
  args = DIR/users
}
userdb {
  driver = passwd-file
  args = DIR/users
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = PORT
  }
  unix_listener DIR/lmtp.sock {
    mode = 0666
  }
}
service auth {
  unix_listener DIR/sasl.sock {
    mode = 0666
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`

// mail takes the one message of a user, which is there as soon as LMTP has answered.
func (d *dovecot) mail(t *testing.T, user string) string {
	t.Helper()
	return takeMessage(t, filepath.Join(d.dir, "mail", user))
}

// takeMessage removes the one new message of a Maildir and returns its content.
func takeMessage(t *testing.T, maildir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(maildir, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 {
		t.Fatalf("%s has %d messages, want one", maildir, len(files))
	}
	content, err := os.ReadFile(files[0])
	if err = errors.Join(err, os.Remove(files[0])); err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// doveadm runs a command of Dovecot's on a Maildir, as some user: root is refused. Dovecot writes its
// index files there and moves new messages to cur.
func doveadm(t *testing.T, as *syscall.Credential, maildir string, args ...string) string {
	t.Helper()
	home, err := os.MkdirTemp(lab.dir, "doveadm-")
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(home, "conf")
	err = errors.Join(os.Chown(home, int(as.Uid), int(as.Gid)), writeFile(conf, fmt.Sprintf(
		"log_path = /dev/stderr\nbase_dir = %[1]s\nstate_dir = %[1]s\nssl = no\n"+
			"first_valid_uid = 1\nfirst_valid_gid = 0\nmail_location = maildir:%[2]s\n", home, maildir)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/doveadm", append([]string{"-c", conf}, args...)...)
	cmd.Env = []string{"HOME=" + home, "USER=reader", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("%s: %v\n%s", cmd, err, &complaints)
	}
	return string(out)
}
