package kumo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// populateAttempts is how often a call with retry_on_populate_timeout tries.
const populateAttempts = 3

// memoize is kumo.memoize(fn, params): a function that remembers what fn returned for its arguments. All states of
// an Options share what is remembered, by the name in params and the arguments. As upstream, several results are one
// list.
func (m *module) memoize(L *lua.LState) int {
	fn, params := L.CheckFunction(1), L.CheckTable(2)
	settings, err := memoParams(params)
	if err != nil {
		e := &MakeError{Func: "memoize", Table: describe(params), Err: err}
		e.File, e.Line = luastate.Where(L)
		luastate.Raise(L, e)
	}
	if err := m.options.memos.named(settings); err != nil {
		luastate.Raise(L, fmt.Errorf("memoize %q: %w", excerpt(settings.Name), err))
	}
	L.Push(L.NewFunction(func(L *lua.LState) int {
		L.Push(m.thaw(L, m.remember(L, settings.Name, fn)))
		return 1
	}))
	return 1
}

func memoParams(params *lua.LTable) (settings memoSettings, err error) {
	tree, err := luastate.ToTree(params, decode.Empty{})
	if err == nil {
		err = decode.Decode(tree, &settings)
	}
	if err == nil && len(settings.Name) > maxMemoName {
		err = decode.Errorf("name", "is longer than %d bytes", maxMemoName)
	}
	settings.Detached = false
	return settings, err
}

// remember is the value for the arguments on the stack.
func (m *module) remember(L *lua.LState, name string, fn *lua.LFunction) frozen {
	key, err := memoKey(L)
	for attempt := 1; err == nil; {
		var value frozen
		c := m.options.memos.find(name)
		if value, err = m.lookOrCall(L, c, key, fn); err == nil {
			return value
		}
		if errors.Is(err, errPopulateTimeout) && c.settings.RetryOnPopulateTimeout && attempt < populateAttempts {
			attempt, err = attempt+1, nil
		}
	}
	if text, ok := errors.AsType[raisedText](err); ok {
		L.Error(lua.LString(text), 0)
	}
	if _, ok := AsRejection(err); ok {
		luastate.Raise(L, err)
	}
	luastate.Raise(L, fmt.Errorf("the memoized function %q: %w", excerpt(name), err))
	return nil
}

// lookOrCall finds the value or makes it; what the function itself raises in this state goes up from here.
func (m *module) lookOrCall(L *lua.LState, c *memo, key string, fn *lua.LFunction) (frozen, error) {
	for {
		value, found, f, own := c.enter(m, key)
		switch {
		case found:
			return value, nil
		case own:
			return m.populate(L, c, f, fn)
		}
		_, err := outside(L, func(ctx context.Context) (struct{}, error) { return struct{}{}, c.wait(ctx, m, f) })
		if err != nil {
			return nil, err
		}
		if f.err != nil || f.kept {
			return f.value, f.err
		}
	}
}

// raisedText is an error of the program's own, position included, as another state met it.
type raisedText string

func (e raisedText) Error() string { return string(e) }

// populate calls fn with the arguments on the stack. However that ends, the flight lands.
func (m *module) populate(L *lua.LState, c *memo, f *flight, fn *lua.LFunction) (frozen, error) {
	epoch := m.options.memos.epoch.Load()
	var box icebox
	defer func() { c.land(f, epoch, box.size) }()

	results, err := m.callWithin(L, c, fn)
	if err != nil {
		f.err = sharedError(L, err)
		if api, ok := errors.AsType[*lua.ApiError](err); ok {
			panic(api) // on its way as it was, with its own traceback
		}
		return nil, err
	}
	f.value, f.err = box.results(results)
	f.kept = f.err == nil
	return f.value, f.err
}

