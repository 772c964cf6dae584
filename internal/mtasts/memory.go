package mtasts

import "container/list"

// memory is what is known of domains. Its zero value is ready; the cache's lock guards it.
type memory struct {
	places map[string]*list.Element // of *place, in one of the lists
	// Most recently used first. Two, because the many domains without a policy must not displace a policy:
	// that would weaken it.
	with, without list.List
}

type place struct {
	domain string
	known  known
	list   *list.List
}

// get returns what is known of a domain, for reading while the lock is held, or nil.
func (m *memory) get(domain string) *known {
	element := m.places[domain]
	if element == nil {
		return nil
	}
	p := element.Value.(*place)
	p.list.MoveToFront(element)
	return &p.known
}

// put replaces what is known of a domain, and keeps at most size domains of its kind.
func (m *memory) put(domain string, k known, size int) {
	if m.places == nil {
		m.places = make(map[string]*list.Element)
	}
	if old := m.places[domain]; old != nil {
		m.remove(old)
	}
	kind := &m.without
	if k.result.Status.holds() {
		kind = &m.with
	}
	for kind.Len() >= size {
		m.remove(kind.Back())
	}
	m.places[domain] = kind.PushFront(&place{domain, k, kind})
}

func (m *memory) remove(element *list.Element) {
	p := element.Value.(*place)
	p.list.Remove(element)
	delete(m.places, p.domain)
}
