package jinja

import (
	"cmp"
	"math"
	"math/bits"
	"strings"
)

func (e *compareExpr) eval(r *run) (value, error) {
	left, err := e.left.eval(r)
	if err != nil {
		return value{}, err
	}
	right, err := e.right.eval(r)
	if err != nil {
		return value{}, err
	}
	yes, err := r.compare(e.at, e.op, left, right)
	return boolValue(yes), err
}

// compare applies a comparing operator.
func (r *run) compare(at position, op string, left, right value) (bool, error) {
	switch op {
	case "==":
		return r.equal(at, left, right, 0)
	case "!=":
		same, err := r.equal(at, left, right, 0)
		return !same, err
	case "in":
		return r.contains(at, right, left)
	case "not in":
		inside, err := r.contains(at, right, left)
		return !inside, err
	}
	order, err := r.order(at, left, right)
	if err != nil {
		return false, err
	}
	switch op {
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	}
	return order >= 0, nil
}

// order compares two strings or two numbers. An order between kinds, booleans
// and numbers included, is more likely a slip than meant, and refused.
func (r *run) order(at position, a, b value) (int, error) {
	if a.kind == kindString && b.kind == kindString {
		return strings.Compare(a.str, b.str), r.spend(at, min(len(a.str), len(b.str)))
	}
	if a.number() && b.number() && !a.isNaN() && !b.isNaN() {
		return compareNumbers(a, b), nil
	}
	return 0, r.fail(at, "cannot order %s and %s", describe(a), describe(b))
}

// numeric tells whether a value counts as a number for == and arithmetic, where
// true is 1.
func (v value) numeric() bool { return v.number() || v.kind == kindBool }

func (v value) isNaN() bool { return v.kind == kindFloat && math.IsNaN(v.float()) }

// compareNumbers compares without rounding an integer to a float.
func compareNumbers(a, b value) int {
	switch {
	case a.kind == kindFloat && b.kind == kindFloat:
		return cmp.Compare(a.float(), b.float())
	case a.kind == kindFloat:
		return -compareIntFloat(b.num, a.float())
	case b.kind == kindFloat:
		return compareIntFloat(a.num, b.float())
	}
	return cmp.Compare(a.num, b.num)
}

func compareIntFloat(n int64, f float64) int {
	switch {
	case f >= 1<<63:
		return -1
	case f < -1<<63:
		return 1
	}
	whole := math.Trunc(f)
	if c := cmp.Compare(n, int64(whole)); c != 0 {
		return c
	}
	return cmp.Compare(whole, f)
}

func (r *run) equal(at position, a, b value, depth int) (bool, error) {
	if depth > maxDepth {
		return false, r.fail(at, "the values nest too deeply to be compared")
	}
	if a.numeric() && b.numeric() {
		return !a.isNaN() && !b.isNaN() && compareNumbers(a, b) == 0, nil
	}
	if a.kind != b.kind {
		return false, nil
	}
	switch a.kind {
	case kindString:
		return a.str == b.str, r.spend(at, min(len(a.str), len(b.str)))
	case kindList:
		return r.equalLists(at, a, b, depth)
	case kindMap:
		return r.equalMaps(at, a, b, depth)
	case kindForeign:
		return false, r.fail(at, "cannot compare %s", describe(a))
	}
	return true, nil
}

func (r *run) equalLists(at position, a, b value, depth int) (bool, error) {
	if a.length() != b.length() {
		return false, nil
	}
	if err := r.spend(at, a.length()); err != nil {
		return false, err
	}
	for i := range a.length() {
		if same, err := r.equal(at, a.item(i), b.item(i), depth+1); !same {
			return false, err
		}
	}
	return true, nil
}

func (r *run) equalMaps(at position, a, b value, depth int) (bool, error) {
	if a.length() != b.length() {
		return false, nil
	}
	if err := r.spend(at, a.length()); err != nil {
		return false, err
	}
	for _, key := range a.keys() {
		x, _ := a.entry(key)
		y, ok := b.entry(key)
		if !ok {
			return false, nil
		}
		if same, err := r.equal(at, x, y, depth+1); !same {
			return false, err
		}
	}
	return true, nil
}

func (r *run) contains(at position, container, v value) (bool, error) {
	switch container.kind {
	case kindUndefined:
		return false, nil
	case kindString:
		text, err := r.text(at, v)
		if err != nil {
			return false, err
		}
		return strings.Contains(container.str, text), r.spend(at, len(container.str))
	case kindMap:
		if v.kind != kindString {
			return false, nil
		}
		_, ok := container.entry(v.str)
		return ok, nil
	case kindList:
		if err := r.spend(at, container.length()); err != nil {
			return false, err
		}
		for i := range container.length() {
			if same, err := r.equal(at, container.item(i), v, 0); same || err != nil {
				return same, err
			}
		}
		return false, nil
	}
	return false, r.fail(at, "%s cannot contain anything", describe(container))
}

