package smtpclient

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestPeersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var peers Peers
		old := peers.Peer("tcp old")
		time.Sleep(2 * time.Hour)
		kept := peers.Peer("tcp kept")
		for i := range maxPeers - 1 {
			peers.Peer(fmt.Sprint("tcp ", i))
		}
		if peers.Peer("tcp kept") != kept {
			t.Error("a peer that was asked for lately is forgotten before one that was not")
		}
		if peers.Peer("tcp old") == old {
			t.Error("a peer that nobody asked for is not forgotten")
		}
		for i := range 2 * maxPeers {
			peers.Peer(fmt.Sprint("unix ", i))
		}
		if n := len(peers.peers); n > maxPeers {
			t.Errorf("%d peers are known, want at most %d", n, maxPeers)
		}
	})
}
