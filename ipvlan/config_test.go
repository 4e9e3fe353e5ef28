package ipvlan

import "testing"

// Configurations come from whoever may write a NetworkAttachmentDefinition.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name": "lan", "master": {"regex": "eth.*"}, "mode": "l3s", "flag": "vepa", "mtu": 1400}`))
	f.Add([]byte(`{"master": "eth1", "mode": "L2", "probe": {"count": 3}, "linkInContainer": true, "dns": {}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, err := parse(doc)
		if err == nil && (c.MTU < 0 || modes[c.Mode] != c.mode || flags[c.Flag] != c.flag) {
			t.Errorf("%s is accepted: %+v", doc, c)
		}
	})
}
