package resolver

// Stats is what a [Client] has done, and what it keeps.
type Stats struct {
	// Cached is how many lookups were answered from the cache.
	Cached uint64
	// Asked is how many questions went to the servers, each counted once for all who asked it and
	// however many queries it took; Failed is how many of them every server failed to answer, and Stale
	// how often the answer of before then stood in.
	Asked, Failed, Stale uint64
	// Entries is how many answers are in the cache, failures included. UnderWay is how many questions are
	// being asked, of which Waiting wait for their turn (see [Client.MaxQueries]).
	Entries, UnderWay, Waiting int
	// Servers are those that were asked, in no order of preference; those of a ConfigFile as it was are
	// forgotten when it changes.
	Servers []ServerStats
}

// Stats says what the client has done until now. It is safe for concurrent use.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.Entries, s.UnderWay, s.Waiting = c.cache.used.Len(), len(c.flights), c.turns.waiting()
	s.Servers = c.roster.stats()
	return s
}
