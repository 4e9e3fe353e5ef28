package journal

import (
	"encoding/json"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
)

// decodeRecord decodes what json would, but for the networks, which are those of many records.
func decodeRecord(m *memo.Memory, d *json.Decoder, r *Record) error {
	var doc struct {
		Record
		Attachments []struct {
			Attachment
			Network json.RawMessage `json:"network"`
		} `json:"attachments"`
	}
	if err := d.Decode(&doc); err != nil {
		return err
	}
	*r = doc.Record
	for _, a := range doc.Attachments {
		if len(a.Network) > 0 && string(a.Network) != "null" {
			var err error
			if a.Attachment.Network, err = conf.UnmarshalNetwork(m, a.Network); err != nil {
				return err
			}
		}
		r.Attachments = append(r.Attachments, a.Attachment)
	}
	return nil
}
