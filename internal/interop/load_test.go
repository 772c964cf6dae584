//go:build interop && linux

package interop

import (
	"bytes"
	"cmp"
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mtadelivery/delivery"
)

// A thousand messages, fifty at a time, over as few connections as the limit says.
func TestSinkThousand(t *testing.T) {
	const limit = 10
	s := startSink(t)
	r := deliver(t, "-n", "1000", "-c", "50", "-config", via("[127.0.0.1]:"+portOf(s.address)),
		"-egress-path", path(fields{"connection_limit": limit}),
		"-from", "sender@sender.test", "-to", "user@example.test", messageFile(t, smallMessage))
	r.exited(t, 0)
	r.all(t, 1000, "delivered")
	if sum := r.summary; sum.Messages != 1000 || sum.Recipients != 1000 || sum.Delivered != 1000 ||
		sum.Transient+sum.Permanent+sum.Unsent != 0 {
		t.Errorf("the summary is %+v", sum)
	}
	// No connection needs to be replaced. So if there were no more than the limit in all, there were
	// never more at once.
	got := s.settled(t)
	if got.messages != 1000 || got.sessions > limit || got.sessions != r.summary.Sessions || got.quits != got.sessions {
		t.Errorf("the sink counted %+v, the summary %d sessions; want 1000 messages over at most %d", got, r.summary.Sessions, limit)
	}
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// The limit also holds while connections are used up and replaced by new ones all the time.
func TestSinkLimit(t *testing.T) {
	const messages, limit, perConnection = 400, 4, 7
	s := startSink(t)
	var dialer countingDialer
	rt := delivery.Runtime{
		Dial: dialer.dial,
		Egress: onePath{delivery.EgressPath{ProhibitedHosts: nothing, ConnectionLimit: delivery.Limit{Count: limit},
			MaxDeliveriesPerConnection: perConnection}},
	}
	protocol := listProtocol(t, &rt, s.address)
	var delivered atomic.Int32
	var senders sync.WaitGroup
	for range 20 {
		senders.Go(func() {
			for range messages / 20 {
				if out := protocol.Deliver(t.Context(), message("user@example.test")); out.Results[0].Status == delivery.Delivered {
					delivered.Add(1)
				} else {
					t.Errorf("got %+v", out.Results[0])
				}
			}
		})
	}
	senders.Wait()
	if err := rt.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := delivered.Load(); n != messages {
		t.Errorf("%d delivered, want %d", n, messages)
	}
	got := s.settled(t)
	fewest := (messages + perConnection - 1) / perConnection
	if got.messages != messages || got.sessions < fewest || uint64(got.sessions) != rt.Stats().Opened || got.quits != got.sessions {
		t.Errorf("the sink counted %+v, the runtime %d sessions; want %d messages over at least %d", got, rt.Stats().Opened, messages, fewest)
	}
	if dialer.peak > limit || dialer.open != 0 {
		t.Errorf("%d connections at once, want at most %d; %d left open, want none", dialer.peak, limit, dialer.open)
	}
}

// One connection serves fifty messages that are sent one after the other.
func TestSinkReuse(t *testing.T) {
	s := startSink(t)
	rt := delivery.Runtime{Egress: onePath{delivery.EgressPath{ProhibitedHosts: nothing}}}
	protocol := listProtocol(t, &rt, s.address)
	ids := map[string]int{}
	for range 50 {
		res := protocol.Deliver(t.Context(), message("user@example.test")).Results[0]
		if res.Status != delivery.Delivered {
			t.Fatalf("got %+v", res)
		}
		ids[res.Session.ID]++
	}
	if err := rt.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got, want := s.settled(t), (sinkCounts{sessions: 1, quits: 1, messages: 50}); got != want || len(ids) != 1 {
		t.Errorf("the sink counted %+v, want %+v; session ids %v, want one", got, want, ids)
	}
}

// Postfix takes a RSET between messages for junk when there are a hundred of them, unless messages
// come between.
func TestPostfixReuse(t *testing.T) {
	log := lab.postfix.log(t)
	r := deliver(t, "-n", "300", "-c", "1", "-ca", lab.trusted.file, "-config", via(named(postfixName, lab.postfix.smtp)),
		"-egress-path", path(nil), "-from", "sender@sender.test", "-to", "user@discard.test", messageFile(t, smallMessage))
	r.exited(t, 0)
	if r.summary.Delivered != 300 || r.summary.Sessions != 1 {
		t.Errorf("the summary is %+v, want 300 messages over one session", r.summary)
	}
	d := log.dialogues(t, 1)[0]
	for _, command := range []string{"mail", "rcpt", "bdat"} {
		if d[command] != "300" {
			t.Errorf("Postfix saw %v, want %s=300", d, command)
		}
	}
	if d["quit"] != "1" {
		t.Errorf("Postfix saw %v, want a QUIT", d)
	}
}

// Ctrl-C in the middle of a million messages: the program ends soon, tells what became of every
// recipient, and the sink agrees.
func TestSinkInterrupted(t *testing.T) {
	const million = 1_000_000
	s := startSink(t)
	cmd := exec.CommandContext(t.Context(), lab.program, "-json", "-n", "1000000", "-c", "50",
		"-config", via("[127.0.0.1]:"+portOf(s.address)), "-egress-path", path(nil),
		"-from", "sender@sender.test", "-to", "user@example.test", messageFile(t, smallMessage))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	mustSee(t, "the first of the messages", func() bool { return s.counts(t).messages > 20_000 })
	pressed := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if took := time.Since(pressed); took > 2*time.Second {
		t.Errorf("it took %s to end, want at most 2 s", took)
	}
	r := &run{status: cmd.ProcessState.ExitCode()}
	r.read(t, stdout.String(), stderr.String())
	stdout.Reset() // too much to print
	r.stdout = ""
	r.exited(t, 75)

	sum := r.summary
	if sum.Messages != million || sum.Recipients != million || sum.Delivered+sum.Transient+sum.Permanent+sum.Unsent != million {
		t.Errorf("the summary is %+v, want %d recipients in the four counts", sum, million)
	}
	counted := map[string]int{}
	doubts := 0
	for i := range r.results {
		counted[r.results[i].Status]++
		if r.results[i].MaybeDelivered {
			doubts++
		}
	}
	if counted["delivered"] != sum.Delivered || counted["transient"] != sum.Transient || counted["permanent"] != 0 {
		t.Errorf("the lines say %v, the summary %+v", counted, sum)
	}
	if got := s.settled(t); got.messages < sum.Delivered || got.messages > sum.Delivered+doubts {
		t.Errorf("the sink has %d messages, want %d, and up to %d more that may have been delivered", got.messages, sum.Delivered, doubts)
	}
}

// onePath is an Egress with one path for all.
type onePath struct{ path delivery.EgressPath }

func (o onePath) EgressPool(_ context.Context, name string) (delivery.EgressPool, error) {
	return delivery.EgressPool{Name: name}, nil
}

func (o onePath) EgressSource(_ context.Context, name string) (delivery.EgressSource, error) {
	return delivery.EgressSource{Name: name}, nil
}

func (o onePath) EgressPath(context.Context, string, string, string) (delivery.EgressPath, error) {
	return patient(o.path), nil
}

// patient gives real servers the time that a busy machine may need, where the default is a few seconds.
func patient(path delivery.EgressPath) delivery.EgressPath {
	path.RSETTimeout = cmp.Or(path.RSETTimeout, delivery.Duration(time.Minute))
	path.STARTTLSTimeout = cmp.Or(path.STARTTLSTimeout, delivery.Duration(time.Minute))
	return path
}

// listProtocol is SMTP to one address.
func listProtocol(t *testing.T, rt *delivery.Runtime, address string) delivery.Protocol {
	t.Helper()
	protocol, err := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		SMTP: &delivery.SMTP{MXList: []delivery.MXEntry{{Name: "sink.test", Addr: address}}}}})
	if err != nil {
		t.Fatal(err)
	}
	// Close may end before; the runtime must not outlive the test when it fails.
	t.Cleanup(func() { rt.Close(context.Background()) })
	return protocol
}

// message is a small message.
func message(to string) *delivery.Message {
	return &delivery.Message{ID: "1", From: "sender@sender.test", Recipients: []delivery.Recipient{{Address: to}},
		Body: delivery.Bytes(smallMessage)}
}

// countingDialer counts connections from before they are opened until they are closed.
type countingDialer struct {
	mu         sync.Mutex
	open, peak int
}

func (c *countingDialer) dial(ctx context.Context, to delivery.DialRequest) (net.Conn, error) {
	c.add(1)
	conn, err := new(net.Dialer).DialContext(ctx, to.Network, to.Address)
	if err != nil {
		c.add(-1)
		return nil, err
	}
	return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { c.add(-1) })}, nil
}

func (c *countingDialer) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open += n
	c.peak = max(c.peak, c.open)
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.closed()
	return err
}

// nothing is the prohibited_hosts that lets loopback through.
var nothing = []netip.Prefix{}
