//go:build node

package node

import (
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestNode(t *testing.T) {
	n := Start(t)
	n.WaitNodeReady(t, 30*time.Second, false)
	t.Log(n.Kubectl(t, "", "get", "node", "-o", "wide"))
}
