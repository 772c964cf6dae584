package delivery

import (
	"context"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A machine without an address of the destination's family says EADDRNOTAVAIL to connect, too: a container
// without ::1 does. A source that binds no address has no part in that, and is not suspended for it.
func TestNoSourceAddressToBlame(t *testing.T) {
	rt := Runtime{
		Egress: onlySource{EgressSource{Name: "any", SuspendWhenUnplumbed: &Suspension{Trigger: Trigger{Immediate: true}, Duration: 1e12}}},
		Dial: func(context.Context, DialRequest) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}
		},
	}
	defer rt.Close(context.Background())
	p, err := rt.Protocol(QueueConfig{EgressPool: "pool",
		Protocol: ProtocolConfig{SMTP: &SMTP{MXList: []MXEntry{{Name: "mx.test", Addr: "192.0.2.1:25"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := p.Deliver(t.Context(), &Message{From: "a@x.test", Recipients: []Recipient{{Address: "b@x.test"}},
			Body: Bytes("Subject: x\r\n\r\n")}).Results[0]
		if r.Status != Transient || r.Response.Code != 400 || strings.Contains(r.Response.Text, "source_address") {
			t.Errorf("%s %s, want 400 and nothing about a source_address", r.Status, r.Response)
		}
	}
}

// onlySource is an Egress with one source.
type onlySource struct{ source EgressSource }

func (o onlySource) EgressPool(_ context.Context, name string) (EgressPool, error) {
	return EgressPool{Name: name, Entries: []PoolEntry{{Name: o.source.Name}}}, nil
}

func (o onlySource) EgressSource(context.Context, string) (EgressSource, error) {
	return o.source, nil
}

func (o onlySource) EgressPath(context.Context, string, string, string) (EgressPath, error) {
	return EgressPath{}, nil
}
