package kumo

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// cidrIndex finds values by addresses: the longest prefix that an address is in counts. Upstream lets the prefix
// that was written last replace the longer ones inside it, which for the entries of one table is chance.
type cidrIndex struct {
	values map[netip.Prefix]mapped
	// lengths4 and lengths6 say how many prefixes of a length there are.
	lengths4 [33]int
	lengths6 [129]int
}

func (*cidrIndex) name() string    { return "cidr.make_map" }
func (*cidrIndex) empty() mapIndex { return &cidrIndex{} }

func (c *cidrIndex) lengths(addr netip.Addr) []int {
	if addr.Is4() {
		return c.lengths4[:]
	}
	return c.lengths6[:]
}

// get takes an address, one with a port, one in brackets, or a prefix, which must be wholly inside the one that is
// found. Anything else is not in the map.
func (c *cidrIndex) get(_ context.Context, key string) (mapped, error) {
	list, err := parseCIDR(key)
	if err != nil || len(list) > 1 {
		return mapped{}, nil
	}
	lengths := c.lengths(list[0].Addr())
	for bits := list[0].Bits(); bits >= 0; bits-- {
		if lengths[bits] == 0 {
			continue
		}
		prefix, _ := list[0].Addr().Prefix(bits) // bits is in its range
		if v, ok := c.values[prefix]; ok {
			return v, nil
		}
	}
	return mapped{}, nil
}

func (c *cidrIndex) set(key string, v mapped) error {
	list, err := parseCIDR(key)
	if err != nil {
		return err
	}
	if c.values == nil {
		c.values = map[netip.Prefix]mapped{}
	}
	for _, prefix := range list {
		if _, ok := c.values[prefix]; !ok {
			c.lengths(prefix.Addr())[prefix.Bits()]++
		}
		c.values[prefix] = v
	}
	return nil
}

func (c *cidrIndex) each(yield func(string, mapped) error) error {
	for prefix, v := range c.values {
		key := prefix.String()
		if prefix.IsSingleIP() {
			key = prefix.Addr().String()
		}
		if err := yield(key, v); err != nil {
			return err
		}
	}
	return nil
}

// anyAddress is what the key "any" means.
var anyAddress = []netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// parseCIDR reads a key of a map: one prefix, or those of "any".
func parseCIDR(key string) ([]netip.Prefix, error) {
	if key == "any" {
		return anyAddress, nil
	}
	prefix, err := parsePrefix(key)
	if err == nil {
		return []netip.Prefix{prefix}, nil
	}
	bare := key
	if inside, ok := strings.CutPrefix(key, "["); ok {
		inside, _, _ = strings.Cut(inside, "]")
		bare = strings.TrimPrefix(inside, "IPv6:")
	} else if at := strings.LastIndexByte(key, ':'); at >= 0 {
		bare = key[:at]
	}
	if addr, bareErr := netip.ParseAddr(bare); bareErr == nil {
		return []netip.Prefix{single(addr)}, nil
	}
	return nil, err
}

// parsePrefix reads an address or a prefix.
func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return single(addr), nil
	}
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return prefix, fmt.Errorf("%s is not a valid CIDR", excerpt(s))
	case prefix != prefix.Masked():
		return prefix, fmt.Errorf("%s is not a valid CIDR: host part of address was not zero. Did you mean %s?", s, prefix.Masked())
	case prefix.Addr().Is4In6() && prefix.Bits() >= 96:
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix, nil
}

// single is an address as a prefix; one of IPv4 in IPv6 is of IPv4.
func single(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen())
}