// callWithin calls fn with the arguments on the stack, bounded by populate_timeout.
func (m *module) callWithin(L *lua.LState, c *memo, fn *lua.LFunction) ([]lua.LValue, error) {
	top := L.GetTop()
	ctx, cancel := context.WithTimeoutCause(contextOf(L), c.settings.PopulateTimeout, errPopulateTimeout)
	defer cancel()
	L.Push(fn)
	for i := 1; i <= top; i++ {
		L.Push(L.Get(i))
	}
	back := luastate.WithContext(L, ctx)
	restore := forbidYield(L)
	err := luastate.PCall(L, top, lua.MultRet, nil, true)
	restore()
	back()
	if err != nil {
		if ctx.Err() != nil && contextOf(L).Err() == nil {
			err = errPopulateTimeout
		}
		return nil, err
	}
	results := make([]lua.LValue, L.GetTop()-top)
	for i := range results {
		results[i] = L.Get(top + 1 + i)
	}
	L.SetTop(top)
	return results, nil
}

// sharedError is what those who wait for a call that failed are told; nil if they had better try themselves, since
// it was this state that failed.
func sharedError(L *lua.LState, err error) error {
	api, ok := errors.AsType[*lua.ApiError](err)
	switch {
	case !ok:
		return err
	case contextOf(L).Err() != nil, api.Type == lua.ApiErrorPanic:
		return nil
	}
	if text, ok := api.Object.(lua.LString); ok {
		return raisedText(text)
	}
	if err, ok := luastate.Raised(api.Object); ok {
		return err
	}
	return nil
}

// results freezes what a function returned: nothing is nil, several values are a list.
func (b *icebox) results(values []lua.LValue) (frozen, error) {
	switch len(values) {
	case 0:
		return nil, nil
	case 1:
		return b.freeze(values[0])
	}
	t := &frozenTable{}
	for i, v := range values {
		value, err := b.freeze(v)
		if err != nil {
			return nil, fmt.Errorf("result %d: %w", i+1, err)
		}
		t.list = append(t.list, value)
	}
	return t, nil
}

// maxMemoKey is how long a key may be before its hash stands for it.
const maxMemoKey = 512

// memoKey is a text that only the same arguments have.
func memoKey(L *lua.LState) (string, error) {
	var key []byte
	for i := 1; i <= L.GetTop(); i++ {
		var err error
		if key, err = appendArgument(key, L.Get(i)); err != nil {
			return "", fmt.Errorf("argument %d: %w", i, err)
		}
	}
	if len(key) > maxMemoKey {
		sum := sha256.Sum256(key)
		return "#" + string(sum[:]), nil // which no other key begins with
	}
	return string(key), nil
}

func appendArgument(key []byte, v lua.LValue) ([]byte, error) {
	switch v := v.(type) {
	case lua.LString:
		return appendKey(key, string(v)), nil
	case lua.LNumber:
		return appendKey(key, float64(v)), nil
	}
	tree, err := luastate.ToTree(v, struct{}{})
	if err != nil {
		return nil, err
	}
	return appendKey(key, tree), nil
}

func appendKey(key []byte, tree any) []byte {
	switch tree := tree.(type) {
	case nil:
		key = append(key, '-')
	case bool:
		key = strconv.AppendBool(key, tree)
	case float64:
		key = strconv.AppendFloat(key, tree, 'g', -1, 64)
	case string:
		key = strconv.AppendInt(key, int64(len(tree)), 10)
		key = append(append(key, ':'), tree...)
	case []any:
		key = append(key, '[')
		for _, v := range tree {
			key = appendKey(key, v)
		}
		key = append(key, ']')
	case map[string]any:
		key = append(key, '{')
		for _, name := range slices.Sorted(maps.Keys(tree)) {
			key = appendKey(appendKey(key, name), tree[name])
		}
		key = append(key, '}')
	default: // what stands for an empty table, and what a Treer of the host's may hold
		key = fmt.Appendf(key, "%T%v", tree, tree)
	}
	return append(key, ',')
}

// bumpEpoch is kumo.bump_config_epoch(): what was memoized with invalidate_with_epoch is to be found anew.
func (m *module) bumpEpoch(L *lua.LState) int {
	m.options.memos.epoch.Add(1)
	return 0
}
