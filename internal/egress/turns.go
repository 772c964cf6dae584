package egress

import "sync"

// Choice is one of those that take turns.
type Choice struct {
	Name   string
	Weight int // its share; 0: it never has a turn
}

// Turns is a smooth weighted round robin: the choices alternate, instead of taking their whole share
// in a row. The zero value is ready for use, by many goroutines.
type Turns struct {
	mu     sync.Mutex
	credit map[string]int
}

// Next returns the name whose turn it is, or false if no choice has a weight. Choices may come and go
// between calls; a name that stands twice has the sum of its weights.
func (t *Turns) Next(choices []Choice) (name string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name, ok, t.credit = t.turn(choices)
	return name, ok
}

// Look returns what Next would, and leaves the turn where it is.
func (t *Turns) Look(choices []Choice) (name string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name, ok, _ = t.turn(choices)
	return name, ok
}

// turn is whose turn it is, and what the credits are after it. The lock is held.
func (t *Turns) turn(choices []Choice) (name string, ok bool, credit map[string]int) {
	credit = make(map[string]int, len(choices))
	total := 0
	for _, c := range choices {
		if c.Weight <= 0 {
			continue
		}
		if _, again := credit[c.Name]; !again {
			credit[c.Name] = t.credit[c.Name]
		}
		credit[c.Name] += c.Weight
		total += c.Weight
	}
	for _, c := range choices { // the order of the list breaks ties
		if c.Weight > 0 && (!ok || credit[c.Name] > credit[name]) {
			name, ok = c.Name, true
		}
	}
	if ok {
		credit[name] -= total
	}
	return name, ok, credit
}
