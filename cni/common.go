package cni

import (
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/internal/memo"
)

// Common is the configuration of a request without what belongs to its attachment: prevResult and runtimeConfig. A process that
// serves many requests need not decode it for each. The zero value says that nothing is known of it.
type Common struct {
	Text   string       // a JSON object: Config is the same, or has further keys at the end
	Memory *memo.Memory // nil remembers nothing
}

// isAll tells whether there is nothing else in the configuration.
func (r *Request) isAll() bool { return r.Common.Text != "" && string(r.Config) == r.Common.Text }

// common returns the common part of the configuration if there is one.
func (r *Request) common() (text string, ok bool) {
	text = r.Common.Text
	if text == "" || r.isAll() {
		return text, text != ""
	}
	n := len(text) - 1 // without the closing brace
	return text, len(r.Config) > n && string(r.Config[:n]) == text[:n] && r.Config[n] == ','
}

// Decode returns what a function decodes of the configuration of a request. It may be what the function has decoded of the same
// text for another request: nobody may change it, and a type T is for one function.
func Decode[T any](r *Request, decode func(config []byte) (T, error)) (T, error) {
	if !r.isAll() {
		return decode(r.Config)
	}
	return DecodeCommon(r, decode)
}

// DecodeCommon is Decode for a function that looks at neither prevResult nor runtimeConfig. It may not get to see them.
func DecodeCommon[T any](r *Request, decode func(config []byte) (T, error)) (T, error) {
	text, ok := r.common()
	if !ok {
		return decode(r.Config)
	}
	return memo.Of(r.Common.Memory, decoded[T]{text}, len(text), func() (T, error) { return decode([]byte(text)) })
}

type decoded[T any] struct{ text string }

// PrevResult returns the prevResult of the configuration, as the function [PrevResult] does.
func (r *Request) PrevResult() (*types100.Result, error) {
	if r.isAll() {
		return nil, nil
	}
	return PrevResult(r.Config)
}
