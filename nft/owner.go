package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// An Owner is the attachment that rules belong to.
type Owner struct{ Network, ContainerID, IfName string }

// String returns what the comments of an owner's elements say: "network:container:interface". None of the three can
// have a colon, so owners differ if their strings do. It has at most 122 bytes: the nft tool takes no comment of more
// than 128.
func (o Owner) String() string {
	return ownerPrefix(o.Network) + shorten(o.ContainerID, 64) + ":" + o.IfName
}

// ownerPrefix is what the strings of all owners of a network begin with.
func ownerPrefix(network string) string { return shorten(network, 41) + ":" }

// shorten replaces the end of a name that is too long by a hash of all of it. A tilde is in no name.
func shorten(name string, most int) string {
	if len(name) <= most {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	hash := "~" + hex.EncodeToString(sum[:12])
	return name[:most-len(hash)] + hash
}

// Stale returns a function that tells, of the string of any owner, whether it is one of the network and not among the
// valid attachments.
func Stale(network string, valid []types.GCAttachment) func(owner string) bool {
	keep := make(map[string]bool, len(valid))
	for _, a := range valid {
		keep[Owner{network, a.ContainerID, a.IfName}.String()] = true
	}
	return func(owner string) bool { return strings.HasPrefix(owner, ownerPrefix(network)) && !keep[owner] }
}
