package api

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
)

// A transport is a function that is a http.RoundTripper.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// WithTokenFile authenticates with the token that a file has now. client-go would use the one it knows for up to a
// minute more, in which nothing works if the old one is not accepted any more.
func WithTokenFile(path string) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			token, err := os.ReadFile(path)
			if err == nil && len(bytes.TrimSpace(token)) == 0 {
				err = fmt.Errorf("%s is empty", path)
			}
			if err != nil {
				if r.Body != nil {
					r.Body.Close()
				}
				return nil, fmt.Errorf("read token: %w", err)
			}
			return withToken(string(bytes.TrimSpace(token)), next).RoundTrip(r)
		})
	}
}

// withToken authenticates with a token.
func withToken(token string, next http.RoundTripper) http.RoundTripper {
	return transport(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+token)
		return next.RoundTrip(r)
	})
}
