package mtasts

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrNotFound is what a [Store] returns from Load, alone or wrapped, for a domain it has nothing of.
var ErrNotFound = errors.New("no policy is stored")

// Store keeps policies over a restart. Its methods are called concurrently, for one domain one after the
// other, and never with a lock held; they should end when ctx does, which is when the cache's Timeout
// has passed or the cache is closed. A store that fails is logged and does without: no policy is refused
// because it could not be saved.
//
// What is loaded is believed no further than it can be checked: the policy is parsed again, and an entry
// that is malformed, expired or from the future counts as not found.
type Store interface {
	// Load returns what was saved last for domain, or an error that wraps ErrNotFound.
	Load(ctx context.Context, domain string) (Entry, error)
	// Save keeps entry in place of what was there. The cache does not delete: an entry may go when it has
	// expired.
	Save(ctx context.Context, domain string, entry Entry) error
}

// Entry is a policy as it was fetched.
type Entry struct {
	ID      string    // of the TXT record that led to it
	Policy  []byte    // its text, as it was served
	Fetched time.Time // when it was fetched
	Expires time.Time // when it ends; it never lasts longer than its max_age from Fetched
}

// held is a policy in memory. The zero value is none.
type held struct {
	id      string
	policy  Policy
	fetched time.Time
	expires time.Time
}

func (h held) alive(now time.Time) bool { return now.Before(h.expires) }

// lifetime is how long a policy is kept. One of max_age 0 would be fetched for each message.
func lifetime(p Policy) time.Duration { return max(p.MaxAge, minLifetime) }

// read checks an entry that was loaded.
func (e Entry) read(now time.Time) (held, error) {
	policy, err := Parse(e.Policy)
	switch {
	case err != nil:
		return held{}, err
	case !isID(e.ID):
		return held{}, fmt.Errorf("its id is %q", excerpt(e.ID))
	case e.Fetched.After(now):
		return held{}, fmt.Errorf("it was fetched in the future, at %v", e.Fetched)
	}
	expires := e.Fetched.Add(lifetime(policy))
	if e.Expires.Before(expires) {
		expires = e.Expires
	}
	return held{e.ID, policy, e.Fetched, expires}, nil
}
