package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Plugin and keeper talk over a unix socket: the plugin connects and sends one Request, the keeper answers with one
// Response and closes. If the plugin goes away before it is answered, what it asked for is not wanted any more.

// DefaultSocket is the path of the socket where nothing else is configured. It is that of the reference plugin.
const DefaultSocket = "/run/cni/dhcp.sock"

// ProtocolVersion is that of the documents below, and of the records.
const ProtocolVersion = 1

// maxDocument bounds a document. The largest is the list of valid attachments of a GC.
const maxDocument = 4 << 20

// The verbs are those of CNI.
const (
	VerbAdd    = "ADD"
	VerbDel    = "DEL"
	VerbCheck  = "CHECK"
	VerbGC     = "GC"
	VerbStatus = "STATUS"
)

// A Request is what a plugin asks of the keeper.
type Request struct {
	Version int                  `json:"version"`
	Verb    string               `json:"verb"`
	Spec    Spec                 `json:"spec"`            // ADD: all of it; DEL, CHECK: the key; GC: the network
	Valid   []types.GCAttachment `json:"valid,omitempty"` // GC: the attachments to keep
}

// A Response is the answer. Either has Error a value, or the verb has succeeded.
type Response struct {
	Version int          `json:"version"`
	Error   *types.Error `json:"error,omitempty"`
	Held    Held         `json:"held"` // ADD, CHECK
}

// DetailsEnding are the details of the error that a keeper has for an ADD when it is about to end. The next one may be about
// to begin.
const DetailsEnding = "the lease keeper is ending"

// Read decodes one document, strictly.
func Read(r io.Reader, document any) error {
	limited := &io.LimitedReader{R: r, N: maxDocument}
	d := json.NewDecoder(limited)
	d.DisallowUnknownFields()
	if err := d.Decode(document); err != nil {
		if limited.N <= 0 {
			return fmt.Errorf("the document exceeds %d bytes", maxDocument)
		}
		return err
	}
	return nil
}

// Dir returns the folder of the records of the keeper that listens on a socket: /run/cni/dhcp.sock has
// /run/cni/dhcp.leases. A plugin finds them there when there is no keeper.
func Dir(socket string) string { return strings.TrimSuffix(socket, ".sock") + ".leases" }

// Bounds of a Spec, so that nobody can have the keeper remember, or send, more than makes sense.
const (
	maxString  = 4096 // of a path, or a name
	maxOptions = 64
	maxLabels  = 255
)

// Validate refuses a Spec that the plugin cannot have sent.
func (s *Spec) Validate() error {
	size := 0
	for _, o := range s.Provide {
		size += len(o.Value)
		if len(o.Value) > maxLabels {
			return fmt.Errorf("option %d has %d bytes, at most 255 fit", o.Code, len(o.Value))
		}
	}
	switch {
	case s.ContainerID == "" || s.Network == "" || s.IfName == "" || !filepath.IsAbs(s.Netns):
		return fmt.Errorf("the key %s or the namespace %q is incomplete", s.Key, s.Netns)
	case len(s.Key.String()) > maxString || len(s.Netns) > maxString:
		return fmt.Errorf("the key or the namespace exceeds %d bytes", maxString)
	case !s.IPv4 && !s.IPv6:
		return errors.New("neither an IPv4 nor an IPv6 lease is asked for")
	case len(s.Provide) > maxOptions || size > MaxOptionBytes || len(s.Request) > maxLabels:
		return errors.New("too many options")
	}
	return nil
}

// MaxOptionBytes bounds the values of all options that are provided, so that every message fits into one packet.
const MaxOptionBytes = 700
