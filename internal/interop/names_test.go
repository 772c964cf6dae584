//go:build interop && linux

package interop

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
)

// nameServers are the resolvers that the tests share. They have the same zones:
//
//	signed.test           signed
//	insecure.signed.test  not signed, and its parent says so
//	child.signed.test     signed, and its parent says with which key
//	astray.signed.test    signed, but with another key than its parent says
//	plain.test            not signed
//	distrusted.test       signed, but not with the key that the resolvers trust in
//	lame.test             there is nobody to ask
type nameServers struct {
	*unbound          // validates, and gives reasons
	silent   *unbound // validates, and gives none
	careless *unbound // does not validate
}

// commonNames are in signed.test and in plain.test.
const commonNames = `
@ MX 20 mx2
@ MX 10 mx1
mx1 A 127.0.0.1
mx1 AAAA ::1
mx2 A 127.0.0.2
mx2 A 127.0.0.3
implicit A 127.0.0.1
null MX 0 .
nullmixed MX 0 .
nullmixed MX 10 mx1
cname CNAME implicit
chain1 CNAME chain2
chain2 CNAME chain3
chain3 CNAME @
loop1 CNAME loop2
loop2 CNAME loop1
self CNAME self
dangling CNAME nowhere
missing CNAME text
dname DNAME renamed
host.renamed A 127.0.0.1
*.many MX 10 mx1
text TXT "one" " record"
text TXT "caf\195\169 \"\092"
brief 0 MX 10 mx1
_25._tcp.mx1 TLSA 3 1 1 0123456789abcdef
`

// signedNames are in signed.test beside these, and signedFlaws are what is wrong there.
const signedNames = `
insecure NS ns.insecure
ns.insecure A 127.0.0.1
child NS ns.child
ns.child A 127.0.0.1
astray NS ns.astray
ns.astray A 127.0.0.1
forged MX 10 mx1
outdated MX 10 mx1
stripped MX 10 mx1
forgedhost MX 10 forged-a
forged-a A 127.0.0.1
half A 127.0.0.1
half AAAA ::1
toforged CNAME forged
forgedalias CNAME mx1
toplain CNAME mx1.plain.test.
toinsecure CNAME mx.insecure
tochild CNAME mx.child
tolame CNAME mx.lame.test.
*.forged-many MX 10 mx1
`

var signedFlaws = map[string]flaw{"forged MX": forged, "outdated MX": outdated, "stripped MX": stripped, "forged-a A": forged,
	"half AAAA": forged, "forgedalias CNAME": forged, "*.forged-many MX": forged}

// plainNames are in plain.test beside the common ones.
const plainNames = `
tosigned CNAME mx1.signed.test.
`

// smallNames are in each of the other zones.
const smallNames = `
@ MX 10 mx
mx A 127.0.0.1
`

// manyExchangers is how many MX records the name big has in signed.test and in plain.test.
const manyExchangers = 80

// startNames starts the resolvers, with the names of scenarios and of guarded domains too.
func startNames(dir string, all []*scenario, guards []*guarded) (*nameServers, error) {
	keys := map[string]*zoneKey{}
	for _, key := range []string{"signed.test.", "child.signed.test.", "astray.signed.test.", "distrusted.test."} {
		var err error
		if keys[key], err = newZoneKey(key); err != nil {
			return nil, err
		}
	}
	others := map[string]*zoneKey{}
	for _, key := range []string{"astray.signed.test.", "distrusted.test."} {
		var err error
		if others[key], err = newZoneKey(key); err != nil {
			return nil, err
		}
	}
	common := commonNames
	for i := range manyExchangers {
		common += fmt.Sprintf("big MX %d a-mail-exchanger-with-a-long-name-%d\n", i, i)
	}
	signed := &zone{origin: "signed.test.", key: keys["signed.test."], flaws: maps.Clone(signedFlaws),
		records: common + signedNames + keys["child.signed.test."].digest() + "\n" + others["astray.signed.test."].digest() + "\n"}
	plain := &zone{origin: "plain.test.", records: common + plainNames}
	insecure := &zone{origin: "insecure.signed.test.", records: smallNames}
	lame := []string{"lame.test."}
	for _, sc := range all {
		signed.records += sc.signed
		plain.records += sc.plain
		insecure.records += sc.insecure
		maps.Copy(signed.flaws, sc.flaws)
		if sc.lame != "" {
			lame = append(lame, sc.lame)
		}
	}
	for _, g := range guards {
		plain.records += g.records()
	}
	zones := []*zone{signed, plain, insecure}
	for _, origin := range []string{"child.signed.test.", "astray.signed.test.", "distrusted.test."} {
		zones = append(zones, &zone{origin: origin, key: keys[origin], records: smallNames})
	}

	use := unboundUse{lame: lame,
		anchors: []string{keys["signed.test."].digest(), others["distrusted.test."].digest()}}
	silent, careless := use, use
	silent.silent, careless.careless = true, true
	var n nameServers
	var errs [3]error
	n.unbound, errs[0] = startUnbound(filepath.Join(dir, "validating"), zones, use)
	n.silent, errs[1] = startUnbound(filepath.Join(dir, "silent"), zones, silent)
	n.careless, errs[2] = startUnbound(filepath.Join(dir, "careless"), zones, careless)
	return &n, errors.Join(errs[:]...)
}
