package netdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Detection says what duplicate address detection (RFC 4862, section 5.4) is to an interface's IPv6 addresses. As JSON
// it is true, false or "optimistic".
type Detection int

const (
	// Awaited addresses are used when it has found nobody else that has them: true.
	Awaited Detection = iota
	// Skipped it is where nobody else can have the addresses: false.
	Skipped
	// Optimistic addresses are used at once, while it goes on: "optimistic". RFC 4429: "to minimize address configuration delays
	// in the successful case, to reduce disruption as far as possible in the failure case". One that somebody else has is
	// taken back by the kernel a second or two later.
	Optimistic
)

const optimistic = "optimistic"

// UnmarshalJSON implements [json.Unmarshaler]. The error, of code 7, names the key "enabledad".
func (d *Detection) UnmarshalJSON(doc []byte) error {
	var value any
	_ = json.Unmarshal(doc, &value) // of a document that is JSON
	switch value {
	case nil:
	case true:
		*d = Awaited
	case false:
		*d = Skipped
	case optimistic:
		*d = Optimistic
	default:
		return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("enabledad: found %.100s, want true, false or %q", doc, optimistic), "")
	}
	return nil
}

// After says what is left to do when the addresses have been probed: nothing, if they were.
func (d Detection) After(p Probe) Detection {
	if p.Enabled() {
		return Skipped
	}
	return d
}

// flags are those of an address that say so to the kernel.
func (d Detection) flags(ip net.IP) int {
	switch {
	case family(ip) != netlink.FAMILY_V6:
		return 0
	case d == Skipped:
		return unix.IFA_F_NODAD
	case d == Optimistic:
		return unix.IFA_F_OPTIMISTIC
	}
	return 0
}

// allowOptimistic makes an interface take optimistic addresses, and send from them. It returns false if the kernel has
// been built without them.
func (ns *Namespace) allowOptimistic(ifName string) (bool, error) {
	conf := "ipv6/conf/" + ifName + "/"
	err := ns.SetSysctls(Sysctl{conf + "optimistic_dad", "1"}, Sysctl{conf + "use_optimistic", "1"})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
