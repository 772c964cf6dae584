package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mtadelivery/delivery"
)

// envelope is a message to send, any number of times.
type envelope struct {
	from  string
	to    []delivery.Recipient
	queue delivery.QueueName // the zero name: a queue for each domain
	meta  map[string]any
	body  delivery.Body
	where string // for errors: the line of the batch

	// host.split fills these in.
	calls []call
	kinds []string // the protocol of each recipient's queue
}

// call is the part of an envelope that goes to one queue: one call of Deliver.
type call struct {
	queue      *queue
	recipients []delivery.Recipient
	places     []int // where each stands in the envelope
}

// message is the call as Deliver takes it.
func (c *call) message(e *envelope, id string) *delivery.Message {
	return &delivery.Message{
		ID: id, From: e.from, Recipients: c.recipients, Queue: c.queue.name, Meta: e.meta, Body: e.body}
}

// dataError is a message that cannot be sent as it is.
type dataError struct {
	where string
	err   error
}

func (e *dataError) Error() string { return e.where + e.err.Error() }
func (e *dataError) Unwrap() error { return e.err }

// readEnvelopes reads what is to be sent.
func readEnvelopes(ctx context.Context, o *options, stdin io.Reader) ([]*envelope, error) {
	if o.batch != "" {
		return readBatch(o.batch)
	}
	var envelopes []*envelope
	for _, name := range o.messages {
		body, err := readBody(ctx, name, stdin, o.copies > 1)
		if err != nil {
			return nil, err
		}
		e := &envelope{from: o.from, to: recipients(o.to), meta: o.meta, body: body}
		if o.queue != "" {
			e.queue = delivery.ParseQueueName(o.queue)
		}
		if err := e.validate(); err != nil {
			return nil, err
		}
		envelopes = append(envelopes, e)
	}
	return envelopes, nil
}

func recipients(addresses []string) []delivery.Recipient {
	list := make([]delivery.Recipient, len(addresses))
	for i, a := range addresses {
		list[i].Address = a
	}
	return list
}

// validate refuses an envelope of the command line that can never be sent, before anything is.
func (e *envelope) validate() error {
	err := (&delivery.Message{From: e.from, Recipients: e.to, Body: e.body}).Validate()
	wrong, ok := errors.AsType[*delivery.MessageError](err)
	if !ok {
		return err
	}
	where := ""
	switch {
	case wrong.Field == "From":
		where = "-from: "
	case strings.HasPrefix(wrong.Field, "Recipients"):
		where = "-to: "
	}
	return &dataError{where, errors.New(wrong.Reason)}
}

// readBody finds the content of a message. What is sent again and again is held in memory.
func readBody(ctx context.Context, name string, stdin io.Reader, hold bool) (delivery.Body, error) {
	switch {
	case name == "-":
		content, err := readAll(ctx, stdin)
		return delivery.Bytes(content), err
	case hold:
		content, err := os.ReadFile(name)
		return delivery.Bytes(content), err
	}
	return fileBody(name)
}

// fileBody is a file that can be opened, at least now.
func fileBody(name string) (delivery.Body, error) {
	body, err := delivery.File(name)
	if err != nil {
		return nil, err
	}
	r, err := body.Open()
	if err != nil {
		return nil, err
	}
	return body, r.Close()
}

// readAll reads standard input, which may be a terminal that Ctrl-C does not close.
func readAll(ctx context.Context, stdin io.Reader) ([]byte, error) {
	type input struct {
		content []byte
		err     error
	}
	done := make(chan input, 1)
	go func() {
		content, err := io.ReadAll(stdin)
		done <- input{content, err}
	}()
	select {
	case in := <-done:
		if in.err != nil {
			return nil, &fs.PathError{Op: "read", Path: "standard input", Err: in.err}
		}
		return in.content, nil
	case <-ctx.Done():
		return nil, &interrupted{context.Cause(ctx)}
	}
}

// batchLine is one line of a batch.
type batchLine struct {
	From  *string        `json:"from"`
	To    []string       `json:"to"`
	File  string         `json:"file"`
	Queue string         `json:"queue"`
	Meta  map[string]any `json:"meta"`
}

// readBatch reads a whole batch before anything is sent, so that a mistake in its last line is found
// while nothing has happened yet. Addresses are not looked at: one that can never be sent is a result
// of its own.
func readBatch(name string) ([]*envelope, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	bodies := map[string]delivery.Body{}
	var envelopes []*envelope
	number := 0
	for line := range bytes.Lines(text) {
		number++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		where := fmt.Sprintf("%s:%d: ", name, number)
		l, err := parseBatchLine(line)
		if err != nil {
			return nil, &dataError{where, err}
		}
		file := l.File
		if !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(name), file)
		}
		if bodies[file] == nil {
			if bodies[file], err = fileBody(file); err != nil {
				return nil, fmt.Errorf("%sfile: %w", where, err)
			}
		}
		e := &envelope{from: *l.From, to: recipients(l.To), meta: l.Meta, body: bodies[file], where: where}
		if l.Queue != "" {
			e.queue = delivery.ParseQueueName(l.Queue)
		}
		envelopes = append(envelopes, e)
	}
	return envelopes, nil
}

func parseBatchLine(text []byte) (*batchLine, error) {
	l := &batchLine{}
	if err := unmarshalExact(text, l); err != nil {
		return nil, err
	}
	switch {
	case l.From == nil:
		return nil, errors.New(`from is missing: want an address, or "" for the null sender`)
	case len(l.To) == 0:
		return nil, errors.New("to is missing or empty: want at least one recipient")
	case l.File == "":
		return nil, errors.New("file is missing: want the file that has the message")
	}
	for key := range l.Meta {
		l.Meta[key] = plain(l.Meta[key])
	}
	return l, nil
}
