package main

import (
	"bytes"

	"github.com/braid-cni/braid/internal/edge"
)

const socketKey = "daemonSocket"

var defaultSocket = []byte(edge.DefaultDaemonSocket)

// daemonSocket returns where the daemon listens, according to a configuration. To link package encoding/json would cost each call 0.1 to
// 0.2 ms, so this reads the one key, of the outermost object only: what is within may be a tenant's. It returns false where that is not
// as plain as everybody writes it: braid reads it then.
//
// It allocates nothing: see early.
func daemonSocket(config []byte) (path []byte, ok bool) {
	path = defaultSocket
	depth, found := 0, false
	for len(config) > 0 {
		switch c := config[0]; c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			text, rest, closed := jsonString(config)
			if !closed {
				return nil, false
			}
			config = rest
			value, isKey := bytes.CutPrefix(trimSpace(config), []byte(":"))
			if depth != 1 || !isKey || !bytes.EqualFold(text, []byte(socketKey)) && bytes.IndexByte(text, '\\') < 0 {
				continue
			}
			socket, rest, closed := jsonString(trimSpace(value))
			if string(text) != socketKey || found || !closed || !bytes.HasPrefix(socket, []byte("/")) || bytes.IndexByte(socket, '\\') >= 0 {
				return nil, false
			}
			path, found, config = socket, true, rest
			continue
		}
		config = config[1:]
	}
	return path, depth == 0
}

// jsonString cuts a string, still escaped, from the begin of some JSON.
func jsonString(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return b[1:i], b[i+1:], true
		}
	}
	return nil, nil, false
}

func trimSpace(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }
