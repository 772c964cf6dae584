package smtpclient

import (
	"strconv"
	"strings"
	"time"
)

// extensions are the keywords that a peer offered, in upper case, and what stood behind them.
type extensions map[string]string

// parseExtensions reads the text of a reply to EHLO: the first line greets, each other one begins with a
// keyword. Keywords come in any case (RFC 5321 section 2.4). Lines that hold no keyword are passed over.
func parseExtensions(text []byte) extensions {
	ext := extensions{}
	_, lines, _ := strings.Cut(string(text), "\n")
	for line := range strings.SplitSeq(lines, "\n") {
		end := strings.IndexFunc(line, func(c rune) bool { return !isKeywordRune(c) })
		if end < 0 {
			end = len(line)
		}
		if end == 0 {
			continue
		}
		keyword := strings.ToUpper(line[:end])
		// "AUTH=LOGIN" is an old spelling of "AUTH LOGIN".
		params := safeText([]byte(strings.Trim(line[end:], " =\t\r")), maxReplyLine)
		if keyword == "AUTH" && ext.has(keyword) { // some send both spellings
			params = ext[keyword] + " " + params
		}
		ext[keyword] = params
	}
	return ext
}

func isKeywordRune(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
}

func (e extensions) has(keyword string) bool {
	_, ok := e[keyword]
	return ok
}

// maxSize is the largest message that the peer takes; 0 where it names none (RFC 1870 section 4).
func (e extensions) maxSize() int64 {
	n, err := strconv.ParseInt(e["SIZE"], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// limit is a limit that the peer names with LIMITS (RFC 9422): "RCPTMAX", "MAILMAX", "RCPTDOMAINMAX". It
// is 0 where it names none, or one that is no number of one to six digits above 0.
func (e extensions) limit(name string) int {
	for word := range strings.FieldsSeq(e["LIMITS"]) {
		key, value, _ := strings.Cut(word, "=")
		if !strings.EqualFold(key, name) {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 32); err == nil && len(value) <= 6 {
			return int(n)
		}
	}
	return 0
}

// minDeliverBy is the shortest time in which the peer will promise to deliver or return a message (RFC
// 2852 section 3); 0 where it names none.
func (e extensions) minDeliverBy() time.Duration {
	n, err := strconv.ParseUint(e["DELIVERBY"], 10, 32)
	if err != nil || len(e["DELIVERBY"]) > 9 {
		return 0
	}
	return time.Duration(n) * time.Second
}
