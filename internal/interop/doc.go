// Package interop has the tests against programs that others wrote: Postfix, Postfix's smtp-sink, Dovecot,
// the resolver Unbound, the proxies HAProxy, Dante and microsocks, and Lua. It holds no code of the library, and
// without the build tag interop no test either:
//
//	go test -tags interop -count=1 ./internal/interop/...
//
// The tests want Debian 12 and root, because the servers are Debian's packages, which the tests
// install where they are missing, and drop root by themselves. Everything listens on loopback and on
// free ports, keeps its files in one directory under /tmp, and ends with the tests.
package interop
