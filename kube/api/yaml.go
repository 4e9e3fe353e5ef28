package api

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

const (
	maxYAML   = 64 << 10 // in bytes: of many a thing, twice as much takes four times as long
	maxDepth  = 16       // of brackets within each other
	maxIndent = 40       // of a line, in columns
)

// fromYAML returns the JSON of YAML that is written as kubeconfigs are. The reader of YAML takes any time and memory for what is
// deep or has aliases, and has an understanding of its own of what is rare: none of that gets there.
func fromYAML(text []byte) (_ []byte, err error) {
	if err := usual(text); err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("the reader of YAML panics")
		}
	}()
	converted, err := yaml.YAMLToJSON(text)
	if e, ok := errors.AsType[yaml.Error](err); ok { // which would tell the lines around it, with a token
		return nil, fmt.Errorf("line %d: %s", e.GetToken().Position.Line, e.GetMessage())
	}
	return converted, err
}

// usual complains about what no kubeconfig needs: anchors, aliases, tags, merge keys, directives, blocks of lines, escapes, other
// letters than those of ASCII, and sizes. It looks at what is within quotes and comments too.
func usual(text []byte) error {
	if len(text) > maxYAML {
		return fmt.Errorf("%d bytes of YAML exceed the limit of %d", len(text), maxYAML)
	}
	line, depth, indented := 1, 0, 0 // indented is -1 behind the indentation of a line
	for _, c := range text {
		switch {
		case c == '\n':
			line++
			indented = 0
			continue
		case c < ' ' || c > '~' || strings.IndexByte(`&*!?%\<|>`, c) >= 0:
			return fmt.Errorf("line %d: YAML with %q", line, rune(c))
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		}
		if indented >= 0 && (c == ' ' || c == '-') {
			indented++
		} else {
			indented = -1
		}
		if depth > maxDepth || indented > maxIndent {
			return fmt.Errorf("line %d: YAML with more than %d brackets within each other, or %d columns of indentation", line, maxDepth, maxIndent)
		}
	}
	return nil
}

// ambiguous says whether YAML 1.1, as which client-go reads a kubeconfig, may have something else where YAML 1.2 has this string. A
// string with blanks may be of several lines, of which each reader has its own idea.
func ambiguous(s string) bool {
	if strings.ContainsAny(s, " \n") {
		return true
	}
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "+.inf":
		return true
	}
	s = strings.ReplaceAll(s, "_", "")
	_, notInt := strconv.ParseInt(s, 0, 64)
	_, notFloat := strconv.ParseFloat(s, 64)
	return !errors.Is(notInt, strconv.ErrSyntax) || !errors.Is(notFloat, strconv.ErrSyntax)
}
