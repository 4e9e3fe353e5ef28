package conf_test

import (
	"strings"
	"testing"

	"github.com/braid-cni/braid/conf"
)

// Each bound is tested at the limit and one above. What is beyond has to be said with the key, what was found, and what is
// allowed.
func TestLimits(t *testing.T) {
	const maxDepth, maxPlugins, maxSelections, maxIPs, maxPorts, maxText = 32, 16, 64, 64, 256, 256 << 10
	repeat := func(element string, n int) string { return strings.TrimSuffix(strings.Repeat(element+",", n), ",") }
	annotation := func(s string) error {
		_, err := parseSelections(s, "default")
		return err
	}
	network := func(s string) error {
		_, err := conf.ParseNetwork([]byte(s), "net")
		return err
	}
	config := func(s string) error {
		_, err := conf.Parse([]byte(s))
		return err
	}
	fill := func(open, closing string, size int) string { // one more of x than fits is too much
		return open + strings.Repeat("x", size-len(open)-len(closing)) + closing
	}
	depth := func(n int) string { // the configuration itself is one level
		return `{"cniVersion":"1.1.0","type":"x","deep":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`
	}
	for _, tt := range []struct {
		name    string
		limit   int
		parse   func(string) error
		doc     func(n int) string
		code    uint
		refusal string
	}{
		{"networks by name", maxSelections, annotation, func(n int) string { return repeat("a", n) }, 7,
			"k8s.v1.cni.cncf.io/networks: found 65 networks, want 64 at most"},
		{"networks by list", maxSelections, annotation, func(n int) string { return "[" + repeat(`{"name":"a"}`, n) + "]" }, 7,
			"k8s.v1.cni.cncf.io/networks: found 65 networks, want 64 at most"},
		{"bytes of an annotation", maxText, annotation, func(n int) string { return fill(`[{"name":"a","cni-args":{"x":"`, `"}}]`, n) }, 7,
			"k8s.v1.cni.cncf.io/networks: found 262145 bytes, want 262144 at most"},
		{"addresses", maxIPs, annotation, func(n int) string { return `[{"name":"a","ips":[` + repeat(`"10.0.0.1"`, n) + `]}]` }, 7,
			"k8s.v1.cni.cncf.io/networks[0].ips: found 65 addresses, want 64 at most"},
		{"port mappings", maxPorts, annotation, func(n int) string {
			return `[{"name":"a","portMappings":[` + repeat(`{"hostPort":8080,"containerPort":80}`, n) + `]}]`
		}, 7, "k8s.v1.cni.cncf.io/networks[0].portMappings: found 257, want 256 at most"},
		{"an interface's name", 15, annotation, func(n int) string { return "a@" + strings.Repeat("i", n) }, 7,
			`networks[0].interface: found "iiiiiiiiiiiiiiii", want up to 15 bytes`},
		{"a network's name", 63, annotation, func(n int) string { return strings.Repeat("n", n) }, 7, "networks[0].name: found"},
		{"a namespace's name", 63, annotation, func(n int) string { return strings.Repeat("n", n) + "/a" }, 7, "networks[0].namespace: found"},
		{"a device", 255, annotation, func(n int) string { return `[{"name":"a","deviceID":"` + strings.Repeat("d", n) + `"}]` }, 7, "networks[0].deviceID: found"},
		{"depth of an annotation", maxDepth, annotation, func(n int) string { // a list, a selection and its arguments are three
			return `[{"name":"a","cni-args":{"x":` + strings.Repeat("[", n-3) + strings.Repeat("]", n-3) + `}}]`
		}, 7, "more than 32 objects and lists within each other"},
		{"bytes of a network", maxText, network, func(n int) string { return fill(`{"cniVersion":"1.1.0","type":"x","x":"`, `"}`, n) }, 6,
			"262145 bytes exceed the limit of 262144"},
		{"depth of a network", maxDepth, network, depth, 6, "more than 32 objects and lists within each other"},
		{"plugins", maxPlugins, network, func(n int) string { return `{"cniVersion":"1.1.0","plugins":[` + repeat(`{"type":"x"}`, n) + `]}` }, 7,
			"plugins: found 17, want 16 at most"},
		{"the name in a network", 253, network, func(n int) string { return `{"cniVersion":"1.1.0","type":"x","name":"` + strings.Repeat("n", n) + `"}` }, 7, "name: found"},
		{"a type", 255, network, func(n int) string { return `{"cniVersion":"1.1.0","type":"` + strings.Repeat("t", n) + `"}` }, 7, "type: found"},
		{"bytes of the plugin's own configuration", 8 << 20, config, func(n int) string {
			return fill(`{"cniVersion":"1.1.0","name":"pods","type":"braid","clusterNetwork":"x","args":{"x":"`, `"}}`, n)
		}, 6, "8388609 bytes exceed the limit of 8388608"},
		{"depth of the plugin's own configuration", maxDepth, config, func(n int) string { // the value of a key is the first level
			return `{"cniVersion":"1.1.0","name":"pods","type":"braid","clusterNetwork":"x","dns":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
		}, 7, "dns: more than 32 objects and lists within each other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.parse(tt.doc(tt.limit)); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			wantError(t, tt.parse(tt.doc(tt.limit+1)), tt.code, tt.refusal)
		})
	}
}
