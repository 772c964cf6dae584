package decode

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestJSON(t *testing.T) {
	zero := 0
	for _, test := range []struct {
		value server
		want  string
	}{
		{server{}, `{}`},
		{server{Retries: &zero, Untagged: 3, internal: "x"}, `{"retries":0}`},
		{defaulted(func(*server) {}), `{"name":"a","port":25,"family":"Both","timeout":"1m","idle":"5s","retries":3,` +
			`"denied":["127.0.0.0/8","::1"],"verify":true,"ttl":60}`},
		{server{Denied: []netip.Prefix{}, Limits: map[string]int64{}, Routes: []route{}}, `{"denied":[],"limits":{},"routes":[]}`},
		{server{Name: "<\"\\\n\r\t\x00\u2028é😀\x7f>", Ratio: 0.1}, `{"name":"<\"\\\n\r\t\u0000` + "\u2028" + `é😀\u007f>","ratio":0.1}`},
		{server{Limits: map[string]int64{"b": 2, "a": 1, "ä c": 3}}, `{"limits":{"a":1,"b":2,"ä c":3}}`},
		{server{Next: &server{}, Routes: []route{{}, {"x", 1}}}, `{"next":{},"routes":[{},{"to":"x","weight":1}]}`},
		{server{Mailbox: &mailbox{Path: "/"}, Common: common{1}}, `{"mailbox_path":"/","ttl":1}`},
		{server{Mailbox: &mailbox{}, Letter: letter{'0'}}, `{}`},
		{server{Verify: off, Letter: letter{'x'}, Ratio: 1e21}, `{"ratio":1e+21,"verify":false,"letter":"x"}`},
		{server{Extra: map[string]any{"b": []any{nil, 1.5, 2.0, Empty{}, true}, "a": "x"}}, `{"extra":{"a":"x","b":[null,1.5,2,{},true]}}`},
		{server{Extra: []any{}}, `{"extra":[]}`},
		{server{Source: netip.MustParseAddr("::1"), Idle: idleDuration(time.Hour)}, `{"idle":"1h","source":"::1"}`},
	} {
		got, err := JSON(test.value)
		if err != nil || string(got) != test.want {
			t.Errorf(" got %s, %v\nwant %s", got, err, test.want)
		}
		if byPointer, err := JSON(&test.value); err != nil || string(byPointer) != test.want {
			t.Errorf("by pointer: %s, %v", byPointer, err)
		}
	}
}

func TestJSONErrors(t *testing.T) {
	deep := &server{}
	for range 70 {
		deep = &server{Next: deep}
	}
	type more struct {
		Big    uint64            `config:"big"`
		List   []*int            `config:"list"`
		Addrs  []netip.Addr      `config:"addrs"`
		Map    map[string]string `config:"map"`
		Broken []broken          `config:"broken"`
	}
	for _, test := range []struct {
		value any
		want  string
	}{
		{server{Name: "\xff"}, `name: is not valid UTF-8`},
		{server{Next: &server{Timeout: -1}}, `next.timeout: a duration cannot be negative`},
		{server{Ratio: math.Inf(1)}, `ratio: +Inf is not a finite number`},
		{server{Extra: []any{math.NaN()}}, `extra[0]: NaN is not a finite number`},
		{server{Extra: 5}, `extra: a value of the Go type int has no place in a configuration`},
		{server{Denied: make([]netip.Prefix, 1)}, `denied[0]: is not a valid IP network`},
		{deep, strings.TrimSuffix(strings.Repeat("next.", 64), ".") + `: line 1, column 513: nested more than 64 deep`},
		{more{Big: math.MaxUint64}, `big: 18446744073709551615 is out of range (0 to 9223372036854775807)`},
		{more{List: []*int{nil}}, `list[0]: is nil`},
		{more{Addrs: make([]netip.Addr, 2)}, `addrs[0]: is not a valid IP address`},
		{more{Map: map[string]string{"\xff": ""}}, `map["\xff"]: is not valid UTF-8`},
		{more{Map: map[string]string{"k": "\xff"}}, `map.k: is not valid UTF-8`},
		{more{Broken: []broken{"{"}}, `broken[0]: line 1, column 2: unexpected end of the text, expected a key in double quotes`},
		{more{Broken: []broken{"fail"}}, `broken[0].inside: does not want to`},
	} {
		if got, err := JSON(test.value); text(err) != test.want {
			t.Errorf("got %s, %v\nwant %s", got, err, test.want)
		}
	}
}

