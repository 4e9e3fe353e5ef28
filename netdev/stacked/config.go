package stacked

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/parent"
)

// Config has the keys that macvlan and ipvlan share.
type Config struct {
	Parent        parent.Selector  `json:"master"`
	InContainer   bool             `json:"linkInContainer"`
	MTU           int              `json:"mtu"`
	TxQueues      int              `json:"numTxQueues"`
	RxQueues      int              `json:"numRxQueues"`
	SourceRouting bool             `json:"sourceRouting"`
	Detection     netdev.Detection `json:"enabledad"` // awaited by default: the link is shared with other hosts
	Probe         netdev.Probe     `json:"probe"`
	DNS           types.DNS        `json:"dns"`
}

// maxQueues is the kernel's bound.
const maxQueues = 4096

// Decode reads a configuration into a struct. Keys that the struct has not are accepted, as the reference plugins do.
// A value of the wrong type is an error of code 7 that names the key, anything else that is wrong has code 6.
func Decode(config []byte, into any) error {
	err := json.Unmarshal(config, into)
	var coded *types.Error
	var mismatch *json.UnmarshalTypeError
	switch {
	case err == nil || errors.As(err, &coded):
		return err
	case errors.As(err, &mismatch) && mismatch.Field != "":
		return Invalid(mismatch.Field, "found %s, want %s", mismatch.Value, mismatch.Type)
	}
	return types.NewError(types.ErrDecodingFailure, "decode configuration: "+err.Error(), "")
}

// Invalid is the error of a key whose value is wrong.
func Invalid(key, format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(key+": "+format, args...), "")
}

// Check refuses what no parent would make right.
func (c *Config) Check() error {
	if c.MTU < 0 {
		return Invalid("mtu", "%d is negative; leave it out, or write 0, for the MTU of the parent", c.MTU)
	}
	for key, n := range map[string]int{"numTxQueues": c.TxQueues, "numRxQueues": c.RxQueues} {
		if n < 0 || n > maxQueues {
			return Invalid(key, "found %d, want 1 to %d", n, maxQueues)
		}
	}
	return nil
}
