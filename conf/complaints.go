package conf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"
)

// maxComplaints is how many complaints an error message has.
const maxComplaints = 20

// complaints collects everything that is wrong with a document, so that it can be put right at once.
// The zero value is ready to use.
type complaints struct {
	code uint // CNI error code, 0 for types.ErrInvalidNetworkConfig
	list []string
}

// addf complains about a key, named by its path.
func (c *complaints) addf(path, format string, args ...any) {
	complaint := fmt.Sprintf(format, args...)
	if path != "" {
		complaint = path + ": " + complaint
	}
	c.list = append(c.list, complaint)
}

// mismatch complains about a value: what was found, and what would be right.
func (c *complaints) mismatch(path string, found any, want string) {
	c.addf(path, "found %s, want %s", quote(found), want)
}

// err is nil if there is nothing to complain about.
func (c *complaints) err(subject string) error {
	if len(c.list) == 0 {
		return nil
	}
	code := c.code
	if code == 0 {
		code = types.ErrInvalidNetworkConfig
	}
	list := c.list
	if more := len(list) - maxComplaints; more > 0 {
		list = append(list[:maxComplaints:maxComplaints], fmt.Sprintf("and %d more", more))
	}
	return types.NewError(code, "invalid "+subject+": "+strings.Join(list, "; "), "")
}

func decodingError(subject string, err error) error {
	return types.NewError(types.ErrDecodingFailure, "decode "+subject+": "+err.Error(), "")
}

// maxQuote is how much of a value an error message repeats, in bytes.
const maxQuote = 80

// quote repeats a value in an error message. It may be hostile: it is cut, and cannot move a terminal's cursor.
func quote(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", cut(v))
	case json.RawMessage:
		v = bytes.TrimSpace(v)
		if len(v) > 0 && v[0] == '"' {
			var s string
			_ = json.Unmarshal(v, &s)
			return quote(s)
		}
		return cut(strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' '
			}
			return r
		}, string(v)))
	default:
		return fmt.Sprint(v)
	}
}

// printable is a key as it is written in the path of a complaint, which has no quotes.
func printable(key string) string {
	return cut(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, key))
}

func cut(s string) string {
	if len(s) <= maxQuote {
		return s
	}
	end := maxQuote
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}
