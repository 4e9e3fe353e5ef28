package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/plainfile"
)

// An amendment is a line behind a record: what has become of its ADD. To write one is to write the end of a file that is
// there, where the record anew would be another file, on the disk before it takes the place of the one before.
type amendment struct {
	Done    bool                  `json:"done,omitempty"`
	Results []*cni.ResultDocument `json:"results,omitempty"` // of the attachments, in their order; none: as before
	Pending json.RawMessage       `json:"pending,omitempty"` // instead of what was
}

// Finish adds to the record that Begin has written what became of the ADD: Done, Pending and the results; nothing else of
// it is written. It lasts as long as what Put writes. The caller has the lock of the container.
func (j *Journal) Finish(r *Record) error {
	a := amendment{Done: r.Done, Pending: r.Pending}
	for i := range r.Attachments {
		a.Results = append(a.Results, cni.Document(r.Attachments[i].Result))
	}
	err := j.amend(r.ContainerID, r.IfName, a)
	if errors.Is(err, fs.ErrNotExist) { // somebody has removed it
		return j.Put(r)
	}
	return err
}

func (j *Journal) amend(containerID, ifName string, a amendment) error {
	line, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	// A line of its own, whatever is before it.
	line = append(append([]byte{'\n'}, line...), '\n')
	f, err := plainfile.Open(j.path(containerID, ifName), unix.O_WRONLY|unix.O_APPEND|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = bounded(containerID, info.Size()+int64(len(line)))
	}
	if err == nil {
		_, err = f.Write(line)
	}
	return errors.Join(err, f.Close())
}

// bounded refuses a record that nobody would read.
func bounded(containerID string, size int64) error {
	if size > maxRecord {
		return fmt.Errorf("the record of container %s has %d bytes: at most %d are possible", containerID, size, maxRecord)
	}
	return nil
}

// amendments calls take with the members of each that follows a record. One that was not written to its end does not
// count: the plugin was killed, or the power went, before anybody was told of it.
func amendments(lines []byte, take func(map[string]json.RawMessage) error) error {
	if len(lines) > 0 && lines[0] != '\n' && lines[0] != 0 { // some file systems leave zeros of what was not written
		return errors.New("something follows the record")
	}
	for line := range bytes.SplitSeq(lines, []byte{'\n'}) {
		if len(line) == 0 {
			continue
		}
		var members map[string]json.RawMessage
		err := json.Unmarshal(line, &members)
		if _, torn := errors.AsType[*json.SyntaxError](err); torn {
			continue
		}
		if err == nil {
			err = take(members)
		}
		if err != nil {
			return fmt.Errorf("amendment: %w", err)
		}
	}
	return nil
}

// take applies an amendment.
func (r *Record) take(members map[string]json.RawMessage) error {
	var a amendment
	var results []*types100.Result
	for key, value := range members {
		var err error
		switch key {
		case "done":
			err = json.Unmarshal(value, &a.Done)
		case "pending":
			a.Pending = value
		case "results":
			err = json.Unmarshal(value, &results)
		default: // a later version has added it
			if r.Unknown == nil {
				r.Unknown = make(Unknown)
			}
			r.Unknown[key] = value
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if n := len(results); n != 0 && n != len(r.Attachments) {
		return fmt.Errorf("%d results of %d attachments", n, len(r.Attachments))
	}
	r.Done, r.Pending = a.Done, a.Pending
	for i, res := range results {
		r.Attachments[i].Result = res
	}
	return nil
}
