package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// ednsSize is what passes every path without IP fragments, which can be forged: 1280, the least MTU
	// of IPv6, without the headers.
	ednsSize   = 1232
	headerSize = 12 // of every message (RFC 1035 section 4.1.1)
	// udpBuffer has room for servers that send more than they were asked for.
	udpBuffer = 4096
)

// errMalformed: the response is to our question, but cannot be read.
var errMalformed = errors.New("malformed response")

// newQuery is a query with an id of its own. AD asks for the AD bit in the response, without the
// signatures (RFC 6840 section 5.7).
func newQuery(q question, edns bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(absolute(q.name), uint16(q.typ))
	m.AuthenticatedData = true
	if edns {
		m.SetEdns0(ednsSize, false)
	}
	return m
}

// exchange sends query over a connection of its own, so that each has a source port that nobody can
// foretell (RFC 5452 section 9.2), and returns the response to it. What is none is passed over until
// ctx ends: a forger must not be able to make a lookup fail.
func (c *Client) exchange(ctx context.Context, network, server string, query *dns.Msg) (*dns.Msg, error) {
	conn, err := c.dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()

	packet, err := query.Pack()
	if err != nil {
		return nil, err
	}
	read := datagrams(conn)
	if network == "tcp" { // RFC 1035 section 4.2.2: two bytes of length first
		packet = append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
		read = frames(conn)
	}
	if _, err := conn.Write(packet); err != nil {
		return nil, err
	}
	for {
		packet, err := read()
		if err != nil {
			return nil, err
		}
		if m, ours, err := parseResponse(packet, query); ours {
			return m, err
		}
	}
}

func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

func datagrams(conn net.Conn) func() ([]byte, error) {
	buf := make([]byte, udpBuffer)
	return func() ([]byte, error) {
		n, err := conn.Read(buf)
		return buf[:n], err
	}
}

func frames(conn net.Conn) func() ([]byte, error) {
	return func() ([]byte, error) {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return nil, err
		}
		packet := make([]byte, binary.BigEndian.Uint16(size[:]))
		_, err := io.ReadFull(conn, packet)
		return packet, err
	}
}

// parseResponse reads a message and says whether it is the response to query (RFC 5452 section 9.1): by
// id, QR, opcode and question. If it is, but its records cannot be read, the error is errMalformed.
func parseResponse(packet []byte, query *dns.Msg) (m *dns.Msg, ours bool, err error) {
	if len(packet) < headerSize || binary.BigEndian.Uint16(packet) != query.Id {
		return nil, false, nil // a flood of guesses costs little
	}
	m = new(dns.Msg)
	err = m.Unpack(packet)
	if !m.Response || m.Opcode != dns.OpcodeQuery {
		return nil, false, nil
	}
	if len(m.Question) == 0 && refusal(m.Rcode) {
		// Servers that do not understand or do not want a query often send back the header alone. It
		// ends the try at this server and can never be an answer.
		return m, true, nil
	}
	if len(m.Question) != 1 || !sameQuestion(m.Question[0], query.Question[0]) {
		return nil, false, nil
	}
	if err != nil || !complete(packet, m) {
		// What is truncated may end in the middle of a record.
		return &dns.Msg{MsgHdr: m.MsgHdr}, true, errMalformed
	}
	return m, true, nil
}

func refusal(rcode int) bool {
	switch rcode {
	case dns.RcodeFormatError, dns.RcodeServerFailure, dns.RcodeNotImplemented, dns.RcodeRefused:
		return true
	}
	return false
}

func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

// complete tells whether m has all the records that the header of packet promises. The parser takes the
// end of the packet for the end of the records, which would make "no such record" of a packet that was
// cut.
func complete(packet []byte, m *dns.Msg) bool {
	for i, n := range []int{len(m.Question), len(m.Answer), len(m.Ns), len(m.Extra)} {
		if int(binary.BigEndian.Uint16(packet[4+2*i:])) != n {
			return false
		}
	}
	return true
}
