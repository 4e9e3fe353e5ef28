package conf

import (
	"encoding/json"
	"fmt"
	"strings"
)

// PodNetworks reads the annotations of a pod. Def is nil unless the pod names its own default network, which is looked
// for in defaultNamespace if it has none; sels are in the order of the annotation. The annotations may be hostile.
//
// What cannot be honoured as written is an error of type *types.Error, code 7, with all complaints at once. (The standard
// has such an annotation "invalid and ignored", and also says that a failure "shall immediately fail the pod network setup
// operation". A pod that starts without its networks is the worse surprise.)
func PodNetworks(annotations map[string]string, podNamespace, defaultNamespace string) (def *Selection, sels []Selection, err error) {
	var c complaints
	def = parseDefaultNetwork(annotations[AnnotationDefaultNetwork], defaultNamespace, &c)
	sels = parseSelections(AnnotationNetworks, annotations[AnnotationNetworks], podNamespace, &c)
	for i := range sels {
		if def != nil && def.TakesDefaultRoute() && sels[i].TakesDefaultRoute() {
			c.addf(fmt.Sprintf("%s[%d].default-route", AnnotationNetworks, i), "found also in %s, want it once", AnnotationDefaultNetwork)
		}
	}
	if err := c.err("annotation"); err != nil {
		return nil, nil, err
	}
	return def, sels, nil
}

func parseDefaultNetwork(annotation, namespace string, c *complaints) *Selection {
	const key = AnnotationDefaultNetwork
	if strings.TrimSpace(annotation) == "" {
		return nil
	}
	sels := parseSelections(key, annotation, namespace, c)
	if len(c.list) > 0 {
		return nil
	}
	if len(sels) != 1 {
		c.addf(key, "found %d networks, want one", len(sels))
		return nil
	}
	if claim := sels[0].IPAMClaim; claim != "" {
		// "This feature is meant exclusively for secondary networks."
		c.mismatch(key+"[0].ipam-claim-reference", claim, "none: a default network takes no claim")
	}
	return &sels[0]
}

// parseSelections decodes a list of selections.
//
// "The annotation value shall be specified in one of two possible formats": names separated by commas, or a JSON list.
func parseSelections(key, annotation, namespace string, c *complaints) (sels []Selection) {
	annotation = strings.TrimSpace(annotation)
	switch {
	case annotation == "":
	case len(annotation) > maxAnnotation:
		c.addf(key, "found %d bytes, want %d at most", len(annotation), maxAnnotation)
	case annotation[0] == '[':
		sels = parseList(key, annotation, namespace, c)
	case annotation[0] == '{', annotation[0] == '"', annotation == "null":
		c.mismatch(key, json.RawMessage(annotation), `names separated by commas like "blue, other/red@net7", or a JSON list like [{"name": "blue"}]`)
	default:
		sels = parseNames(key, annotation, namespace, c)
	}
	return sels
}

// parseNames decodes names separated by commas.
func parseNames(key, annotation, namespace string, c *complaints) (sels []Selection) {
	items := strings.Split(annotation, ",")
	if !withinSelections(key, len(items), c) {
		return nil
	}
	sels = make([]Selection, 0, len(items))
	for i, item := range items {
		sels = append(sels, parseName(strings.TrimSpace(item), fmt.Sprintf("%s[%d]", key, i), namespace, c))
	}
	return sels
}

// parseName decodes one of the names. The name of an interface is an addition of Multus to the standard.
//
// "<NetworkAttachmentDefinition object namespace>/<NetworkAttachmentDefinition object name> to reference a
// NetworkAttachmentDefinition object in a different namespace"
func parseName(item, path, namespace string, c *complaints) Selection {
	s := Selection{Namespace: namespace}
	network, ifName, hasIfName := strings.Cut(item, "@")
	ns, name, hasNamespace := strings.Cut(network, "/")
	if s.Name = network; hasNamespace {
		s.Namespace, s.Name = ns, name
	}
	if s.IfName = ifName; strings.Count(item, "@") > 1 || strings.Count(item, "/") > 1 || s.Name == "" {
		c.mismatch(path, item, "[NAMESPACE/]NAME[@INTERFACE]")
		return s
	}
	if !isLabel(s.Namespace) {
		c.mismatch(path+".namespace", s.Namespace, wantLabel)
	}
	if !isSubdomain(s.Name) {
		c.mismatch(path+".name", s.Name, wantSubdomain)
	}
	if hasIfName && !isIfName(ifName) {
		c.mismatch(path+".interface", ifName, wantIfName)
	}
	return s
}

func withinSelections(key string, n int, c *complaints) bool {
	if n > maxSelections {
		c.addf(key, "found %d networks, want %d at most", n, maxSelections)
	}
	return n <= maxSelections
}

// parseList decodes the JSON format.
func parseList(key, annotation, namespace string, c *complaints) (sels []Selection) {
	if err := CheckJSON([]byte(annotation), maxAnnotation); err != nil {
		c.addf(key, "%v", err)
		return nil
	}
	var elements []json.RawMessage
	if err := json.Unmarshal([]byte(annotation), &elements); err != nil {
		c.addf(key, "%v", err)
		return nil
	}
	if !withinSelections(key, len(elements), c) {
		return nil
	}
	sels = make([]Selection, 0, len(elements))
	owner := -1
	for i, element := range elements {
		path := fmt.Sprintf("%s[%d]", key, i)
		s := parseSelection(element, path, namespace, c)
		if s.TakesDefaultRoute() {
			// "This key must only be set on one item in the Network Attachment Selection Annotation."
			if owner >= 0 {
				c.addf(path+".default-route", "found also on element %d, want it on one only", owner)
			}
			owner = i
		}
		sels = append(sels, s)
	}
	return sels
}
