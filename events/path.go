package events

import (
	"fmt"

	"github.com/lapwing-stream/lapwing/model"
)

// SplitPath parts a field name into its keys: they are joined by dots, and a dot or backslash inside a key is escaped by a
// backslash.
func SplitPath(name string) ([]string, error) {
	var keys []string
	var key []byte
	for i := 0; i <= len(name); i++ {
		if i == len(name) || name[i] == '.' {
			if len(key) == 0 {
				return nil, fmt.Errorf("field name %q has an empty part; write a backslash before a dot that belongs to a key", name)
			}
			keys = append(keys, string(key))
			key = key[:0]
			continue
		}
		if name[i] == '\\' {
			i++
			if i == len(name) || name[i] != '.' && name[i] != '\\' {
				return nil, fmt.Errorf("field name %q: a backslash stands only before a dot or a backslash", name)
			}
		}
		key = append(key, name[i])
	}
	return keys, nil
}

// A node is one place in a record: what the spec wants there, and what it wants below.
type node struct {
	field   int32 // index in Decoder.fields; -1 = none
	isTime  bool
	capture int32 // place in Decoder.got, counted from 1; 0 = not kept

	children []child // by object key
	byKey    map[string]int32
	layout   layout // how the object is written
	elems    []elem // by array index, ascending
	seen     uint64 // the record (Decoder.epoch) in which this node last had a value
}

// A child is a node below an object's key.
type child struct {
	number     bool  // node wants a number for one field, and nothing else: the common case
	field, col int32 // then that field and its column
	node       *node
}

// An elem is a node below an array's index.
type elem struct {
	index int
	node  *node
}

func newNode() *node { return &node{field: -1, layout: newLayout()} }

// leaf: the spec wants the value itself.
func (n *node) leaf() bool { return n.field >= 0 || n.isTime || n.capture > 0 }

// inner: the spec wants something below.
func (n *node) inner() bool { return len(n.children) > 0 }

// add finds or makes the node at keys. A key that is a whole number without leading zeros also names the element of
// an array, since only the record tells which of the two it has.
func (n *node) add(keys []string) *node {
	for _, k := range keys {
		at, ok := n.byKey[k]
		if !ok {
			if n.byKey == nil {
				n.byKey = map[string]int32{}
			}
			at = int32(len(n.children))
			c := child{node: newNode()}
			n.children = append(n.children, c)
			n.byKey[k] = at
			if index, ok := arrayIndex(k); ok {
				i := len(n.elems)
				for i > 0 && n.elems[i-1].index > index {
					i--
				}
				n.elems = append(n.elems, elem{})
				copy(n.elems[i+1:], n.elems[i:])
				n.elems[i] = elem{index, c.node}
			}
		}
		n = n.children[at].node
	}
	return n
}

// mark notes which children are the common case.
func (n *node) mark(fields []field) {
	for i := range n.children {
		c := &n.children[i]
		f := c.node.field
		c.number = f >= 0 && !c.node.isTime && c.node.capture == 0 && !c.node.inner() && fields[f].kind == model.Number
		if c.number {
			c.field, c.col = f, fields[f].col
		}
		c.node.mark(fields)
	}
}

// clone copies the tree: layouts and seen marks belong to one decoder.
func (n *node) clone() *node {
	c := *n
	c.seen = 0
	c.layout = n.layout.clone()
	c.children = append([]child(nil), n.children...)
	c.elems = append([]elem(nil), n.elems...)
	moved := map[*node]*node{}
	for i := range c.children {
		old := c.children[i].node
		c.children[i].node = old.clone()
		moved[old] = c.children[i].node
	}
	for i := range c.elems {
		c.elems[i].node = moved[c.elems[i].node]
	}
	return &c
}

// arrayIndex reads a key as an array index; up to 6 digits, more is no place in a record that fits in memory.
func arrayIndex(k string) (int, bool) {
	if len(k) == 0 || len(k) > 6 || len(k) > 1 && k[0] == '0' {
		return 0, false
	}
	n := 0
	for i := 0; i < len(k); i++ {
		if k[i] < '0' || k[i] > '9' {
			return 0, false
		}
		n = n*10 + int(k[i]-'0')
	}
	return n, true
}
