package devices

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/braid-cni/braid/internal/dialed"
)

// maxMessage is how long an answer may be: what is allocated to all pods of a node takes some ten kilobytes.
const maxMessage = 16 << 20

// Status codes of gRPC.
const (
	codeUnknown           = 2
	codeResourceExhausted = 8
	codeUnimplemented     = 12
)

// A statusError is that of a call which the server has answered.
type statusError struct {
	code    int
	message string
}

func (e *statusError) Error() string { return fmt.Sprintf("gRPC status %d: %s", e.code, e.message) }

// errGarbage tells that what answers does not speak the protocol.
var errGarbage = errors.New("no answer of gRPC")

// A client makes unary calls of gRPC on a unix socket.
type client struct {
	transport   *http.Transport
	connections *dialed.Connections
}

func newClient(socket string) *client {
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	connections := new(dialed.Connections)
	return &client{&http.Transport{
		Protocols:          &http2,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return connections.DialContext(ctx, "unix", socket)
		},
	}, connections}
}

func (c *client) close() {
	c.connections.Close()
	c.transport.CloseIdleConnections()
}

// call sends a message and returns the one that answers it. A message travels behind a byte that says that it is not
// compressed and its length; the status of the call comes after it, in the trailer.
func (c *client) call(ctx context.Context, method string, message []byte) ([]byte, error) {
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+method, bytes.NewReader(append(frame, message...)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w, but HTTP status %s", errGarbage, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage+int64(len(frame))+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxMessage+len(frame) {
		return nil, fmt.Errorf("%w, but more than %d bytes", errGarbage, maxMessage)
	}
	if err := status(resp); err != nil {
		return nil, err
	}
	if len(body) < len(frame) || body[0] != 0 || binary.BigEndian.Uint32(body[1:]) != uint32(len(body)-len(frame)) {
		return nil, fmt.Errorf("%w, but %d bytes that are not one message", errGarbage, len(body))
	}
	return body[len(frame):], nil
}

// status returns the error of a call whose body has been read. If the server sends no message, the status is where the
// header is.
func status(resp *http.Response) error {
	header := resp.Trailer
	if header.Get("Grpc-Status") == "" {
		header = resp.Header
	}
	code, err := strconv.Atoi(header.Get("Grpc-Status"))
	if err != nil {
		return fmt.Errorf("%w, but status %.20q", errGarbage, header.Get("Grpc-Status"))
	}
	if code == 0 {
		return nil
	}
	message, err := url.PathUnescape(header.Get("Grpc-Message"))
	if err != nil {
		message = header.Get("Grpc-Message")
	}
	return &statusError{code, message}
}
