package netdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/cni"
)

// RequestedMAC returns the MAC address that a request asks for, or nil. The last of these counts: "mac" of the
// configuration, MAC of CNI_ARGS, args.cni.mac, runtimeConfig.mac. The error, of code 7, names the one that is wrong.
func RequestedMAC(req *cni.Request) (net.HardwareAddr, error) {
	conf, err := cni.Decode(req, decodeMACs)
	if err != nil {
		return nil, err
	}
	fromArgs, _ := req.Arg("MAC")
	var mac net.HardwareAddr
	for _, source := range []struct{ key, value string }{
		{"mac", conf.MAC},
		{"MAC of CNI_ARGS", fromArgs},
		{"args.cni.mac", conf.Args.CNI.MAC},
		{"runtimeConfig.mac", conf.RuntimeConfig.MAC},
	} {
		if source.value == "" {
			continue
		}
		parsed, err := ParseMAC(source.value)
		if err != nil {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("%s: %q %v", source.key, source.value, err), "")
		}
		mac = parsed
	}
	return mac, nil
}

// macs are the keys that ask for a MAC address.
type macs struct {
	MAC  string `json:"mac"`
	Args struct {
		CNI struct {
			MAC string `json:"mac"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`
}

func decodeMACs(config []byte) (m macs, err error) {
	err = json.Unmarshal(config, &m)
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return m, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("%s: found %s, want %s", mismatch.Field, mismatch.Value, mismatch.Type), "")
	} else if err != nil {
		return m, types.NewError(types.ErrDecodingFailure, "decode configuration: "+err.Error(), "")
	}
	return m, nil
}

// ParseMAC parses the MAC address of an interface. The error is to be put after the value: it says what is wrong with it.
func ParseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	switch {
	case err != nil || len(mac) != 6:
		return nil, fmt.Errorf(`is no MAC address; write it as "02:42:ac:11:00:02"`)
	case mac[0]&1 != 0:
		return nil, fmt.Errorf("is a multicast address; the first octet of an interface's address must be even")
	case mac.String() == "00:00:00:00:00:00":
		return nil, fmt.Errorf("is not an address that an interface can have")
	}
	return mac, nil
}
