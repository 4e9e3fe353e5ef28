package delegate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/confdir"
	"github.com/braid-cni/braid/resolve"
)

// A choice is a network chosen for the pod, by the operator or by the pod, before its configuration is known.
type choice struct {
	by        string // who chose it, for messages: `key "clusterNetwork"`
	isDefault bool   // it is the cluster-wide default network
	selection conf.Selection

	named string // what the entry configuration calls it; empty if it is in there, or if the pod chose it

	// Where its configuration is: exactly one of these.
	inline *conf.Network
	path   string               // a file, or a folder whose first file counts
	nad    *resolve.NetworkName // a NetworkAttachmentDefinition
	onDisk string               // the name of a network in the configuration folder

	// nadOrDisk: if there is no such NetworkAttachmentDefinition, the name is looked for in the configuration folder.
	nadOrDisk bool

	// tenant: the configuration is that of a NetworkAttachmentDefinition which a pod of namespace podNamespace selects, so
	// it has to keep to the operator's policy. What the operator selects is free, and so is what files on the node say, though
	// the policy has a word on who selects those.
	tenant       bool
	podNamespace string
}

// choose lists the networks of a pod in the order of attachment: the cluster-wide default network, those that the
// operator adds to every pod, those that the pod selects. A nil pod selects none.
//
// Network CRD specification (6.2): "must attach the cluster-wide default network before attaching any networks
// specified by the Network Attachment Selection Annotation".
func choose(c *conf.Config, pod *resolve.Answer) ([]choice, error) {
	choices := operatorChoices(c, pod)
	if pod == nil || pod.Pod.Name == "" {
		return choices, nil
	}
	override, selections, err := conf.PodNetworks(pod.Annotations, pod.Pod.Namespace, c.NetworkNamespace)
	if err != nil {
		return nil, err
	}
	if override != nil {
		own := podChoice(conf.AnnotationDefaultNetwork, override, pod)
		own.isDefault = true
		choices = slices.Insert(slices.DeleteFunc(choices, func(o choice) bool { return o.isDefault }), 0, own)
	}
	choices = slices.Grow(choices, len(selections))
	for i := range selections {
		choices = append(choices, podChoice(conf.AnnotationNetworks, &selections[i], pod))
	}
	return choices, isolate(c, pod, choices)
}

// operatorChoices are those of the entry configuration.
func operatorChoices(c *conf.Config, pod *resolve.Answer) (choices []choice) {
	for i, network := range c.Delegates {
		choices = append(choices, choice{by: `key "delegates"`, isDefault: i == 0, inline: network})
	}
	if c.ClusterNetwork != "" {
		o := named(c, "clusterNetwork", c.ClusterNetwork)
		o.isDefault = true
		choices = append(choices, o)
	}
	if pod != nil && slices.Contains(c.SystemNamespaces, pod.Pod.Namespace) {
		return choices
	}
	for _, name := range c.DefaultNetworks {
		choices = append(choices, named(c, "defaultNetworks", name))
	}
	return choices
}

// named reads a network named in the entry configuration: a path, or the name of a NetworkAttachmentDefinition in the
// operator's namespace, or that of a configuration on disk.
func named(c *conf.Config, key, name string) choice {
	o := choice{by: fmt.Sprintf("key %q", key), named: name}
	switch {
	case strings.Contains(name, "/"):
		o.path = name
	case kubernetes(c):
		o.nad, o.nadOrDisk = &resolve.NetworkName{Namespace: c.NetworkNamespace, Name: name}, true
	default:
		o.onDisk = name
	}
	return o
}

func podChoice(annotation string, s *conf.Selection, pod *resolve.Answer) choice {
	return choice{
		by:           "annotation " + annotation,
		nad:          &resolve.NetworkName{Namespace: s.Namespace, Name: s.Name},
		selection:    *s,
		podNamespace: pod.Pod.Namespace,
	}
}

