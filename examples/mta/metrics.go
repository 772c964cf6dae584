package main

import (
	"fmt"
	"net/http"

	"github.com/mtadelivery/delivery"
)

// metrics serves the runtime's counts and gauges as Prometheus reads them.
func metrics(rt *delivery.Runtime) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		stats := rt.Stats()
		for _, m := range []struct {
			name, kind string
			of         func(*delivery.ReadyStats) uint64
		}{
			{"delivery_sessions_busy", "gauge", func(r *delivery.ReadyStats) uint64 { return uint64(r.Busy) }},
			{"delivery_sessions_idle", "gauge", func(r *delivery.ReadyStats) uint64 { return uint64(r.Idle) }},
			{"delivery_waiting", "gauge", func(r *delivery.ReadyStats) uint64 { return uint64(r.Waiting) }},
			{"delivery_delivered_total", "counter", func(r *delivery.ReadyStats) uint64 { return r.Delivered }},
			{"delivery_transient_total", "counter", func(r *delivery.ReadyStats) uint64 { return r.Transient }},
			{"delivery_permanent_total", "counter", func(r *delivery.ReadyStats) uint64 { return r.Permanent }},
			{"delivery_throttled_total", "counter", func(r *delivery.ReadyStats) uint64 { return r.Throttled }},
			{"delivery_sessions_opened_total", "counter", func(r *delivery.ReadyStats) uint64 { return r.Opened }},
			{"delivery_sessions_broken_total", "counter", func(r *delivery.ReadyStats) uint64 { return r.Broken }},
		} {
			fmt.Fprintf(w, "# TYPE %s %s\n", m.name, m.kind)
			for i := range stats.Ready {
				fmt.Fprintf(w, "%s{ready=%q} %d\n", m.name, stats.Ready[i].Name, m.of(&stats.Ready[i]))
			}
		}
	})
}
