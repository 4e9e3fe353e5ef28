package delegate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/resolve"
)

// maxResource is the length of a name of a resource: that of a DNS name, a slash and a label.
const maxResource = 253 + 1 + 63

// A device is one of those that a device plugin manages on the node.
type device struct {
	Resource string // that the network is of; empty if it is of none and the pod asks for the device by its identifier
	ID       string // empty for none
}

// shareDevices gives each network that is of a resource a device of it, and each pod what it asks for by identifier: of
// the devices that the kubelet has allocated to the pod, and no device to two networks. What the pod asks for comes first,
// then the networks get the devices in order. The devices are those of the choices; all complaints are joined.
func shareDevices(c *conf.Config, choices []choice, pod *resolve.Answer) ([]device, error) {
	if pod == nil {
		return make([]device, len(choices)), nil
	}
	s := sharing{pod: pod, user: make(map[device]string)}
	devices := make([]device, len(choices))
	errs := make([]error, len(choices))
	for i := range choices {
		o := &choices[i]
		devices[i].Resource = o.resource(pod)
		if n := len(devices[i].Resource); n > maxResource {
			errs[i] = invalid("annotation %s: found %d bytes, want the name of a resource, like \"vendor.com/name\"", conf.AnnotationResourceName, n)
			devices[i] = device{}
			continue
		}
		if id := o.selection.DeviceID; id != "" {
			devices[i].ID = id
			errs[i] = s.claim(o, devices[i], c.Policy.AllowsAnyDevice(o.selection.Namespace))
		}
	}
	for i := range choices {
		if devices[i].Resource != "" && devices[i].ID == "" {
			devices[i].ID, errs[i] = s.next(&choices[i], devices[i].Resource)
		}
	}
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("%s: network %s: %w", choices[i].by, choices[i].nad, err)
		}
	}
	return devices, errors.Join(errs...)
}

// resource is the one that the network's devices are of; empty if it has none.
func (o *choice) resource(pod *resolve.Answer) string {
	if o.nad == nil {
		return ""
	}
	return pod.Networks[o.nad.String()].Annotations[conf.AnnotationResourceName]
}

// A sharing knows who has got which device.
type sharing struct {
	pod  *resolve.Answer
	user map[device]string // network
}

// claim takes a device that the pod asks for. If the network is of no resource, it may be one of any.
func (s *sharing) claim(o *choice, d device, anyDevice bool) error {
	var has []device
	for resource, ids := range s.pod.Devices {
		if slices.Contains(ids, d.ID) && (d.Resource == "" || d.Resource == resource) {
			has = append(has, device{resource, d.ID})
		}
	}
	if len(has) == 0 && !anyDevice {
		if err := s.unknown(); err != nil {
			return err
		}
		return invalid("deviceID: found %q, want a device that the pod has: %s; ask for one of those, or for none", d.ID, s.allocated(d.Resource))
	}
	if len(has) == 0 {
		has = []device{{ID: d.ID}}
	}
	for _, h := range has {
		if user, used := s.userOf(h); used {
			return invalid("deviceID: found %q, which %s gets already: ask for another device, or for none", d.ID, user)
		}
		s.user[h] = fmt.Sprintf("network %s of %s", o.nad, o.by)
	}
	return nil
}

// userOf returns the network that has got a device. Of a device whose resource is not known, the identifier counts.
func (s *sharing) userOf(d device) (user string, used bool) {
	for got, user := range s.user {
		if got.ID == d.ID && (got.Resource == d.Resource || got.Resource == "" || d.Resource == "") {
			return user, true
		}
	}
	return "", false
}

// next takes the first device of a resource that nobody has got.
func (s *sharing) next(o *choice, resource string) (id string, err error) {
	for _, id := range s.pod.Devices[resource] {
		d := device{resource, id}
		if _, used := s.userOf(d); !used {
			s.user[d] = fmt.Sprintf("network %s of %s", o.nad, o.by)
			return id, nil
		}
	}
	if err := s.unknown(); err != nil {
		return "", err
	}
	return "", invalid("no device is left of resource %q: the pod has %s; its containers have to request one of %q for each network of it",
		resource, s.allocated(resource), resource)
}

// unknown is the error of a pod whose devices are not known.
func (s *sharing) unknown() error {
	switch {
	case s.pod.DevicesError != nil:
		return fmt.Errorf("the devices of the pod are not known: %w", coded(s.pod.DevicesError))
	case s.pod.Devices == nil:
		return tryAgain(errors.New("the devices of the pod are not known: braidd does not look them up, it may be of an older version"))
	}
	return nil
}

// allocated lists the devices that the pod has of a resource, or of all if it is empty.
func (s *sharing) allocated(resource string) string {
	if resource != "" {
		return list(resource, s.pod.Devices[resource])
	}
	if len(s.pod.Devices) == 0 {
		return "none"
	}
	var all []string
	for _, resource := range slices.Sorted(maps.Keys(s.pod.Devices)) {
		all = append(all, list(resource, s.pod.Devices[resource]))
	}
	return strings.Join(all, "; ")
}

func list(resource string, ids []string) string {
	if len(ids) == 0 {
		return fmt.Sprintf("none of %q", resource)
	}
	return fmt.Sprintf("%s of %q", strings.Join(ids, ", "), resource)
}
