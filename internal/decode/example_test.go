package decode_test

import (
	"fmt"
	"time"

	"github.com/mtadelivery/delivery/internal/decode"
)

type path struct {
	Port     uint16        `config:"smtp_port" default:"25" min:"1"`
	Idle     time.Duration `config:"idle_timeout" default:"1m"`
	TLS      string        `config:"enable_tls" default:"Opportunistic" enum:"Opportunistic,Required,Disabled"`
	Networks []string      `config:"networks"`
}

func (p path) Validate() error {
	for i, network := range p.Networks {
		if network == "" {
			return decode.Errorf(fmt.Sprintf("networks[%d]", i), "is empty")
		}
	}
	return nil
}

func ExampleDecode() {
	for _, text := range []string{
		`{"idle_timeout": "1h 30m", "networks": []}`,
		`{"smpt_port": 2525}`,
		`{"smtp_port": 70000}`,
		`{"networks": ["a", ""]}`,
	} {
		tree, err := decode.ParseJSON([]byte(text))
		if err != nil {
			fmt.Println(err)
			continue
		}
		var p path
		if err := decode.Decode(tree, &p); err != nil {
			fmt.Println(decode.In("egress_path", err))
			continue
		}
		canonical, err := decode.JSON(p)
		fmt.Println(string(canonical), err)
	}
	// Output:
	// {"smtp_port":25,"idle_timeout":"1h 30m","enable_tls":"Opportunistic","networks":[]} <nil>
	// egress_path.smpt_port: unknown field (did you mean "smtp_port"?)
	// egress_path.smtp_port: 70000 is out of range (0 to 65535)
	// egress_path.networks[1]: is empty
}

func ExampleParseDuration() {
	d, err := decode.ParseDuration("2h 37min")
	fmt.Println(d, err)
	_, err = decode.ParseDuration("1,5h")
	fmt.Println(err)
	// Output:
	// 2h37m0s <nil>
	// "1,5h" is not a duration: it cannot have a comma; decimals follow a point
}

func ExampleParseRate() {
	r, err := decode.ParseRate("local:1,000/60s,max_burst=1")
	fmt.Println(r.Limit, r.Per, r.MaxBurst, r.Local, err)
	fmt.Println(r)
	// Output:
	// 1000 1m0s 1 true <nil>
	// local:1000/min,max_burst=1
}