// broken prints itself as its own text, be it JSON or not.
type broken string

func (b broken) MarshalJSON() ([]byte, error) {
	if b == "fail" {
		return nil, Errorf("inside", "does not want to")
	}
	return []byte(b), nil
}

func TestTree(t *testing.T) {
	got, err := Tree(server{Name: "a", Port: 25, Ratio: 1.5, Limits: map[string]int64{}, Next: &server{Verify: off}})
	want := map[string]any{
		"name": "a", "port": int64(25), "ratio": 1.5, "limits": map[string]any{}, "next": map[string]any{"verify": false},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, %v", got, err)
	}
	if _, err := Tree(server{Name: "\xff"}); err == nil {
		t.Error("a bad string has a tree")
	}
}

// TestMethodsMayDelegate shows that the methods of a struct may call this
// package with the struct itself.
func TestMethodsMayDelegate(t *testing.T) {
	type list struct {
		Hosts []host `config:"hosts"`
	}
	const text = `{"hosts":["x",{"name":"y","ports":[1],"options":{}}]}`
	var l list
	tree, err := ParseJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := Decode(tree, &l); err != nil {
		t.Fatal(err)
	}
	if got, err := JSON(l); err != nil || string(got) != text {
		t.Errorf("got %s, %v", got, err)
	}
	var h host
	if err := json.Unmarshal([]byte(`{"name":"y","ports":["a"]}`), &h); err == nil || err.Error() != "ports[0]: expected an integer, got a string" {
		t.Errorf("got %v", err)
	}
}

// TestRoundTrip makes struct types at random and fills them at random, prints
// them and reads them back, as JSON and as what Lua would make of it.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(3000) {
		g := generator{rand.New(rand.NewPCG(seed, 0))}
		typ := g.structType(2)
		value := reflect.New(typ)
		g.fillStruct(value.Elem())
		Defaults(value.Interface())
		if err := roundTrip(value); err != nil {
			t.Fatalf("seed %d: %v\n%v\n%+v", seed, err, typ, value.Elem())
		}
	}
}

// TestRoundTripOfServer does the same with tags that a random type cannot have.
func TestRoundTripOfServer(t *testing.T) {
	accepted := 0
	for seed := range uint64(3000) {
		g := generator{rand.New(rand.NewPCG(seed, 1))}
		s := g.server(2)
		Defaults(&s)
		if Check(s) != nil {
			continue
		}
		accepted++
		if err := roundTrip(reflect.ValueOf(&s)); err != nil {
			t.Fatalf("seed %d: %v\n%+v", seed, err, s)
		}
	}
	if accepted < 1000 {
		t.Errorf("only %d of 3000 servers were worth a test", accepted)
	}
}

// roundTrip prints the struct that value points to and reads it back.
func roundTrip(value reflect.Value) error {
	src := value.Interface()
	if err := Check(src); err != nil {
		return err
	}
	printed, err := JSON(src)
	if err != nil {
		return err
	}
	tree, err := ParseJSON(printed)
	if err != nil {
		return fmt.Errorf("%s: %w", printed, err)
	}
	for name, tree := range map[string]any{"JSON": tree, "Lua": luaTree(tree)} {
		again := reflect.New(value.Type().Elem())
		if err := Decode(tree, again.Interface()); err != nil {
			return fmt.Errorf("%s: %s: %w", name, printed, err)
		}
		if !reflect.DeepEqual(again.Interface(), src) {
			return fmt.Errorf("%s: %s is read as\n%+v", name, printed, again.Elem())
		}
		if second, err := JSON(again.Interface()); err != nil || string(second) != string(printed) {
			return fmt.Errorf("%s: printed first as\n%s\nand then as\n%s, %v", name, printed, second, err)
		}
	}
	if tree2, err := Tree(src); err != nil || !reflect.DeepEqual(tree2, tree) {
		return fmt.Errorf("the tree is %v, %w", tree2, err)
	}
	return nil
}

