package delegate_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/bridge"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/ipam/hostlocal"
	"github.com/braid-cni/braid/macvlan"
)

// TestConformance: a plugin made of plugins keeps what they all promise. The default network is a bridge, a second
// network of every pod a macvlan.
func TestConformance(t *testing.T) {
	t.Run("plugin process", func(t *testing.T) { testConformance(t, nil) })
	t.Run("worker", func(t *testing.T) { testConformance(t, new(memo.Memory)) })
}

func testConformance(t *testing.T, memory *memo.Memory) {
	node := nettest.Node(t)
	cnitest.Run(t, func(t *testing.T) *cnitest.Subject {
		dir := t.TempDir()
		nic := nettest.Parent(t, node)
		br := nettest.Name("br")
		t.Cleanup(func() {
			if link, err := node.Handle().LinkByName(br); err == nil {
				if err := node.Handle().LinkDel(link); err != nil {
					t.Error(err)
				}
			}
		})
		own := func(find cni.Lookup) map[string]cni.Plugin {
			return map[string]cni.Plugin{"host-local": hostlocal.Plugin{}, "bridge": bridge.Plugin{Find: find}, "macvlan": macvlan.Plugin{Find: find}}
		}
		config := func(subnet, routes string) []byte {
			return fmt.Appendf(nil, `{"name":"pods","type":"braid","cniDir":%q,"logLevel":"error","delegates":[
				{"cniVersion":"1.1.0","name":"cluster","type":"bridge","bridge":%q,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.1.0.0/16"}]],
					"routes":[{"dst":"203.0.113.0/24"}]}},
				{"cniVersion":"1.1.0","name":"second","type":"macvlan","master":%q,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":%q}]]%s}}]}`,
				filepath.Join(dir, "state"), br, filepath.Join(dir, "ipam"), nic.Name, filepath.Join(dir, "ipam"), subnet, routes)
		}
		return &cnitest.Subject{
			Plugin: &delegate.Delegator{Own: own, Stderr: t.Output(), BootID: "b", Memory: memory},
			Config: config("10.2.0.0/16", ""),
			Shared: []string{br},
			Failing: map[string][]byte{
				"a gateway of the second network that cannot be reached": config("10.2.0.0/16", `,"routes":[{"dst":"198.51.100.0/24","gw":"203.0.113.9"}]`),
			},
			Leaked: func() error { return leaked(dir) },
			Deviations: map[string]string{
				"unknown keys are accepted": "a key of the operator's own configuration that is misspelt must not go unnoticed",
				"CHECK without prevResult":  "the journal has the results, those that the runtime never sees included",
			},
		}
	})
}

// leaked returns an error if there are reservations or records.
func leaked(dir string) error {
	for _, pattern := range []string{"ipam/*/10.*", "state/attachments/*.json"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) > 0 {
			return fmt.Errorf("left: %q, %v", found, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "state", "attachments")); err != nil {
		return fmt.Errorf("nothing was ever written: %w", err)
	}
	return nil
}
