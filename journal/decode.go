package journal

import (
	"bytes"
	"encoding/json"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
)

// decodeRecord decodes the record that b begins with, of n bytes. The networks are those of many records, and remembered. If all
// keys have to be known, one that is not is an error.
func decodeRecord(m *memo.Memory, b []byte, allKnown bool) (r *Record, n int64, err error) {
	var doc struct {
		Record
		Attachments []struct {
			Attachment
			Network json.RawMessage `json:"network"`
		} `json:"attachments"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // what the capabilities ask for may be more than a float64 can tell
	if allKnown {
		d.DisallowUnknownFields()
	}
	err = d.Decode(&doc)
	r, n = new(Record), d.InputOffset()
	*r = doc.Record
	if doc.Attachments != nil {
		r.Attachments = make([]Attachment, len(doc.Attachments))
	}
	for i, a := range doc.Attachments {
		r.Attachments[i] = a.Attachment
		if err == nil && len(a.Network) > 0 && string(a.Network) != "null" {
			r.Attachments[i].Network, err = conf.UnmarshalNetwork(m, a.Network)
		}
	}
	return r, n, err
}