// luaTree is what a tree looks like after a journey through Lua 5.1.
func luaTree(tree any) any {
	switch t := tree.(type) {
	case int64:
		if int64(float64(t)) == t && t <= 1<<53 && t >= -1<<53 {
			return float64(t)
		}
	case []any:
		list := make([]any, len(t))
		for i := range t {
			list[i] = luaTree(t[i])
		}
		if len(list) > 0 {
			return list
		}
		return Empty{}
	case map[string]any:
		m := map[string]any{}
		for key := range t {
			m[key] = luaTree(t[key])
		}
		if len(m) > 0 {
			return m
		}
		return Empty{}
	}
	return tree
}

type generator struct{ *rand.Rand }

// kinds are the types of fields that structType chooses from.
var kinds = []reflect.Type{
	reflect.TypeFor[bool](), reflect.TypeFor[string](), reflect.TypeFor[header](),
	reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[int64](),
	reflect.TypeFor[uint](), reflect.TypeFor[uint16](), reflect.TypeFor[uint64](),
	reflect.TypeFor[float32](), reflect.TypeFor[float64](),
	reflect.TypeFor[time.Duration](), reflect.TypeFor[idleDuration](),
	reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.Prefix](), reflect.TypeFor[netip.AddrPort](),
	reflect.TypeFor[toggle](), reflect.TypeFor[letter](), reflect.TypeFor[host](), reflect.TypeFor[words](),
	reflect.TypeFor[any](),
}

func (g generator) structType(depth int) reflect.Type {
	fields := make([]reflect.StructField, g.IntN(8))
	for i := range fields {
		typ, tag := g.fieldType(depth), reflect.StructTag(fmt.Sprintf(`config:"k%d"`, i))
		switch {
		case typ == reflect.TypeFor[time.Duration]() && g.IntN(2) == 0:
			tag += ` default:"1h 30m" min:"1ns"`
		case typ == reflect.TypeFor[[]string]() && g.IntN(2) == 0:
			tag += ` default:"[\"x\"]"`
		case typ == reflect.TypeFor[*bool]() && g.IntN(2) == 0:
			tag += ` default:"true"`
		case i == 0 && g.IntN(3) == 0:
			typ, tag = reflect.TypeFor[*common](), `config:",inline"`
		}
		fields[i] = reflect.StructField{Name: fmt.Sprintf("F%d", i), Type: typ, Tag: tag}
	}
	return reflect.StructOf(fields)
}

func (g generator) fieldType(depth int) reflect.Type {
	switch n := g.IntN(10); {
	case n == 0:
		return reflect.PointerTo(kinds[g.IntN(len(kinds)-1)])
	case n == 1 && depth > 0:
		return reflect.SliceOf(g.fieldType(depth - 1))
	case n == 2 && depth > 0:
		return reflect.MapOf(reflect.TypeFor[string](), g.fieldType(depth-1))
	case n == 3 && depth > 0:
		return g.structType(depth - 1)
	case n == 4 && depth > 0:
		return reflect.PointerTo(g.structType(depth - 1))
	}
	return kinds[g.IntN(len(kinds))]
}

// fillStruct leaves about every third field as it is: not given.
func (g generator) fillStruct(v reflect.Value) {
	for i := range v.NumField() {
		if g.IntN(3) > 0 {
			v.Field(i).Set(g.value(v.Field(i).Type()))
		}
	}
}

