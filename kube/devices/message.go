package devices

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braid-cni/braid/resolve"
)

// podResources is what is read of the message PodResources.
type podResources struct {
	name, namespace string
	devices         map[string][]string // by resource, in the order of the message
}

// getRequest encodes GetPodResourcesRequest{pod_name = 1, pod_namespace = 2}.
func getRequest(pod resolve.Pod) (b []byte) {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, pod.Name)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendString(b, pod.Namespace)
}

// decode reads GetPodResourcesResponse or ListPodResourcesResponse, whose PodResources are both {pod_resources = 1}.
func decode(answer []byte) (pods []podResources, err error) {
	err = fields(answer, func(number protowire.Number, value []byte) error {
		if number != 1 {
			return nil
		}
		p, err := decodePod(value)
		pods = append(pods, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w, but no PodResources: %w", errGarbage, err)
	}
	return pods, nil
}

// decodePod reads PodResources{name = 1, namespace = 2, containers = 3}.
func decodePod(b []byte) (podResources, error) {
	p := podResources{devices: make(map[string][]string)}
	err := fields(b, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			p.name = string(value)
		case 2:
			p.namespace = string(value)
		case 3: // ContainerResources{devices = 2}
			return fields(value, func(number protowire.Number, value []byte) error {
				if number != 2 {
					return nil
				}
				return p.addDevices(value)
			})
		}
		return nil
	})
	return p, err
}

// addDevices reads ContainerDevices{resource_name = 1, device_ids = 2}.
func (p *podResources) addDevices(b []byte) error {
	var resource string
	var ids []string
	err := fields(b, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			resource = string(value)
		case 2:
			ids = append(ids, string(value))
		}
		return nil
	})
	p.devices[resource] = append(p.devices[resource], ids...)
	return err
}

// fields visits the strings and messages of a message, in order. Fields of other types are passed over.
func fields(b []byte, visit func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b)
			if err := visit(number, value); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return nil
}
