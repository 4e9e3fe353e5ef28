package netdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Sysctl is a setting below net: {"ipv4/conf/net1/arp_notify", "1"}.
type Sysctl struct{ Key, Value string }

// SetSysctls writes settings of the namespace, entering it once. One that has the value already is not written.
func (ns *Namespace) SetSysctls(settings ...Sysctl) error {
	return ns.Do(func() error {
		for _, s := range settings {
			if err := writeSysctl(s); err != nil {
				return err
			}
		}
		return nil
	})
}

func writeSysctl(s Sysctl) error {
	path := filepath.Join("/proc/sys/net", s.Key)
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == s.Value {
		return nil
	}
	if err := os.WriteFile(path, []byte(s.Value), 0); err != nil {
		return fmt.Errorf("set sysctl net/%s to %s: %w", s.Key, s.Value, err)
	}
	return nil
}

// enableIPv6 makes an interface, and lo, take IPv6 addresses, and keep them when a later plugin of the chain sets the
// interface down and up again.
func (ns *Namespace) enableIPv6(ifName string) error {
	err := ns.SetSysctls(
		Sysctl{"ipv6/conf/lo/disable_ipv6", "0"},
		Sysctl{"ipv6/conf/" + ifName + "/disable_ipv6", "0"},
		Sysctl{"ipv6/conf/" + ifName + "/keep_addr_on_down", "1"},
	)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("this kernel has no IPv6: %w", err)
	}
	return err
}