// value makes a value that a configuration can hold, not nil.
func (g generator) value(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return reflect.ValueOf(g.addr())
	case reflect.TypeFor[netip.Prefix]():
		addr := g.addr()
		return reflect.ValueOf(netip.PrefixFrom(addr, g.IntN(addr.BitLen()+1)))
	case reflect.TypeFor[netip.AddrPort]():
		return reflect.ValueOf(netip.AddrPortFrom(g.addr(), uint16(g.IntN(1<<16))))
	case reflect.TypeFor[toggle]():
		return reflect.ValueOf(toggle(1 + g.IntN(2)))
	case reflect.TypeFor[letter]():
		return reflect.ValueOf(letter{[]rune("aé😀\x01\\")[g.IntN(5)]})
	case reflect.TypeFor[host]():
		return reflect.ValueOf(host{Name: "h", Ports: g.value(reflect.TypeFor[[]int]()).Interface().([]int)})
	case reflect.TypeFor[common]():
		return reflect.ValueOf(common{TTL: 1 + g.Int32N(9)})
	}
	switch {
	case isAny(t):
		v.Set(reflect.ValueOf(g.tree(2)))
	case isDuration(t):
		v.SetInt(1 + g.Int64()>>g.IntN(63)/2)
	case v.CanInt():
		v.SetInt(int64(g.Uint64()) >> g.IntN(64))
	case t.Kind() == reflect.Uint64 || t.Kind() == reflect.Uint:
		v.SetUint(g.Uint64() >> (1 + g.IntN(63)))
	case v.CanUint():
		v.SetUint(g.Uint64() >> g.IntN(64))
	case t.Kind() == reflect.Float32:
		v.SetFloat(float64(math.Float32frombits(g.Uint32() &^ (1 << 30))))
	case t.Kind() == reflect.Float64:
		v.SetFloat(math.Float64frombits(g.Uint64() &^ (1 << 62)))
	case t.Kind() == reflect.Bool:
		v.SetBool(g.IntN(2) == 0)
	case t.Kind() == reflect.String:
		v.SetString(g.text())
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		v.Elem().Set(g.value(t.Elem()))
	case t.Kind() == reflect.Struct:
		g.fillStruct(v)
	case t.Kind() == reflect.Slice:
		n := g.IntN(4)
		v.Set(reflect.MakeSlice(t, n, n))
		for i := range n {
			v.Index(i).Set(g.value(t.Elem()))
		}
	case t.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(t))
		for range g.IntN(4) {
			v.SetMapIndex(g.value(t.Key()), g.value(t.Elem()))
		}
	}
	return v
}

func (g generator) addr() netip.Addr {
	if g.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{byte(g.Uint32()), 0, 0, byte(g.Uint32())})
	}
	var a [16]byte
	a[0], a[15] = byte(g.Uint32()), byte(g.Uint32())
	return netip.AddrFrom16(a)
}

func (g generator) text() string {
	var b strings.Builder
	for range g.IntN(6) {
		b.WriteRune([]rune("ab_-. \"\\/\n\x00\x1f\x7f<é\u2028\ufffd😀")[g.IntN(18)])
	}
	return b.String()
}

// tree makes what a field of type any may hold. Lua cannot tell an empty list
// from an empty map, so there are no empty lists.
func (g generator) tree(depth int) any {
	switch n := g.IntN(7); {
	case n == 0:
		return g.IntN(2) == 0
	case n == 1:
		return int64(g.Uint64()) >> g.IntN(64)
	case n == 2:
		return g.Float64() + 0.5e-9
	case n == 3 && depth > 0:
		return []any{nil, g.tree(depth - 1)}
	case n == 4 && depth > 0:
		return map[string]any{g.text(): g.tree(depth - 1), "n": nil}
	case n == 5 && depth > 0:
		return map[string]any{}
	}
	return g.text()
}

