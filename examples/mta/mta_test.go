//go:build unix

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// eventually waits for what other goroutines are about to do.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never came: " + what)
		}
	}
}

func TestMTA(t *testing.T) {
	root := t.TempDir()
	policy := filepath.Join(root, "policy.lua")
	write := func(folder string) {
		text := fmt.Sprintf(`
			kumo.on('get_queue_config', function(domain)
				if domain == 'retry.test' then
					return kumo.make_queue_config { retry_interval = '1s', protocol = { custom_lua = { constructor = 'make.slow' } } }
				end
				return kumo.make_queue_config { refresh_interval = '1h', protocol = { maildir_path = %q .. '/{{ local_part }}' } }
			end)
			kumo.on('make.slow', function()
				return { send = function(self, message)
					if message:num_attempts() == 0 then kumo.reject(451, 'not yet') end
					if message:recipient().user == 'never' then kumo.reject(550, 'never') end
					local f = io.open(%q, 'a') f:write(message:recipient().user, '\n') f:close()
					return 'OK'
				end }
			end)`, filepath.Join(root, folder), filepath.Join(root, "sent"))
		if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")

	listening := make(chan net.Addr, 1)
	stop, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(stop, config{policy: policy, listen: "127.0.0.1:0", workers: 4, patience: time.Minute,
			log: slog.New(slog.DiscardHandler), listening: func(a net.Addr) { listening <- a }})
	}()
	var addr string
	select {
	case a := <-listening:
		addr = a.String()
	case err := <-done:
		t.Fatal(err)
	}
	send := func(to ...string) {
		if err := smtp.SendMail(addr, nil, "a@example.org", to, []byte("Subject: x\r\n\r\nx\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(dir string, n int) func() bool {
		return func() bool {
			entries, _ := os.ReadDir(filepath.Join(root, dir, "new"))
			return len(entries) == n
		}
	}

	send("ann@maildir.test", "bob@maildir.test", "ann@other.test")
	eventually(t, "two copies for ann, one for bob", func() bool { return holds("first/ann", 2)() && holds("first/bob", 1)() })

	send("later@retry.test", "never@retry.test")
	send("later@retry.test")
	eventually(t, "the second attempts", func() bool {
		sent, _ := os.ReadFile(filepath.Join(root, "sent"))
		return strings.Count(string(sent), "later\n") == 1
	})

	write("second")
	syscall.Kill(os.Getpid(), syscall.SIGHUP)
	eventually(t, "the new policy", func() bool {
		send("carol@maildir.test")
		entries, _ := os.ReadDir(filepath.Join(root, "second/carol/new"))
		return len(entries) > 0
	})

	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("it does not stop")
	}
}
