package cni

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"
)

// PrevResult returns the prevResult of a configuration, whatever CNI version it was written in; nil if there is none.
// Errors carry code 6. The indexes in ips[].interface are as they were found: they may point nowhere.
func PrevResult(config []byte) (*types100.Result, error) {
	var conf struct {
		CNIVersion string          `json:"cniVersion"`
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.Unmarshal(config, &conf); err != nil {
		return nil, decodingError("configuration", err)
	}
	if len(conf.PrevResult) == 0 || string(conf.PrevResult) == "null" {
		return nil, nil
	}
	res, err := unmarshalResult(conf.PrevResult, conf.CNIVersion)
	if err != nil {
		return nil, decodingError("prevResult", err)
	}
	return res, nil
}

// ValidAttachments returns the attachments that a GC must keep. A configuration that has no such list is an error, not
// an empty list: taking the one for the other would remove every attachment of the network. Errors carry code 6, or 7
// for a missing list.
func ValidAttachments(config []byte) ([]types.GCAttachment, error) {
	var conf struct {
		Valid json.RawMessage `json:"cni.dev/valid-attachments"`
		// The name that the first libcni to have GC sent, before it was corrected to that of the specification.
		Legacy json.RawMessage `json:"cni.dev/attachments"`
	}
	if err := json.Unmarshal(config, &conf); err != nil {
		return nil, decodingError("configuration", err)
	}
	list := conf.Valid
	if list == nil {
		list = conf.Legacy
	}
	if list == nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, `missing key "cni.dev/valid-attachments"`, "")
	}
	var valid []types.GCAttachment
	if err := json.Unmarshal(list, &valid); err != nil {
		return nil, decodingError("cni.dev/valid-attachments", err)
	}
	return valid, nil
}

// MarshalResult returns the JSON of a result in the given CNI version; an empty version means 0.1.0. It fails if that
// version cannot express the result: 0.1.0 and 0.2.0 need at least one IP address (and keep the first of each family
// only).
func MarshalResult(res *types100.Result, cniVersion string) ([]byte, error) {
	if err := validateResult(res); err != nil {
		return nil, err
	}
	from := *res // the converters write to it
	from.CNIVersion = types100.ImplementedSpecVersion
	to, err := from.GetAsVersion(cniVersion)
	if err != nil {
		return nil, fmt.Errorf("convert result to CNI version %q: %w", cniVersion, err)
	}
	if current, ok := to.(*types100.Result); ok {
		return json.Marshal(Document(current))
	}
	return json.Marshal(to)
}

// ParseResult decodes a result on its own, such as one that was kept on disk. ConfVersion is that of the configuration it was
// made with.
func ParseResult(doc []byte, confVersion string) (*types100.Result, error) {
	return unmarshalResult(doc, confVersion)
}

// unmarshalResult decodes one result. One that does not tell its version (before 1.0.0 none had to) is of that of
// the configuration.
func unmarshalResult(doc []byte, confVersion string) (*types100.Result, error) {
	var head struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		return nil, err
	}
	if head.CNIVersion == "" {
		head.CNIVersion = confVersion
	}
	res := new(types100.Result)
	if atLeast(head.CNIVersion, "0.3.0") {
		// These versions differ in ips[].version only, which the address tells as well. Not by way of the
		// library's converter: a null in a list would make it panic.
		if !slices.Contains(version.All.SupportedVersions(), head.CNIVersion) {
			return nil, fmt.Errorf("unsupported CNI version %q of a result", head.CNIVersion)
		}
		if err := json.Unmarshal(doc, res); err != nil {
			return nil, err
		}
	} else {
		old, err := create.Create(head.CNIVersion, doc)
		if err != nil {
			return nil, err
		}
		if res, err = types100.NewResultFromResult(old); err != nil {
			return nil, err
		}
	}
	res.CNIVersion = types100.ImplementedSpecVersion
	return res, validateResult(res)
}

// maxList is how many interfaces, addresses or routes a result may have.
const maxList = 4096

// validateResult refuses what would make a reader of the result panic or read nonsense.
func validateResult(res *types100.Result) error {
	if res == nil {
		return fmt.Errorf("result is null")
	}
	for _, list := range []struct {
		key string
		len int
	}{{"interfaces", len(res.Interfaces)}, {"ips", len(res.IPs)}, {"routes", len(res.Routes)}} {
		if list.len > maxList {
			return fmt.Errorf("%s: found %d, want %d at most", list.key, list.len, maxList)
		}
	}
	for i, iface := range res.Interfaces {
		if iface == nil {
			return fmt.Errorf("interfaces[%d] is null", i)
		}
	}
	for i, ip := range res.IPs {
		if ip == nil || !isCIDR(ip.Address) {
			return fmt.Errorf("ips[%d] has no address", i)
		}
	}
	for i, route := range res.Routes {
		if route == nil || !isCIDR(route.Dst) {
			return fmt.Errorf("routes[%d] has no dst", i)
		}
	}
	return nil
}

func isCIDR(n net.IPNet) bool {
	_, bits := n.Mask.Size()
	return n.IP != nil && bits != 0
}

// atLeast compares versions; one that is none at all is less than any other. The empty version is 0.1.0.
func atLeast(v, least string) bool {
	ok, err := version.GreaterThanOrEqualTo(v, least)
	return ok && err == nil
}

func decodingError(what string, err error) error {
	return types.NewError(types.ErrDecodingFailure, fmt.Sprintf("decode %s: %v", what, err), "")
}
