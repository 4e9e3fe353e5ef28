package cnitest_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/nettest"
)

// mutantEnv names a fault that the plugin under test is to have.
const mutantEnv = "CNITEST_MUTANT"

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

func TestSuite(t *testing.T) {
	t.Run("interface", func(t *testing.T) {
		cnitest.Run(t, func(t *testing.T) *cnitest.Subject { return newToy(t, os.Getenv(mutantEnv)).subject() })
	})
	t.Run("layer 2", func(t *testing.T) {
		cnitest.Run(t, func(t *testing.T) *cnitest.Subject { return newToy(t, "").layer2() })
	})
	t.Run("IPAM", func(t *testing.T) {
		cnitest.Run(t, func(t *testing.T) *cnitest.Subject { return newToy(t, "").ipam() })
	})
}

// A suite that a faulty plugin passes is worth nothing: every fault must be found by the case that is meant for it.
func TestSuiteFindsFaults(t *testing.T) {
	nettest.NeedRoot(t)
	faults := map[string]string{
		"link down":           "ADD makes the interface and says so",
		"wrong mac":           "ADD makes the interface and says so",
		"wrong sandbox":       "ADD makes the interface and says so",
		"no index":            "ADD assigns the addresses and routes of the result",
		"no address":          "ADD assigns the addresses and routes of the result",
		"no route":            "ADD assigns the addresses and routes of the result",
		"no prevResult":       "ADD passes prevResult on",
		"takes any name":      "ADD refuses an interface name that is taken",
		"undo by name":        "ADD refuses an interface name that is taken",
		"no undo":             "ADD that fails leaves nothing",
		"undo needs context":  "ADD that is cancelled leaves nothing",
		"keeps reservation":   "DEL without prevResult",
		"race":                "containers in parallel",
		"strict":              "unknown keys are accepted",
		"new versions":        "every version of the specification",
		"DEL once":            "DEL is repeated",
		"DEL needs ADD":       "DEL without ADD",
		"DEL needs prev":      "DEL without prevResult",
		"DEL needs link":      "DEL when the interface is gone",
		"DEL needs namespace": "DEL when the namespace is gone",
		"DEL needs netns":     "DEL with an empty CNI_NETNS",
		"DEL needs nsfs":      "DEL when CNI_NETNS is a plain file",
		"DEL of container":    "DEL of one leaves the other",
		"CHECK fails":         "CHECK passes right after ADD",
		"CHECK without prev":  "CHECK without prevResult",
		"CHECK is exact":      "CHECK allows what a later plugin changed",
		"CHECK no link":       "CHECK notices a deleted interface",
		"CHECK no state":      "CHECK notices an interface that is down",
		"CHECK no address":    "CHECK notices a missing address",
		"CHECK no route":      "CHECK notices a missing route",
		"CHECK nothing":       "CHECK after DEL",
		"STATUS fails":        "STATUS passes",
		"GC nothing":          "GC removes the stale and keeps the valid",
		"GC all":              "GC removes the stale and keeps the valid",
		"GC by container":     "GC tells the interfaces of a container apart",
		"GC no empty list":    "GC with nothing valid",
		"changes request":     "ADD again after DEL",
		"leaks descriptor":    "DEL without ADD",
	}
	for fault, name := range faults {
		t.Run(fault, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestSuite$/^interface$/^"+strings.ReplaceAll(name, " ", "_")+"$", "-test.v")
			cmd.Env = append(os.Environ(), mutantEnv+"="+fault)
			out, err := cmd.CombinedOutput()
			if !bytes.Contains(out, []byte("--- FAIL: TestSuite/interface/"+strings.ReplaceAll(name, " ", "_"))) {
				t.Errorf("%q does not find it (%v):\n%s", name, err, out)
			}
		})
	}
}
