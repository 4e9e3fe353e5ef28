package macvlan

import "testing"

// Configurations come from whoever may write a NetworkAttachmentDefinition.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name": "lan", "master": {"regex": "eth.*", "subnet": "192.0.2.0/24"}, "mode": "source", "sourceMACs": ["02:00:00:00:00:01"]}`))
	f.Add([]byte(`{"master": "eth1", "mtu": 1400, "bcqueuelen": 1, "hostAccess": true, "dns": {}, "enabledad": false}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, err := parse(doc)
		if err == nil && (c.MTU < 0 || len(c.sources) > maxSources || c.HostAccess && c.Mode != defaultMode) {
			t.Errorf("%s is accepted: %+v", doc, c)
		}
	})
}
