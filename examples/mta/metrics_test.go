package main

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery"
)

func TestMetrics(t *testing.T) {
	rt := &delivery.Runtime{Dial: func(context.Context, delivery.DialRequest) (net.Conn, error) { return nil, errors.New("refused") }}
	defer rt.Close(context.Background())
	protocol, err := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		SMTP: &delivery.SMTP{MXList: []delivery.MXEntry{{Name: "mx.example.com", Addr: "192.0.2.1"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	protocol.Deliver(t.Context(), &delivery.Message{From: "a@example.org", Body: delivery.Bytes("x\r\n"),
		Recipients: []delivery.Recipient{{Address: "b@example.com"}}})
	w := httptest.NewRecorder()
	metrics(rt).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{
		"# TYPE delivery_transient_total counter",
		`delivery_transient_total{ready="unspecified->mx_list:192.0.2.1@smtp_client"} 1`,
		`delivery_sessions_opened_total{ready="unspecified->mx_list:192.0.2.1@smtp_client"} 0`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no line %s in\n%s", line, w.Body)
		}
	}
}
