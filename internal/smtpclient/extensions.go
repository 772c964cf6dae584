package smtpclient

import (
	"strconv"
	"strings"
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
		// "AUTH=LOGIN" is an old spelling of "AUTH LOGIN".
		params := strings.Trim(line[end:], " =\t\r")
		ext[strings.ToUpper(line[:end])] = safeText([]byte(params), maxReplyLine)
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
