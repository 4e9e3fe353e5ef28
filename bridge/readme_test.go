package bridge_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/braid-cni/braid/internal/manpage"
	"github.com/braid-cni/braid/internal/nettest"
)

func TestExamples(t *testing.T) {
	for name, example := range manpage.Examples(t, "README.md") {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(example, `"vlan`) {
				nettest.NeedKernel(t, nettest.VLAN, nettest.BridgeVLANFiltering)
			}
			w := newWorld(t)
			var conf struct{ Bridge string }
			must(t, json.Unmarshal([]byte(example), &conf))
			w.bridge = conf.Bridge
			p := w.pod("")
			p.req.Config = []byte(strings.Replace(example, `"type": "host-local",`, `"type": "host-local", "dataDir": "`+w.data+`",`, 1))
			must(t, p.add())
			must(t, p.check())
			must(t, p.del())
			if links := p.ns.Links(t); len(links) != 0 {
				t.Errorf("DEL left %v", links)
			}
		})
	}
}
