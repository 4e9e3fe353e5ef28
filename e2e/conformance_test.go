package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/nettest"
)

// TestConformance puts the built binary, called by the names of its plugins, to the suite that they pass in-process.
func TestConformance(t *testing.T) {
	for plugin, keys := range map[string]string{
		"bridge":  `"bridge": "$BR", "isGateway": true`,
		"macvlan": `"master": "$NIC"`,
	} {
		t.Run(plugin, func(t *testing.T) {
			cnitest.Run(t, func(t *testing.T) *cnitest.Subject {
				n := &node{t: t, ns: nettest.Node(t), dir: t.TempDir(), nic: nettest.Parent(t, nettest.Node(t)).Name}
				t.Cleanup(n.removeBridges)
				config := fmt.Sprintf(`{"name": "blue", "type": %q, %s, "ipam": {"type": "host-local", "dataDir": "$DIR",
					"ranges": [[{"subnet": "10.80.0.0/16"}]], "routes": [{"dst": "203.0.113.0/24"}]}}`, plugin, keys)
				return &cnitest.Subject{
					Plugin: cni.Exec{Type: plugin, Stderr: t.Output()},
					Config: []byte(n.expand(config)),
					Path:   []string{binaries()},
					Shared: []string{"conf0"},
					Leaked: func() error {
						if held, err := filepath.Glob(filepath.Join(n.dir, "ipam/blue/10.*")); err != nil || len(held) > 0 {
							return fmt.Errorf("reserved: %q, %v", held, err)
						}
						return nil
					},
				}
			})
		})
	}
}