func (e *negateExpr) eval(r *run) (value, error) {
	v, err := e.base.eval(r)
	if err != nil {
		return value{}, err
	}
	switch {
	case v.kind == kindFloat:
		return floatValue(-v.float()).hollowIf(v.hollow), nil
	case v.kind == kindInt && v.num != math.MinInt64:
		return intValue(-v.num).hollowIf(v.hollow), nil
	}
	return value{}, r.fail(e.at, "cannot negate %s", describe(v))
}

func (e *mathExpr) eval(r *run) (value, error) {
	left, err := e.left.eval(r)
	if err != nil {
		return value{}, err
	}
	right, err := e.right.eval(r)
	if err != nil {
		return value{}, err
	}
	hollow := left.hollow || right.hollow
	switch {
	case e.op == "~":
		return r.concat(e.at, left, right)
	case e.op == "+" && left.kind == kindString && right.kind == kindString:
		return r.concat(e.at, left, right)
	case !left.numeric() || !right.numeric():
		return value{}, r.fail(e.at, "cannot apply %q to %s and %s", e.op, describe(left), describe(right))
	case e.op == "/" || left.kind == kindFloat || right.kind == kindFloat:
		f, ok := floatMath(e.op, left.asFloat(), right.asFloat())
		if !ok {
			return value{}, r.fail(e.at, "division by zero")
		}
		return floatValue(f).hollowIf(hollow), nil
	}
	if right.num == 0 && (e.op == "//" || e.op == "%") {
		return value{}, r.fail(e.at, "division by zero")
	}
	n, ok := intMath(e.op, left.num, right.num)
	if !ok {
		return value{}, r.fail(e.at, "the result of %q is too large", e.op)
	}
	return intValue(n).hollowIf(hollow), nil
}

func (v value) asFloat() float64 {
	if v.kind == kindFloat {
		return v.float()
	}
	return float64(v.num)
}

// floatMath divides by // so that the remainder is not negative, and has % take
// the sign of the dividend: both as minijinja does with floats.
func floatMath(op string, a, b float64) (float64, bool) {
	switch op {
	case "+":
		return a + b, true
	case "-":
		return a - b, true
	case "*":
		return a * b, true
	}
	if b == 0 {
		return 0, false
	}
	switch op {
	case "/":
		return a / b, true
	case "%":
		return math.Mod(a, b), true
	}
	q := math.Trunc(a / b)
	if math.Mod(a, b) < 0 {
		if b > 0 {
			return q - 1, true
		}
		return q + 1, true
	}
	return q, true
}

// intMath calculates with integers; the remainder of % is never negative, and
// // fits it. ok is false on overflow.
func intMath(op string, a, b int64) (n int64, ok bool) {
	switch op {
	case "+":
		n = a + b
		return n, (n > a) == (b > 0)
	case "-":
		n = a - b
		return n, (n < a) == (b > 0)
	case "*":
		return multiply(a, b)
	}
	if a == math.MinInt64 && b == -1 {
		return 0, op == "%"
	}
	quotient, remainder := a/b, a%b
	if remainder < 0 {
		if b > 0 {
			quotient, remainder = quotient-1, remainder+b
		} else {
			quotient, remainder = quotient+1, remainder-b
		}
	}
	if op == "%" {
		return remainder, true
	}
	return quotient, true
}

func multiply(a, b int64) (int64, bool) {
	high, low := bits.Mul64(magnitude(a), magnitude(b))
	if high != 0 {
		return 0, false
	}
	if (a < 0) != (b < 0) {
		return -int64(low), low <= 1<<63
	}
	return int64(low), low < 1<<63
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

func (r *run) concat(at position, left, right value) (value, error) {
	a, err := r.text(at, left)
	if err != nil {
		return value{}, err
	}
	b, err := r.text(at, right)
	if err != nil {
		return value{}, err
	}
	if err := r.spend(at, len(a)+len(b)); err != nil {
		return value{}, err
	}
	return stringValue(a + b).hollowIf(left.leaves() || right.leaves()), nil
}

// leaves tells whether text made of the value is hollow.
func (v value) leaves() bool { return v.hollow || v.absent() && !v.silent }

// text returns a value as text, or an error for what has none.
func (r *run) text(at position, v value) (string, error) {
	s, ok := v.text()
	if !ok {
		return "", r.fail(at, "cannot make text of %s", describe(v))
	}
	return s, nil
}
