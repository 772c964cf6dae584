package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery"
)

const maxMessage = 32 << 20

// newServer takes messages in over SMTP and puts them into the queue.
func newServer(q *queue, name string) *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &session{queue: q}, nil }))
	s.Domain = name
	s.MaxMessageBytes = maxMessage
	s.ReadTimeout, s.WriteTimeout = 5*time.Minute, time.Minute
	s.EnableSMTPUTF8 = true
	s.EnableDSN = true
	return s
}

// session is one connection; what go-smtp parsed of the envelope goes on as it is.
type session struct {
	queue   *queue
	from    string
	options *smtp.MailOptions
	rcpts   []delivery.Recipient
}

func (s *session) Reset()        { s.from, s.options, s.rcpts = "", nil, nil }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, options *smtp.MailOptions) error {
	s.from, s.options = from, options
	return nil
}

// Rcpt refuses at once what could never be sent on.
func (s *session) Rcpt(to string, options *smtp.RcptOptions) error {
	rcpt := delivery.Recipient{Address: to, Options: options}
	check := delivery.Message{From: s.from, MailOptions: s.options, Recipients: []delivery.Recipient{rcpt}, Body: delivery.Bytes{}}
	if err := check.Validate(); err != nil {
		return &smtp.SMTPError{Code: 553, EnhancedCode: smtp.EnhancedCode{5, 1, 3}, Message: err.Error()}
	}
	s.rcpts = append(s.rcpts, rcpt)
	return nil
}

// Data splits the message by domain, because a queue is for one.
func (s *session) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	byDomain := map[string]*delivery.Message{}
	var order []string
	for _, rcpt := range s.rcpts {
		domain := strings.ToLower(rcpt.Address[strings.LastIndexByte(rcpt.Address, '@')+1:])
		msg := byDomain[domain]
		if msg == nil {
			msg = &delivery.Message{From: s.from, MailOptions: s.options, Meta: map[string]any{}, Body: delivery.Bytes(content)}
			byDomain[domain] = msg
			order = append(order, domain)
		}
		msg.Recipients = append(msg.Recipients, rcpt)
	}
	now := time.Now()
	for i, domain := range order {
		msg := byDomain[domain]
		msg.ID = fmt.Sprintf("%x.%d", now.UnixNano(), i)
		s.queue.add(&item{msg: msg, created: now, due: now})
	}
	return nil
}
