package smtpclient

import (
	"maps"
	"sync"
	"time"
)

// Peers holds what is known of peers, by network and address. It is bounded: one too many drops those that
// were not asked for within an hour, or any. The zero value is ready for use, by many goroutines.
type Peers struct {
	mu    sync.Mutex
	peers map[string]*datedPeer
}

type datedPeer struct {
	Peer
	asked time.Time
}

const maxPeers = 10_000

// Peer returns what is known of the peer at an address, for Config.Peer.
func (k *Peers) Peer(address string) *Peer {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	p := k.peers[address]
	if p == nil {
		k.makeRoom(now)
		p = &datedPeer{}
		k.peers[address] = p
	}
	p.asked = now
	return &p.Peer
}

// makeRoom makes room for one more. The lock is held.
func (k *Peers) makeRoom(now time.Time) {
	if k.peers == nil {
		k.peers = map[string]*datedPeer{}
	}
	if len(k.peers) < maxPeers {
		return
	}
	maps.DeleteFunc(k.peers, func(_ string, p *datedPeer) bool { return now.Sub(p.asked) > time.Hour })
	for address := range k.peers {
		if len(k.peers) < maxPeers {
			return
		}
		delete(k.peers, address)
	}
}
