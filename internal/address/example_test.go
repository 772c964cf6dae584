package address_test

import (
	"fmt"

	"github.com/mtadelivery/delivery/internal/address"
)

func Example() {
	for _, text := range []string{`"info@"@BÜCHER.example`, "info@@bücher.example", "us er@example.com"} {
		a, err := address.Parse(text)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(a, "is", a.Local, "at", a.Domain)
	}
	// Output:
	// "info@"@xn--bcher-kva.example is info@ at xn--bcher-kva.example
	// "info@"@xn--bcher-kva.example is info@ at xn--bcher-kva.example
	// address: "us er@example.com": there is a space outside quotes
}
