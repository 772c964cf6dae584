package sessions

// list is a doubly linked list whose links lie in its elements, so that moving an element allocates
// nothing. An element has one node for each list that it may be in. The zero value is empty.
type list[T any] struct {
	front, back *node[T]
	len         int
}

type node[T any] struct {
	prev, next *node[T]
	of         *T // the element that the node lies in
}

// first returns the element at the front; nil if the list is empty.
func (l *list[T]) first() *T {
	if l.front == nil {
		return nil
	}
	return l.front.of
}

// last returns the element at the back; nil if the list is empty.
func (l *list[T]) last() *T {
	if l.back == nil {
		return nil
	}
	return l.back.of
}

// all yields the elements from the front. The list must not change meanwhile.
func (l *list[T]) all(yield func(*T) bool) {
	for n := l.front; n != nil && yield(n.of); n = n.next {
	}
}

// insert puts n behind after, or at the front if after is nil.
func (l *list[T]) insert(n, after *node[T]) {
	next := l.front
	if after != nil {
		next = after.next
	}
	n.prev, n.next = after, next
	if after != nil {
		after.next = n
	} else {
		l.front = n
	}
	if next != nil {
		next.prev = n
	} else {
		l.back = n
	}
	l.len++
}

// remove takes n out. It must be in the list.
func (l *list[T]) remove(n *node[T]) {
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.front = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		l.back = n.prev
	}
	n.prev, n.next = nil, nil
	l.len--
}
