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
	conf := "ipv6/conf/" + ifName + "/"
	err := ns.SetSysctls(
		Sysctl{"ipv6/conf/lo/disable_ipv6", "0"},
		Sysctl{conf + "disable_ipv6", "0"},
		Sysctl{conf + "keep_addr_on_down", "1"},
	)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("this kernel has no IPv6: %w", err)
	}
	return err
}

// hastenDetection makes duplicate address detection quick until restore is called. It waits up to a second before it asks,
// lest all hosts ask at once after a power failure, and then another second for an answer (RFC 4862, section 5.4.2).
// Neither is needed for one pod on a local network: here it takes a quarter of a second. It asks twice in that time: the
// answer to the first packet of an interface that is a millisecond old may be lost, as it is one time in seven with Linux 7.
func (ns *Namespace) hastenDetection(ifName string) (restore func() error, err error) {
	conf, retransTime := "ipv6/conf/"+ifName+"/", "ipv6/neigh/"+ifName+"/retrans_time_ms"
	usual, err := ns.sysctl(retransTime)
	if err != nil {
		return nil, err
	}
	err = ns.SetSysctls(
		Sysctl{conf + "router_solicitation_delay", "0"},
		Sysctl{conf + "dad_transmits", "2"},
		Sysctl{retransTime, "125"},
	)
	// The pod's neighbours have as much time as anybody's to answer anything else.
	return func() error { return ns.SetSysctls(Sysctl{retransTime, usual}) }, err
}

func (ns *Namespace) sysctl(key string) (value string, err error) {
	err = ns.Do(func() error {
		b, err := os.ReadFile(filepath.Join("/proc/sys/net", key))
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}
