package node

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// Left returns what there is on the node of any pod: interfaces, network namespaces, reservations, records, files of CNI's
// own cache, and nftables rules.
func (n *Node) Left() (things []string, err error) {
	links, err := netlink.LinkList() // an error if links come and go meanwhile
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		// Bridges stay, as those of the reference plugin do: other pods' ports may be about to come.
		if name := link.Attrs().Name; name != "lo" && name != NIC && link.Type() != "bridge" {
			things = append(things, fmt.Sprintf("%s %s", link.Type(), name))
		}
	}
	for _, pattern := range []string{
		"/run/netns/*", "/var/lib/cni/networks/*/*", "/var/lib/cni/results/*", "/var/lib/cni/braid/attachments/*.json",
	} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			// Of host-local's folders the addresses only.
			name := filepath.Base(file)
			if !strings.HasPrefix(name, "last_reserved_ip") && !strings.HasPrefix(name, ".") && name != "lock" {
				things = append(things, file)
			}
		}
	}
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		return nil, fmt.Errorf("nft list ruleset: %w", err)
	}
	for line := range strings.Lines(string(rules)) {
		// Addresses of pods, and names of their chains and interfaces.
		for _, sign := range []string{"10.244.0.", "10.10.", "192.0.2.", "CNI-DN-", "veth"} {
			if strings.Contains(line, sign) {
				things = append(things, "rule "+strings.TrimSpace(line))
				break
			}
		}
	}
	slices.Sort(things)
	return things, nil
}

// WaitNothingLeft waits until nothing of any pod is on the node. What stays is an error once, and not that of later tests.
func (n *Node) WaitNothingLeft(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		left, err := n.Left()
		left = slices.DeleteFunc(left, func(thing string) bool { return slices.Contains(n.known, thing) })
		if err == nil && len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			n.known = append(n.known, left...)
			t.Errorf("left behind: %v\n%s", err, strings.Join(left, "\n"))
			return
		}
	}
}
