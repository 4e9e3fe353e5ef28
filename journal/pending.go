package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Pending returns what the cluster is still to be told of an ADD; nil if that is nothing. It looks at nothing else of the
// record, which takes a tenth of the time of [Journal.Get]. Errors are those of Get.
func (j *Journal) Pending(containerID, ifName string) (json.RawMessage, error) {
	h, err := j.head(containerID, ifName)
	return h.Pending, err
}

// A head is what a record says of all of its ADD.
type head struct {
	Version int             `json:"version"`
	Done    bool            `json:"done"`
	Pending json.RawMessage `json:"pending"`
}

func (j *Journal) head(containerID, ifName string) (h head, err error) {
	path := j.path(containerID, ifName)
	b, err := readFile(path)
	if err != nil {
		return head{}, err
	}
	if h, ok := finished(b); ok {
		return h, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&h); err != nil {
		return head{}, corrupt(path, err)
	}
	if h.Version > version {
		return head{}, newer(path, b[:d.InputOffset()])
	}
	err = amendments(b[d.InputOffset():], func(members map[string]json.RawMessage) error {
		h.Done, h.Pending = string(members["done"]) == "true", members["pending"]
		return nil
	})
	if err != nil {
		return head{}, corrupt(path, err)
	}
	return h, nil
}

// What a record of this version begins with, and what is around that which is pending in the line that [Journal.Finish] writes.
// In a text, quotation marks are written in another way.
var (
	beginning = fmt.Appendf(nil, `{"version":%d,`, version)
	done      = []byte(`{"done":true,"results":[`)
	undone    = []byte(`],"pending":`)
)

// finished is head of a record as an ADD leaves it, which is nearly all that is ever asked for. It decodes only what is pending,
// a fifth of it.
func finished(b []byte) (h head, ok bool) {
	b, ok = bytes.CutSuffix(b, []byte("}\n"))
	line := b[bytes.LastIndexByte(b, '\n')+1:]
	at := bytes.LastIndex(line, undone)
	if !ok || !bytes.HasPrefix(b, beginning) || !bytes.HasPrefix(line, done) || at < 0 || bytes.IndexByte(line, 0) >= 0 {
		return head{}, false
	}
	h = head{Version: version, Done: true, Pending: line[at+len(undone):]}
	return h, json.Valid(h.Pending)
}

// Reported takes out of a record what the cluster was still to be told, now that it has been. It waits for the lock of
// the container until ctx ends. Nothing is changed, and it is no error, if the record has something else pending by now,
// or is not there any more: a later ADD or DEL has been faster.
func (j *Journal) Reported(ctx context.Context, containerID, ifName string, pending json.RawMessage) error {
	unlock, err := j.Lock(ctx, containerID)
	if err != nil {
		return err
	}
	defer unlock()
	h, err := j.head(containerID, ifName)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || len(pending) == 0 || !bytes.Equal(h.Pending, pending) {
		return err
	}
	return j.amend(containerID, ifName, amendment{Done: h.Done})
}
