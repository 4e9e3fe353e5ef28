package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What is accepted at most. Nothing that a person would write comes near.
const (
	maxDepth      = 32        // objects and lists within each other
	MaxNetwork    = 256 << 10 // bytes of a network configuration
	maxAnnotation = 256 << 10 // bytes; the API server's own limit for all annotations of an object
	maxConfig     = 8 << 20   // bytes of the plugin's own configuration; at GC it lists every attachment of the node
	maxPlugins    = 16        // plugins of a network
	maxSelections = 64        // networks that an annotation selects
	maxIPs        = 64        // addresses that a selection asks for
	maxPorts      = 256       // port mappings that a selection asks for
)

// CheckJSON accepts one JSON document, of maxSize bytes at most, that every decoder understands in the same way. Refused are duplicate keys, keys
// that differ in case only (encoding/json takes "Master" for "master", so that one check could see the first and a
// plugin act on the second), text after the document, text that is not UTF-8, and what exceeds the bounds.
func CheckJSON(doc []byte, maxSize int) error {
	if len(doc) > maxSize {
		return fmt.Errorf("%d bytes exceed the limit of %d", len(doc), maxSize)
	}
	if !utf8.Valid(doc) {
		return errors.New("text is not valid UTF-8")
	}
	if err := checkSyntax(doc); err != nil {
		return err
	}
	return checkKeys(doc)
}

func checkSyntax(doc []byte) error {
	if len(bytes.TrimSpace(doc)) == 0 {
		return errors.New("the document is empty")
	}
	if json.Valid(doc) {
		return nil
	}
	var raw json.RawMessage
	err := json.Unmarshal(doc, &raw)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(doc[:syntax.Offset], []byte("\n"))
		return fmt.Errorf("line %d, byte %d: %w", line, syntax.Offset, err)
	}
	return err
}

// checkKeys walks a document that is known to be valid JSON.
func checkKeys(doc []byte) error {
	var levels []level
	for i := skipSpace(doc, 0); i < len(doc); i = skipSpace(doc, i) {
		n := len(levels)
		switch doc[i] {
		case ',', ':':
			i++
		case '}', ']':
			levels = levels[:n-1]
			next(levels)
			i++
		case '{', '[':
			var l level
			if doc[i] == '{' {
				l.keys = map[string]string{}
			}
			if levels = append(levels, l); len(levels) > maxDepth {
				return fmt.Errorf("more than %d objects and lists within each other", maxDepth)
			}
			i++
		default:
			end := endOf(doc, i)
			if n == 0 || levels[n-1].keys == nil || levels[n-1].value {
				next(levels)
			} else if err := levels[n-1].addKey(unquote(doc[i:end])); err != nil {
				return fmt.Errorf("%s%w", path(levels[:n-1]), err)
			}
			i = end
		}
	}
	return nil
}

// A level is an object or a list that checkKeys is in.
type level struct {
	keys  map[string]string // folded to written; nil in a list
	key   string            // the member being read
	index int               // the element being read
	value bool              // in an object: the next token is a value
}

// next is called after each value.
func next(levels []level) {
	if n := len(levels); n > 0 {
		levels[n-1].value = false
		levels[n-1].index++
	}
}

func (l *level) addKey(key string) error {
	folded := fold(key)
	if other, taken := l.keys[folded]; taken && other == key {
		return fmt.Errorf("key %s occurs twice", quote(key))
	} else if taken {
		return fmt.Errorf("keys %s and %s differ in case only", quote(other), quote(key))
	}
	l.keys[folded], l.key, l.value = key, key, true
	return nil
}

// path prints where an object is: "plugins[0].ipam: ".
func path(levels []level) string {
	var b strings.Builder
	for _, l := range levels {
		switch {
		case l.keys == nil:
			b.WriteString("[" + strconv.Itoa(l.index) + "]")
		case b.Len() > 0:
			b.WriteString("." + printable(l.key))
		default:
			b.WriteString(printable(l.key))
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return b.String() + ": "
}

// fold maps keys to the same string if encoding/json, in decoding to a struct, does not tell them apart.
func fold(key string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		if r < utf8.RuneSelf {
			return r
		}
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		if 'A' <= least && least <= 'Z' { // U+212A, the Kelvin sign, and U+017F, the long s
			least += 'a' - 'A'
		}
		return least
	}, key)
}
