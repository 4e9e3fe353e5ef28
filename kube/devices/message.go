package devices

import (
	"fmt"

	"github.com/VictoriaMetrics/easyproto"

	"github.com/braid-cni/braid/resolve"
)

// podResources is what is read of the message PodResources.
type podResources struct {
	name, namespace string
	devices         map[string][]string // by resource, in the order of the message
}

// getRequest encodes GetPodResourcesRequest{pod_name = 1, pod_namespace = 2}.
func getRequest(pod resolve.Pod) []byte {
	var m easyproto.Marshaler
	message := m.MessageMarshaler()
	message.AppendString(1, pod.Name)
	message.AppendString(2, pod.Namespace)
	return m.Marshal(nil)
}

// decode reads GetPodResourcesResponse or ListPodResourcesResponse, whose PodResources are both {pod_resources = 1}.
func decode(answer []byte) (pods []podResources, err error) {
	err = fields(answer, func(number uint32, value []byte) error {
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
	err := fields(b, func(number uint32, value []byte) error {
		switch number {
		case 1:
			p.name = string(value)
		case 2:
			p.namespace = string(value)
		case 3: // ContainerResources{devices = 2}
			return fields(value, func(number uint32, value []byte) error {
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
	err := fields(b, func(number uint32, value []byte) error {
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
func fields(b []byte, visit func(number uint32, value []byte) error) error {
	for len(b) > 0 {
		var field easyproto.FieldContext
		var err error
		if b, err = field.NextField(b); err != nil {
			return err
		}
		if value, ok := field.Bytes(); ok {
			if err := visit(field.FieldNum, value); err != nil {
				return err
			}
		}
	}
	return nil
}
