// Package parent finds the interface of the node that a pod's interface is stacked on: the "master" of macvlan and
// ipvlan. Nodes of one cluster name their NICs differently, so besides a name it can be a [Selector].
package parent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// A Selector is the value of "master": the name (or an alternative name) of an interface, or an object of conditions
// that hold for exactly one interface. The zero value stands for the interface of the default route.
type Selector struct {
	name         string
	regex        *regexp.Regexp // of a whole name
	subnet       netip.Prefix
	mac          string // as net.HardwareAddr prints it
	altName      string
	defaultRoute string // "", or a family as in families
}

// families that a default route is looked for in, in this order.
const (
	anyFamily = "any"
	ipv4      = "ipv4"
	ipv6      = "ipv6"
)

// Bounds for what comes from a NetworkAttachmentDefinition.
const (
	maxRegex   = 256
	maxAltName = 127 // ALTIFNAMSIZ, less the zero at the end
)

// document is the object form.
type document struct {
	Name         string `json:"name"`
	Regex        string `json:"regex"`
	Subnet       string `json:"subnet"`
	MAC          string `json:"mac"`
	AltName      string `json:"altName"`
	DefaultRoute string `json:"defaultRoute"`
}

// UnmarshalJSON implements [json.Unmarshaler]. Its errors name the key, have code 7 and say what would be right.
func (s *Selector) UnmarshalJSON(b []byte) (err error) {
	*s = Selector{}
	if string(b) == "null" {
		return nil
	}
	if bytes.HasPrefix(b, []byte(`"`)) {
		if err := json.Unmarshal(b, &s.name); err != nil {
			return err
		}
		return checkName("master", s.name)
	}
	var doc document
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a condition that is not understood must not be taken as one that holds
	if err := d.Decode(&doc); err != nil && err != io.EOF {
		return invalid("master", `%s; write the name of an interface, or an object with one of the keys `+
			`"name", "regex", "subnet", "mac", "altName", "defaultRoute"`, strings.TrimPrefix(err.Error(), "json: "))
	}
	return s.fill(doc)
}

func (s *Selector) fill(doc document) (err error) {
	if doc == (document{}) {
		return invalid("master", `the object is empty; leave "master" out for the interface of the default route`)
	}
	s.name, s.altName = doc.Name, doc.AltName
	if err := checkName("master.name", doc.Name); err != nil {
		return err
	}
	if len(doc.AltName) > maxAltName {
		return invalid("master.altName", "%q is longer than %d bytes", doc.AltName, maxAltName)
	}
	if s.regex, err = compile(doc.Regex); err != nil {
		return err
	}
	if doc.Subnet != "" {
		if s.subnet, err = netip.ParsePrefix(doc.Subnet); err != nil {
			return invalid("master.subnet", `%q is no subnet; write it as "192.0.2.0/24" or "2001:db8::/64"`, doc.Subnet)
		}
		s.subnet = s.subnet.Masked()
	}
	if doc.MAC != "" {
		mac, err := net.ParseMAC(doc.MAC)
		if err != nil {
			return invalid("master.mac", `%q is no MAC address; write it as "02:42:ac:11:00:02"`, doc.MAC)
		}
		s.mac = mac.String()
	}
	switch doc.DefaultRoute {
	case "", anyFamily, ipv4, ipv6:
		s.defaultRoute = doc.DefaultRoute
	default:
		return invalid("master.defaultRoute", `%q is none of "ipv4", "ipv6" and "any"`, doc.DefaultRoute)
	}
	return nil
}

// compile makes the expression match whole names: "eth1" is not meant to find eth10.
func compile(expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, nil
	}
	if len(expr) > maxRegex {
		return nil, invalid("master.regex", "it is longer than %d bytes", maxRegex)
	}
	re, err := regexp.Compile("^(?:" + expr + ")$")
	if err != nil {
		return nil, invalid("master.regex", "%v", err)
	}
	return re, nil
}

// checkName refuses what the kernel would not take as the name of an interface or as an alternative one.
func checkName(key, name string) error {
	if len(name) > maxAltName || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\r\n\v\f\x00") {
		return invalid(key, "%q is no name of an interface", name)
	}
	return nil
}

// IsZero tells that nothing was said: the interface of the default route is meant.
func (s Selector) IsZero() bool { return s == Selector{} }

// IsName tells that the selector is the name of an interface and nothing else.
func (s Selector) IsName() bool { return !s.IsZero() && s == Named(s.name) }

// Named returns the selector of an interface by name.
func Named(name string) Selector { return Selector{name: name} }

// String prints the conditions for messages: "eth1", or "regex ens.*, subnet 192.0.2.0/24".
func (s Selector) String() string {
	var conditions []string
	add := func(what, value string) {
		if value != "" {
			conditions = append(conditions, what+" "+value)
		}
	}
	add("name", s.name)
	add("altName", s.altName)
	if s.regex != nil {
		add("regex", s.regex.String())
	}
	if s.subnet.IsValid() {
		add("subnet", s.subnet.String())
	}
	add("mac", s.mac)
	add("default route", s.defaultRoute)
	if len(conditions) == 0 {
		return "default route"
	}
	return strings.Join(conditions, ", ")
}

func invalid(key, format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(key+": "+format, args...), "")
}
