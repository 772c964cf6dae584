// Mta is a mail transfer agent in three small files, as proof that the library's API carries one: a
// go-smtp server takes messages in (server.go), a queue in memory keeps them until they are due
// (queue.go), and workers deliver them as a KumoMTA policy says. Its queue is gone when it ends: it is
// an example, not a place for mail.
//
//	go run ./examples/mta -policy policy.lua -listen 127.0.0.1:2525
//
// SIGHUP loads the policy anew; SIGINT and SIGTERM stop taking messages, let what is under way end,
// and leave.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mtadelivery/delivery"
)

func main() {
	policy := flag.String("policy", "", "the policy `file`")
	listen := flag.String("listen", "127.0.0.1:2525", "where to take messages in")
	dns := flag.String("dns", "", "ask this resolver (`host:port`) instead of the system's")
	metrics := flag.String("metrics", "", "where to serve /metrics for Prometheus, such as 127.0.0.1:9090; empty: nowhere")
	workers := flag.Int("workers", 64, "deliveries at once")
	patience := flag.Duration("patience", 20*time.Second, "how long deliveries may go on after a signal to stop")
	flag.Parse()

	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(stop, config{*policy, *listen, *dns, *metrics, *workers, *patience, slog.Default(), nil}); err != nil {
		fmt.Fprintln(os.Stderr, "mta:", err)
		os.Exit(1)
	}
}

type config struct {
	policy, listen, dns, metrics string
	workers                      int
	patience                     time.Duration
	log                          *slog.Logger
	listening                    func(net.Addr) // for tests; may be nil
}

func run(stop context.Context, c config) error {
	rt := &delivery.Runtime{Logger: c.log}
	if c.dns != "" {
		rt.Resolver = &delivery.DNS{Servers: []string{c.dns}}
	}
	q := newQueue(rt, c.log)
	if err := q.load(stop, c.policy); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.listen)
	if err != nil {
		return err
	}
	if c.metrics != "" {
		l, err := net.Listen("tcp", c.metrics)
		if err != nil {
			return err
		}
		defer l.Close()
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", metrics(rt))
		go http.Serve(l, mux)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	server := newServer(q, cmp.Or(rt.Hostname, "localhost"))
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	c.log.Info("taking messages in", "address", listener.Addr().String())
	if c.listening != nil {
		c.listening(listener.Addr())
	}

	// Deliveries go on while the server winds down: their context ends after it.
	work, cancel := context.WithCancel(context.WithoutCancel(stop))
	defer cancel()
	finished := q.work(work, c.workers)
	for stop.Err() == nil {
		select {
		case <-stop.Done():
		case err := <-served:
			return err
		case <-hangup:
			if err := q.load(stop, c.policy); err != nil {
				c.log.Error("the policy stays as it was", "error", err)
			}
		}
	}

	server.Close()
	cancel()
	last, done := context.WithTimeout(context.Background(), c.patience)
	defer done()
	err = rt.Close(last)
	<-finished
	c.log.Info("stopped", "left in the queue", q.len())
	return err
}
