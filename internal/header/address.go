package header

import (
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"unicode/utf8"

	"github.com/mtadelivery/delivery/internal/address"
)

// maxMailbox bounds one mailbox, with its name and comments, in bytes.
const maxMailbox = 8 << 10

// maxAddresses bounds a list of them: mailboxes and groups together.
const maxAddresses = 1 << 16

// Mailbox is an address in a field, with the name of who has it.
type Mailbox struct {
	// Name is decoded; it is empty where there is none.
	Name string
	// User is the local part without quotes and escapes.
	User string
	// Domain is as it is written.
	Domain string
}

// Email is user@domain with the user quoted where it must be.
func (m Mailbox) Email() string { return address.Address{Local: m.User, Domain: m.Domain}.String() }

// Entry is an element of a list of addresses: a mailbox, or a group of them.
type Entry struct {
	// IsGroup tells which it is. A group has a Name, which may be empty, and Members, which may be none;
	// else there is one member and the Name is its own.
	IsGroup bool
	Name    string
	Members []Mailbox
}

// Addresses takes the value for a list of addresses (RFC 5322 section 3.4), with what that section's
// grammar calls obsolete as far as it is in use: empty elements and dots in names, but no source routes.
// Bytes of a name that are not UTF-8 become U+FFFD.
func (f Field) Addresses() ([]Entry, error) {
	p := addressParser{text: strings.ToValidUTF8(unfold(f.value), "\uFFFD")}
	if err := p.list(); err != nil {
		return nil, fmt.Errorf("the header %s has no list of addresses: %w", f.name, err)
	}
	return p.entries, nil
}

// addressParser cuts a list into mailboxes and leaves these to net/mail, which knows the names and the
// addresses, but forgets groups.
type addressParser struct {
	text    string
	entries []Entry
	count   int  // of mailboxes and groups
	group   bool // the last entry is a group that has not ended
}

func (p *addressParser) list() error {
	for p.text != "" {
		element, separator := p.cut()
		element = strings.TrimSpace(element)
		if element != "" || separator == ':' {
			p.count++
		}
		if p.count > maxAddresses {
			return fmt.Errorf("there are more than %d addresses and groups", maxAddresses)
		}
		if separator == ':' {
			if err := p.beginGroup(element); err != nil {
				return err
			}
			continue
		}
		if err := p.mailbox(element); err != nil {
			return err
		}
		if separator == ';' {
			if !p.group {
				return errors.New("a semicolon ends a group that did not begin")
			}
			p.group = false
		}
	}
	if p.group {
		return errors.New("a group does not end")
	}
	return nil
}

// cut takes an element off the text, and the separator after it; 0 at the end of the text. A separator in
// quotes, in a comment, in angle brackets or in a domain literal is none.
func (p *addressParser) cut() (element string, separator byte) {
	comments, closing := 0, byte(0) // the comments that we are in, or what ends the quotes or literal
	angle := false
	for i := 0; i < len(p.text); i++ {
		c := p.text[i]
		switch {
		case c == '\\' && (comments > 0 || closing == '"'):
			i++
		case closing == '"' || closing == ']':
			if c == closing {
				closing = 0
			}
		case c == '(':
			comments++
		case comments > 0:
			if c == ')' {
				comments--
			}
		case c == '"':
			closing = '"'
		case c == '[':
			closing = ']'
		case c == '<', c == '>':
			angle = c == '<'
		case !angle && (c == ',' || c == ';' || c == ':'):
			element, p.text = p.text[:i], p.text[i+1:]
			return element, c
		}
	}
	element, p.text = p.text, ""
	return element, 0
}

func (p *addressParser) beginGroup(name string) error {
	if p.group {
		return errors.New("a group is inside another")
	}
	if len(name) > maxMailbox {
		return fmt.Errorf("a name is longer than %d bytes", maxMailbox)
	}
	// The grammar of a display name is that of a mailbox's: it is lent an address.
	if name != "" {
		named, err := (&mail.AddressParser{WordDecoder: &tolerant}).Parse(name + " <a@b>")
		if err != nil {
			return plain(err)
		}
		name = named.Name
	}
	p.entries = append(p.entries, Entry{IsGroup: true, Name: name})
	p.group = true
	return nil
}

func (p *addressParser) mailbox(text string) error {
	switch {
	case text == "":
		return nil
	case len(text) > maxMailbox:
		return fmt.Errorf("an address is longer than %d bytes", maxMailbox)
	}
	parsed, err := (&mail.AddressParser{WordDecoder: &tolerant}).Parse(text)
	if err != nil {
		return plain(err)
	}
	m := Mailbox{Name: parsed.Name}
	m.User, m.Domain = splitSpec(parsed.Address)
	if strings.ContainsRune(parsed.Address, utf8.RuneError) {
		return errors.New("an address is not UTF-8")
	}
	if p.group {
		last := &p.entries[len(p.entries)-1]
		last.Members = append(last.Members, m)
	} else {
		p.entries = append(p.entries, Entry{Name: m.Name, Members: []Mailbox{m}})
	}
	return nil
}

// splitSpec splits at the last "@" that is not in a domain literal.
func splitSpec(spec string) (user, domain string) {
	at := strings.LastIndexByte(spec, '@')
	if literal := strings.LastIndex(spec, "@["); literal >= 0 && strings.HasSuffix(spec, "]") {
		at = literal
	}
	return spec[:at], spec[at+1:]
}

// plain takes the name of the package off a parser's error.
func plain(err error) error { return errors.New(strings.TrimPrefix(err.Error(), "mail: ")) }
