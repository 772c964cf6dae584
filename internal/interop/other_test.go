//go:build interop && !linux

package interop

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(*testing.M) {
	fmt.Fprintln(os.Stderr, "interop: these tests need Debian Linux and root")
	os.Exit(1)
}