// isolate refuses networks of foreign namespaces if the operator wants namespaces isolated. Operator's own choices are
// free.
//
// Network CRD specification (7.4): "If the implementation determines that a given Network Attachment Definition
// selected by the Pod is not allowed for that Pod, it must fail the pod network operation."
func isolate(c *conf.Config, pod *resolve.Answer, choices []choice) error {
	if !c.NamespaceIsolation {
		return nil
	}
	var errs []error
	for _, o := range choices {
		if o.selection.Name == "" || o.nad.Namespace == pod.Pod.Namespace || slices.Contains(c.GlobalNamespaces, o.nad.Namespace) {
			continue
		}
		errs = append(errs, invalid("%s: pods of namespace %q must not use network %s: namespaceIsolation is on; use a network of the pod's namespace, or of %s",
			o.by, pod.Pod.Namespace, o.nad, strings.Join(c.GlobalNamespaces, ", ")))
	}
	return errors.Join(errs...)
}

// name is how the network is called in status, events and messages.
func (o *choice) name(network *conf.Network) string {
	if o.nad != nil {
		return o.nad.String()
	}
	return network.Name
}

// load finds the configuration of a chosen network.
//
// Network CRD specification (3.4.1): the configuration of the NetworkAttachmentDefinition if it has one, else a
// configuration on disk of the same name; "Otherwise, the network request must fail".
func (o *choice) load(c *conf.Config, found map[string]resolve.Network) (network *conf.Network, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", o.by, err)
		}
	}()
	switch {
	case o.inline != nil:
		return o.inline, nil
	case o.path != "":
		return confdir.FromPath(c.Memory, o.path)
	case o.onDisk != "":
		return confdir.Network(c.Memory, c.ConfDir, o.onDisk)
	}
	nad, exists := found[o.nad.String()]
	switch {
	case !exists && o.nadOrDisk:
		network, err = confdir.Network(c.Memory, c.ConfDir, o.nad.Name)
		if _, notFound := errors.AsType[*confdir.NotFoundError](err); notFound {
			return nil, fmt.Errorf("%w; nor does NetworkAttachmentDefinition %s exist", err, o.nad)
		}
		o.nad = nil
		return network, err
	case !exists:
		return nil, &noNetworkError{*o.nad}
	case nad.Config == "":
		if network, err = confdir.Network(c.Memory, c.ConfDir, o.nad.Name); err != nil {
			return nil, fmt.Errorf("NetworkAttachmentDefinition %s has no spec.config: %w", o.nad, err)
		}
		return network, nil
	}
	o.tenant = o.selection.Name != ""
	if network, err = conf.ParseNetworkWith(c.Memory, nad.Config, o.nad.Name); err != nil {
		return nil, fmt.Errorf("NetworkAttachmentDefinition %s: spec.config: %w", o.nad, err)
	}
	return network, nil
}

// loadAll finds the configurations of all choices, and joins the complaints.
func loadAll(c *conf.Config, choices []choice, found map[string]resolve.Network) ([]*conf.Network, error) {
	networks := make([]*conf.Network, len(choices))
	errs := make([]error, len(choices))
	for i := range choices {
		networks[i], errs[i] = choices[i].load(c, found)
	}
	return networks, errors.Join(errs...)
}

// A noNetworkError says that a pod selects a NetworkAttachmentDefinition that does not exist.
type noNetworkError struct{ name resolve.NetworkName }

func (e *noNetworkError) Error() string {
	return fmt.Sprintf("NetworkAttachmentDefinition %s does not exist: create it or correct the annotation", e.name)
}

func (e *noNetworkError) Unwrap() error {
	return types.NewError(types.ErrInvalidNetworkConfig, e.Error(), "")
}

func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), "")
}

// kubernetes says whether pods and networks can be looked up at all.
func kubernetes(c *conf.Config) bool { return c.Kubeconfig != "" || c.Manifests != "" }

// NewQuery asks for everything that [NewPlan] needs to know, in one request.
func NewQuery(c *conf.Config, pod resolve.Pod) *resolve.Query {
	q := &resolve.Query{Pod: pod, DefaultNamespace: c.NetworkNamespace}
	for _, o := range operatorChoices(c, nil) {
		if o.nad != nil {
			q.Networks = append(q.Networks, *o.nad)
		}
	}
	return q
}
