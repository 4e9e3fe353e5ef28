package ipam

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

// ParseRoutes decodes the key "ipam.routes", which every IPAM plugin has, from its elements. All complaints are joined;
// each names its key and has code 7.
func ParseRoutes(elements []json.RawMessage) (routes []*types.Route, err error) {
	var errs []error
	for i, element := range elements {
		r := new(types.Route)
		complain := func(format string, args ...any) {
			msg := fmt.Sprintf("ipam.routes[%d]", i) + fmt.Sprintf(format, args...)
			errs = append(errs, types.NewError(types.ErrInvalidNetworkConfig, msg, ""))
		}
		switch err := json.Unmarshal(element, r); {
		case err != nil:
			complain(": %v", err)
		case r.Dst.IP == nil:
			complain(` has no dst: want a subnet like "0.0.0.0/0"`)
		case r.GW != nil && (r.GW.To4() == nil) != (r.Dst.IP.To4() == nil):
			complain(".gw is %s: want an address of the IP family of dst, %s", r.GW, &r.Dst)
		}
		routes = append(routes, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return routes, nil
}
