package events

// A walker visits the leaves of JSON objects that have been checked before, and gives them to the inference by path.
type walker struct {
	in   *inference
	path []byte
}

func (w *walker) record(b []byte) {
	w.path = w.path[:0]
	w.object(b, skipBlank(b, 0), 1)
}

func (w *walker) object(b []byte, i, depth int) int {
	i = skipBlank(b, i+1)
	for b[i] != '}' {
		start := i + 1
		end, escaped := stringEnd(b, start)
		key := b[start:end]
		if escaped {
			key = unescape(nil, key)
		}
		i = skipBlank(b, end+1)
		i = skipBlank(b, i+1)
		mark := len(w.path)
		i = w.value(b, i, w.push(key), depth)
		w.path = w.path[:mark]
		if i = skipBlank(b, i); b[i] == ',' {
			i = skipBlank(b, i+1)
		}
	}
	return i + 1
}

// push adds a key to the path; false where the path cannot name it, since the key is empty.
func (w *walker) push(key []byte) bool {
	if len(w.path) > 0 {
		w.path = append(w.path, '.')
	}
	for _, c := range key {
		if c == '.' || c == '\\' {
			w.path = append(w.path, '\\')
		}
		w.path = append(w.path, c)
	}
	return len(key) > 0
}

// value visits the value at b[i]. Where wanted is false it is only passed over.
func (w *walker) value(b []byte, i int, wanted bool, depth int) int {
	start := i
	kind, lit := kindNumber, []byte(nil)
	switch b[i] {
	case '{':
		if !wanted || depth >= MaxDepth {
			return w.skip(b, i)
		}
		if b[skipBlank(b, i+1)] == '}' {
			w.in.observe(string(w.path), kindObject, nil)
		}
		return w.object(b, i, depth+1)
	case '[':
		if !wanted || depth >= MaxDepth {
			return w.skip(b, i)
		}
		if b[skipBlank(b, i+1)] == ']' {
			w.in.observe(string(w.path), kindArray, nil)
		}
		i = skipBlank(b, i+1)
		for index := 0; b[i] != ']'; index++ {
			mark := len(w.path)
			if index < maxElements {
				w.push(appendInt(nil, index))
				i = w.value(b, i, true, depth+1)
			} else {
				i = w.value(b, i, false, depth+1)
			}
			w.path = w.path[:mark]
			if i = skipBlank(b, i); b[i] == ',' {
				i = skipBlank(b, i+1)
			}
		}
		return i + 1
	case '"':
		end, escaped := stringEnd(b, i+1)
		kind, lit, i = kindText, b[i+1:end], end+1
		if escaped {
			lit = unescape(nil, lit)
		}
	case 't':
		kind, i = kindTrue, i+4
		lit = b[start:i]
	case 'f':
		kind, i = kindFalse, i+5
		lit = b[start:i]
	case 'n':
		kind, i = kindNull, i+4
	default:
		i, _, _, _ = scanNumber(b, i)
		lit = b[start:i]
	}
	if wanted {
		w.in.observe(string(w.path), kind, lit)
	}
	return i
}

// skip passes over the checked object or array at b[i].
func (w *walker) skip(b []byte, i int) int {
	open := 0
	for ; ; i++ {
		switch b[i] {
		case '"':
			i, _ = stringEnd(b, i+1)
		case '{', '[':
			open++
		case '}', ']':
			if open--; open == 0 {
				return i + 1
			}
		}
	}
}

// stringEnd is the index of the closing quote of a checked string whose first byte is b[i].
func stringEnd(b []byte, i int) (end int, escaped bool) {
	for b[i] != '"' {
		if b[i] == '\\' {
			escaped = true
			i++
		}
		i++
	}
	return i, escaped
}

func appendInt(dst []byte, n int) []byte {
	if n >= 10 {
		dst = appendInt(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}
