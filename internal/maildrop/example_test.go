package maildrop_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/mtadelivery/delivery/internal/maildrop"
)

func Example() {
	root, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)

	mode := uint32(0o2770)
	var drop maildrop.Drop
	to := maildrop.Maildir{Root: root, Rel: filepath.Join("example.com", "user"), DirMode: &mode}
	name, err := drop.Store(context.Background(), to, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("Subject: hello\r\n\r\nhello\r\n")), nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	content, err := os.ReadFile(filepath.Join(root, "example.com", "user", "new", name))
	fmt.Printf("%q %v\n", content, err)
	// Output: "Subject: hello\r\n\r\nhello\r\n" <nil>
}
