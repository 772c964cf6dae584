package dane

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// The registries of RFC 7218, as far as SMTP uses them (RFC 7672 section 3.1).
const (
	usageTA = 2 // DANE-TA: the issuer
	usageEE = 3 // DANE-EE: the server itself

	selectCertificate = 0
	selectKey         = 1

	matchFull   = 0
	matchSHA256 = 1
	matchSHA512 = 2
)

const (
	// maxRecords is how many records of a host are matched. A rotation of two certificates under two
	// authorities has eight; a DNS message has room for more than a thousand.
	maxRecords = 32
	// maxReasons is how many unusable records are explained.
	maxReasons = 4
)

// RecordError says why a TLSA record is not used.
type RecordError struct {
	Record resolver.TLSA
	Reason string
}

func (e *RecordError) Error() string { return "TLSA " + parameters(e.Record) + ": " + e.Reason }

// parameters are the record's numbers, by which people call its kind.
func parameters(r resolver.TLSA) string {
	return fmt.Sprintf("%d %d %d", r.Usage, r.Selector, r.MatchingType)
}

// Usable returns the records to match, in their order: those that SMTP knows and that are well-formed (RFC
// 7672 section 3.1), of the digests of one usage and selector only the strongest (RFC 7671 section 9), and
// no more than 32. If there are none, the error says why, of the first few, as joined [*RecordError]s.
func Usable(records []resolver.TLSA) ([]resolver.TLSA, error) {
	var usable []resolver.TLSA
	var reasons []error
	for _, r := range records {
		if reason := unfit(r); reason == "" {
			usable = append(usable, r)
		} else if len(reasons) < maxReasons {
			reasons = append(reasons, &RecordError{r, reason})
		}
	}
	if len(usable) == 0 {
		return nil, errors.Join(reasons...)
	}
	strongest := strongestDigests(usable)
	usable = slices.DeleteFunc(usable, func(r resolver.TLSA) bool {
		return r.MatchingType != matchFull && r.MatchingType != strongest[kind{r.Usage, r.Selector}]
	})
	return usable[:min(len(usable), maxRecords)], nil
}

// kind is what digests are alternatives within.
type kind struct{ usage, selector uint8 }

// strongestDigests returns the best matching type for each kind that has digests. A record that is not
// usable has no say: a broken SHA2-512 does not put a good SHA2-256 aside.
func strongestDigests(usable []resolver.TLSA) map[kind]uint8 {
	strongest := make(map[kind]uint8)
	for _, r := range usable {
		k := kind{r.Usage, r.Selector}
		strongest[k] = max(strongest[k], r.MatchingType) // the numbers are in the order of strength
	}
	return strongest
}

// unfit returns why a record cannot be used; empty if it can.
func unfit(r resolver.TLSA) (reason string) {
	switch r.Usage {
	case usageTA, usageEE:
	case 0, 1:
		return "the usage asks for a public authority, which SMTP has none of" // RFC 7672 section 3.1.3
	default:
		return "unknown usage"
	}
	if r.Selector != selectCertificate && r.Selector != selectKey {
		return "unknown selector"
	}
	switch r.MatchingType {
	case matchFull:
		return malformed(r)
	case matchSHA256:
		return ofLength(r.Data, sha256.Size)
	case matchSHA512:
		return ofLength(r.Data, sha512.Size)
	}
	return "unknown matching type"
}

func ofLength(digest []byte, n int) (reason string) {
	if len(digest) != n {
		return fmt.Sprintf("the digest has %d bytes instead of %d", len(digest), n)
	}
	return ""
}

// malformed looks at a certificate or key in full. A key need not be of an algorithm that is known here: it
// is no more unusable than its digest would be, which does not tell.
func malformed(r resolver.TLSA) (reason string) {
	if r.Selector == selectCertificate {
		if _, err := x509.ParseCertificate(r.Data); err != nil {
			return fmt.Sprintf("not a certificate: %v", err)
		}
		return ""
	}
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	rest, err := asn1.Unmarshal(r.Data, &key)
	switch {
	case err != nil:
		return fmt.Sprintf("not a public key: %v", err)
	case len(rest) > 0:
		return "not a public key: there is more behind it"
	}
	return ""
}

// matches tells whether a certificate is what the record describes (RFC 6698 section 2.1).
func matches(r resolver.TLSA, cert *x509.Certificate) bool {
	selected := cert.Raw
	if r.Selector == selectKey {
		selected = cert.RawSubjectPublicKeyInfo
	}
	if len(selected) == 0 || r.Selector > selectKey {
		return false
	}
	switch r.MatchingType {
	case matchFull:
		return string(r.Data) == string(selected)
	case matchSHA256:
		sum := sha256.Sum256(selected)
		return string(r.Data) == string(sum[:])
	case matchSHA512:
		sum := sha512.Sum512(selected)
		return string(r.Data) == string(sum[:])
	}
	return false
}
