package mtasts

import (
	"errors"
	"fmt"
	"strings"
)

// ParseRecord finds the record that says that a domain has a policy among the TXT records of
// _mta-sts.DOMAIN, each with its strings joined (RFC 8461 section 3.1), and returns its id: 1 to 32
// letters and digits. Records of anything else are passed over. None is not an error; a broken one, or
// more than one, is, and the domain is then to be taken as one without a policy to be discovered. Fields
// with other names are ignored, and where a field is repeated the first counts.
func ParseRecord(txts []string) (id string, found bool, err error) {
	record, n := "", 0
	for _, txt := range txts {
		if strings.HasPrefix(txt, "v=STSv1;") {
			record, n = txt, n+1
		}
	}
	switch n {
	case 0:
		return "", false, nil
	case 1:
		id, err = parseRecord(record)
		return id, err == nil, err
	}
	return "", false, fmt.Errorf("there are %d MTA-STS records", n)
}

func parseRecord(record string) (id string, err error) {
	fields := strings.Split(strings.TrimRight(record, " \t"), ";")
	if fields[len(fields)-1] == "" {
		fields = fields[:len(fields)-1]
	}
	for _, f := range fields[1:] {
		name, value, _ := strings.Cut(strings.Trim(f, " \t"), "=")
		switch {
		case !isFieldName(name) || value == "" || !isText(value):
			return "", fmt.Errorf("%q in the MTA-STS record is not a field", excerpt(f))
		case name == "id" && id == "":
			if !isID(value) {
				return "", fmt.Errorf("id %q of the MTA-STS record is not 1 to 32 letters and digits", excerpt(value))
			}
			id = value
		}
	}
	if id == "" {
		return "", errors.New("the MTA-STS record has no id")
	}
	return id, nil
}

func isID(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		if !isAlphaNum(s[i]) {
			return false
		}
	}
	return true
}
