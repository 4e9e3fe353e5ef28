package store

import (
	"strings"

	"github.com/containernetworking/cni/pkg/utils"
)

// An Owner is the attachment that an address is reserved for. Reservations of host-local before 0.7 name the container
// only: their IfName is empty.
type Owner struct{ ContainerID, IfName string }

// content is what a reservation of the owner has in its file, byte for byte that of the reference plugin.
func (o Owner) content() string {
	id := strings.TrimSpace(o.ContainerID)
	if o.IfName == "" {
		return id
	}
	return id + "\r\n" + o.IfName
}

func (o Owner) String() string {
	if o.IfName == "" {
		return "container " + o.ContainerID
	}
	return o.IfName + " of container " + o.ContainerID
}

// parseOwner reads the content of a reservation. White space around it does not matter, as in the reference. What is
// not the content of an owner was put there by somebody else.
func parseOwner(content string) (o Owner, ok bool) {
	if len(content) >= maxContent {
		return Owner{}, false
	}
	o.ContainerID, o.IfName, _ = strings.Cut(strings.TrimSpace(content), "\r\n")
	if utils.ValidateContainerID(o.ContainerID) != nil {
		return Owner{}, false
	}
	if o.IfName != "" && utils.ValidateInterfaceName(o.IfName) != nil {
		return Owner{}, false
	}
	return o, true
}

// torn says that a reservation was never written: a process or the node died between creating the file and its content
// reaching the disk. Some file systems leave the length, and zeros.
func torn(content string) bool {
	return len(content) < maxContent && strings.Trim(content, "\x00 \t\r\n") == ""
}
