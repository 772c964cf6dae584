package smtpclient

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestExtensions(t *testing.T) {
	for text, want := range map[string]string{
		"":                                        "",
		"mx SIZE 5":                               "",
		"mx\nSIZE 5\n8BITMIME":                    "8BITMIME= SIZE=5",
		"mx\nsize 5\n8bitMime\npipelining":        "8BITMIME= PIPELINING= SIZE=5",
		"mx\nSIZE=5\nSIZE\t7\n":                   "SIZE=7",
		"mx\n\n \n*\nX-\xff 1\nDSN ":              "DSN= X-=\\xff 1",
		"mx\nAUTH PLAIN\nAUTH=LOGIN":              "AUTH=PLAIN LOGIN",
		"mx\nauth=login":                          "AUTH=login",
		"mx\nSTARTTLS \x1b[31m":                   "STARTTLS=\\x1b[31m",
		"mx\nLIMITS RCPTMAX=20 MAILMAX=5\nXVERP=": "LIMITS=RCPTMAX=20 MAILMAX=5 XVERP=",
	} {
		ext := parseExtensions([]byte(text))
		var got []string
		for _, keyword := range slices.Sorted(maps.Keys(ext)) {
			got = append(got, keyword+"="+ext[keyword])
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	for params, want := range map[string]string{
		"":                                     "0 0 0",
		"RCPTMAX=100":                          "100 0 0",
		"rcptmax=100 MailMax=5":                "100 5 0",
		"RCPTDOMAINMAX=1 FUTURE X=Y MAILMAX=2": "0 2 1",
		"RCPTMAX=0 MAILMAX=-1":                 "0 0 0",
		"RCPTMAX= MAILMAX=x RCPTDOMAINMAX":     "0 0 0",
		"RCPTMAX=999999 MAILMAX=1000000":       "999999 0 0",
		"RCPTMAX=99999999999999999999":         "0 0 0",
		"RCPTMAX=+5 MAILMAX=5_0":               "0 0 0",
	} {
		s := &Session{cfg: &Config{}, ext: parseExtensions([]byte("mx\nlimits " + params))}
		if got := fmt.Sprint(s.ext.limit("RCPTMAX"), s.ext.limit("MAILMAX"), s.ext.limit("RCPTDOMAINMAX")); got != want {
			t.Errorf("%q: got %s, want %s", params, got, want)
		}
	}
}

func TestMinDeliverBy(t *testing.T) {
	for params, want := range map[string]time.Duration{"": 0, "60": time.Minute, "-60": 0, "x": 0, "999999999": maxBy, "1000000000": 0} {
		if got := (extensions{"DELIVERBY": params}).minDeliverBy(); got != want {
			t.Errorf("%q: %v, want %v", params, got, want)
		}
	}
}