// server fills a server whose required fields may be missing.
func (g generator) server(depth int) server {
	s := server{
		Name:     g.text(),
		Port:     uint16(g.IntN(3)),
		Family:   []string{"", "Both", "V4", "V6"}[g.IntN(4)],
		Timeout:  time.Duration(g.IntN(3)) * time.Second,
		Ratio:    float64(g.IntN(3)) / 2,
		Verify:   toggle(g.IntN(3)),
		Lazy:     g.IntN(2) == 0,
		Common:   common{g.Int32N(3)},
		internal: "",
	}
	if g.IntN(2) == 0 {
		s.Retries, s.Denied = new(int), []netip.Prefix{}
		s.Mailbox = &mailbox{"x", g.IntN(2)}
	}
	if depth > 0 {
		for range g.IntN(3) {
			s.Routes = append(s.Routes, route{"r" + g.text(), g.IntN(3)})
			s.ByName = map[string]route{g.text(): {"to", g.IntN(3)}}
		}
		if g.IntN(2) == 0 {
			next := g.server(depth - 1)
			s.Next = &next
		}
	}
	return s
}

// FuzzDecode reads a server from anything: an error is an *Error, and what is
// accepted prints, and reads back as the same.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"name":"a"}`, `{"name":"a","port":2525,"family":"V4","timeout":"5m","idle":1.5,"ratio":1,"retries":0,"denied":["::/0"]}`,
		`{"name":"a","limits":{"x":1},"verify":false,"next":{"name":"b","routes":[{"to":"x"}]},"extra":[{"a":1.0},null]}`,
		`{"name":"a","by_name":{"":{"to":"y","weight":2}},"headers":{"é":"\u0000"},"letter":"x","mailbox_path":"/","ttl":-1}`,
		`{"name":"a","port":0}`, `{"name":"a","source":"::ffff:1.2.3.4","denied":["1.2.3.4/0",""]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, err := ParseJSON(data)
		if err != nil {
			return
		}
		var s server
		if err := Decode(tree, &s); err != nil {
			if _, ok := err.(*Error); !ok {
				t.Fatalf("the error %v is a %T", err, err)
			}
			return
		}
		if err := roundTrip(reflect.ValueOf(&s)); err != nil && !hasEmptyList(s) {
			t.Fatal(err)
		}
	})
}

// hasEmptyList reports whether a field of type any holds an empty list, which
// becomes a map on its way through Lua.
func hasEmptyList(s server) bool {
	for next := &s; next != nil; next = next.Next {
		if text, _ := json.Marshal(next.Extra); strings.Contains(string(text), "[]") {
			return true
		}
	}
	return false
}

func TestFalseIsPrintedWhereItIsTheDefault(t *testing.T) {
	var c struct {
		Loud  bool `config:"loud" default:"false"`
		Quiet bool `config:"quiet"`
	}
	if text, err := JSON(&c); string(text) != `{"loud":false}` || err != nil {
		t.Errorf("got %s, %v", text, err)
	}
}

// TestDefaultsWriteToNothingShared: two copies of a struct share what they refer to.
func TestDefaultsWriteToNothingShared(t *testing.T) {
	type inner struct {
		Port int `config:"port" default:"25"`
	}
	type outer struct {
		One  *inner           `config:"one"`
		List []inner          `config:"list"`
		Map  map[string]inner `config:"map"`
	}
	shared := outer{One: &inner{}, List: []inner{{}}, Map: map[string]inner{"a": {}}}
	filled := shared
	Defaults(&filled)
	if filled.One.Port != 25 || filled.List[0].Port != 25 || filled.Map["a"].Port != 25 {
		t.Errorf("not filled: %+v", filled)
	}
	if shared.One.Port != 0 || shared.List[0].Port != 0 || shared.Map["a"].Port != 0 {
		t.Errorf("written to: %+v", shared)
	}
}
