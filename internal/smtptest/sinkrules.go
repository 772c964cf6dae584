package smtptest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// has reports whether a parameter is among those behind an address.
func has(params []byte, param string) bool {
	for len(params) > 0 {
		var word []byte
		word, params, _ = bytes.Cut(params, []byte(" "))
		if bytes.EqualFold(word, []byte(param)) {
			return true
		}
	}
	return false
}

// verdict is the reply to a recipient, "" where it is accepted.
func (s *Sink) verdict(address []byte) string {
	if s.Refuse != nil {
		return s.Refuse(string(local(address)))
	}
	return ruled(address)
}

func local(address []byte) []byte {
	if at := bytes.LastIndexByte(address, '@'); at >= 0 {
		return address[:at]
	}
	return address
}

// ruled is the reply that an address asks for, see [Sink].
func ruled(address []byte) string {
	if len(address) < 3 || bytes.IndexByte([]byte("tpf45"), address[0]) < 0 {
		return "" // most, without a copy
	}
	local := string(local(address))
	switch {
	case strings.HasPrefix(local, "tempfail"):
		return "450 4.2.0 " + local + " is not available now"
	case strings.HasPrefix(local, "permfail"):
		return "550 5.1.1 " + local + " is not known"
	case strings.HasPrefix(local, "full"):
		return "452 too many recipients"
	case strings.HasPrefix(local, "421"):
		return "421 4.3.2 closing"
	case len(local) > 3 && local[3] == '-' && local[0] >= '4' && isDigits(local[:3]):
		return local[:3] + " as asked"
	}
	return ""
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// limits are those of an offered LIMITS (RFC 9422) that a session keeps; 0 is none.
type limits struct {
	mails, rcpts int
}

func limitsOf(offer []string) (l limits) {
	for _, line := range offer {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "LIMITS" {
			continue
		}
		for _, word := range words[1:] {
			name, value, _ := strings.Cut(word, "=")
			n, _ := strconv.Atoi(value)
			switch name {
			case "MAILMAX":
				l.mails = n
			case "RCPTMAX":
				l.rcpts = n
			}
		}
	}
	return l
}

// offered reports whether every parameter belongs to an extension that is offered.
func (c *sinkSession) offered(params []byte, extension func(keyword, value []byte) string) bool {
	for len(params) > 0 {
		var word []byte
		word, params, _ = bytes.Cut(params, []byte(" "))
		keyword, value, _ := bytes.Cut(word, []byte("="))
		if e := extension(keyword, value); e == "" || !c.sink.knows(e) {
			return false
		}
	}
	return true
}

// knows reports whether an extension is in the reply to EHLO.
func (s *Sink) knows(extension string) bool {
	switch extension {
	case "SIZE", "8BITMIME", "BINARYMIME", "SMTPUTF8", "DSN":
		return s.offers(extension)
	case "AUTH":
		return s.Username != ""
	}
	return slices.ContainsFunc(s.Offer, func(line string) bool {
		keyword, _, _ := strings.Cut(line, " ")
		return strings.EqualFold(keyword, extension)
	})
}

// mailExtension is the extension that a parameter of MAIL belongs to.
func (c *sinkSession) mailExtension(keyword, value []byte) string {
	var upper [16]byte
	switch string(upperOf(upper[:], keyword)) {
	case "SIZE":
		return "SIZE"
	case "BODY":
		if bytes.EqualFold(value, []byte("BINARYMIME")) {
			return "BINARYMIME"
		}
		return "8BITMIME"
	case "SMTPUTF8":
		return "SMTPUTF8"
	case "RET", "ENVID":
		return "DSN"
	case "AUTH":
		return "AUTH"
	case "REQUIRETLS":
		if c.secure { // RFC 8689 section 2
			return "REQUIRETLS"
		}
	case "BY":
		return "DELIVERBY"
	case "MT-PRIORITY":
		return "MT-PRIORITY"
	}
	return ""
}

// rcptExtension is the extension that a parameter of RCPT belongs to.
func rcptExtension(keyword, _ []byte) string {
	var upper [16]byte
	switch string(upperOf(upper[:], keyword)) {
	case "NOTIFY", "ORCPT":
		return "DSN"
	case "RRVS":
		return "RRVS"
	}
	return ""
}

// upperOf copies a word to room in upper case. A longer one than fits is none that we know.
func upperOf(room, word []byte) []byte {
	if len(word) > len(room) {
		return nil
	}
	for i, b := range word {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		room[i] = b
	}
	return room[:len(word)]
}
