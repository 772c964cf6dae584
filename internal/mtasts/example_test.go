package mtasts_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mtadelivery/delivery/internal/mtasts"
	"github.com/mtadelivery/delivery/internal/resolver"
)

// A domain with a record whose policy host cannot be reached: mail goes on as if there were no policy, and
// the domain can be told why.
func ExampleCache() {
	cache := &mtasts.Cache{
		Lookup: func(_ context.Context, name string) resolver.Answer {
			fmt.Println("TXT of", name)
			return resolver.Answer{Result: resolver.Records, TXT: []string{"v=STSv1; id=20160831085700Z;"}}
		},
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			fmt.Println("connection to", address)
			return nil, errors.New("no route to host")
		},
	}
	result := cache.Get(context.Background(), "example.com")
	fmt.Println(result.Status, result.Policy.Mode, result.Failure())
	fmt.Println(result.Err)

	// From memory.
	fmt.Println(cache.Get(context.Background(), "Example.com.").Status)

	fmt.Println(cache.Close(context.Background()))
	// Output:
	// TXT of _mta-sts.example.com
	// connection to mta-sts.example.com:443
	// FetchFailed none sts-policy-fetch-error
	// MTA-STS of example.com: sts-policy-fetch-error: no route to host
	// FetchFailed
	// <nil>
}

// files is a Store that keeps its entries in a map, as another keeps them in files.
type files struct {
	mu      sync.Mutex
	entries map[string]mtasts.Entry
}

func (f *files) Load(_ context.Context, domain string) (mtasts.Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	entry, found := f.entries[domain]
	if !found {
		return mtasts.Entry{}, mtasts.ErrNotFound
	}
	return entry, nil
}

func (f *files) Save(_ context.Context, domain string, entry mtasts.Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries[domain] = entry
	return nil
}

// A policy that was fetched before a restart holds, although the record has been removed since.
func ExampleStore() {
	cache := &mtasts.Cache{
		Store: &files{entries: map[string]mtasts.Entry{"example.com": {
			ID:      "1",
			Policy:  []byte("version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n"),
			Fetched: time.Now().Add(-24 * time.Hour),
			Expires: time.Now().Add(6 * 24 * time.Hour),
		}}},
		Lookup: func(context.Context, string) resolver.Answer {
			return resolver.Answer{Result: resolver.NXDomain}
		},
	}
	defer cache.Close(context.Background())
	result := cache.Get(context.Background(), "example.com")
	fmt.Println(result.Status, result.Policy.Mode, result.Policy.Matches("mx.example.com"), result.Policy.Matches("mx.example.net"))
	fmt.Println(result.Err)
	// Output:
	// Kept enforce true false
	// MTA-STS of example.com: there is no MTA-STS record
}

func ExampleParse() {
	policy, err := mtasts.Parse([]byte("version: STSv1\nmode: testing\nmx: *.Example.com\nmax_age: 86400\ncontact: postmaster\n"))
	fmt.Println(policy.Mode, policy.MX, policy.MaxAge, err)
	fmt.Println(policy.Matches("mx.example.com"), policy.Matches("mx.a.example.com"))

	_, err = mtasts.Parse([]byte("version: STSv1\nmode: enforce\nmx: mx.*.example.com\nmax_age: 86400\n"))
	fmt.Println(err)
	// Output:
	// testing [*.example.com] 24h0m0s <nil>
	// true false
	// line 3 of the policy: mx "mx.*.example.com" is not a host name or a pattern of one
}

func ExampleParseRecord() {
	fmt.Println(mtasts.ParseRecord([]string{"v=spf1 -all", "v=STSv1; id=20160831085700Z;"}))
	fmt.Println(mtasts.ParseRecord([]string{"v=STSv1; id=1", "v=STSv1; id=2"}))
	// Output:
	// 20160831085700Z true <nil>
	//  false there are 2 MTA-STS records
}
