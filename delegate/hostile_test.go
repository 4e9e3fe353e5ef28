package delegate

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/resolve"
)

// FuzzPlan: whatever a pod and a NetworkAttachmentDefinition say, a plan has each interface name once, bounded in number, with
// nothing requested that no plugin declares; and a complaint says who chose what is wrong with it.
func FuzzPlan(f *testing.F) {
	f.Add("a,a@x", `{"cniVersion":"1.0.0","type":"macvlan"}`)
	f.Add(`[{"name":"a","interface":"net1","ips":["10.0.0.1/8"],"cni-args":{"x":"/etc","runtimeConfig":{}}},{"name":"a"}]`, `{"cniVersion":"1.0.0","type":"x","args":{"cni":{"x":1}},"capabilities":{"ips":true}}`)
	f.Add(`[{"name":"a","interface":"eth0"},{"name":"a","deviceID":"..","portMappings":[{"hostPort":22,"containerPort":1}]}]`, `{"cniVersion":"1.0.0","name":"cluster","type":"braid"}`)
	c, err := conf.Parse([]byte(`{"cniVersion":"1.1.0","name":"pods","type":"braid","kubeconfig":"/k","confDir":"/nonexistent","delegates":[{"cniVersion":"1.1.0","name":"cluster","type":"bridge"}]}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, annotation, config string) {
		pod := &resolve.Answer{
			Pod:         resolve.Pod{Namespace: "blue", Name: "web"},
			Annotations: map[string]string{conf.AnnotationNetworks: annotation},
			Networks:    map[string]resolve.Network{"blue/a": {Config: config}},
			Devices:     map[string][]string{"r": {"d"}},
		}
		plan, err := NewPlan(c, pod, "eth0", []string{"lo"})
		if err != nil {
			if text := err.Error(); !strings.Contains(text, "annotation") || strings.ContainsAny(text, "\x1b\x00") {
				t.Errorf("%.500q", text)
			}
			return
		}
		if len(plan) > 65 {
			t.Fatalf("%d attachments", len(plan))
		}
		names := map[string]bool{"lo": true}
		for _, p := range plan {
			if names[p.IfName] || strings.ContainsAny(p.IfName, "/ ") || len(p.IfName) > 15 || p.IfName == "" {
				t.Errorf("interface name %q", p.IfName)
			}
			names[p.IfName] = true
			for capability := range p.Capabilities {
				if !p.Network.Supports(capability) {
					t.Errorf("%s is requested of %s", capability, config)
				}
			}
			if !p.Default && (p.Network.Name == "cluster" || p.Network.Name == "pods") {
				t.Errorf("network %s is the operator's", p.Network.Name)
			}
		}
	})
}

// FuzzDeviceInfo: what goes to network-status is one object of a kind that the specification knows, no longer than the file.
func FuzzDeviceInfo(f *testing.F) {
	f.Add([]byte(`{"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:65:00.1"}}`))
	f.Add([]byte(`{"type": "vdpa", "version": "", "vdpa": []}`))
	f.Add([]byte(`{"type": "memif", "version": "1", "memif": {}, "Type": "pci"}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		info, err := checkDeviceInfo(file)
		if err != nil {
			if len(err.Error()) > 4<<10 || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("%.300q", err)
			}
			return
		}
		var keys struct{ Type, Version string }
		if err := json.Unmarshal(info, &keys); err != nil || keys.Version == "" || len(info) > len(file) {
			t.Fatalf("%s becomes %s: %v", file, info, err)
		}
		if again, err := checkDeviceInfo(info); err != nil || !bytes.Equal(again, info) {
			t.Errorf("%s becomes %s: %v", info, again, err)
		}
	})
}

// FuzzReadable: of a damaged record only that is taken which says that it is of its container, and never its attachments.
func FuzzReadable(f *testing.F) {
	f.Add([]byte(`{"version":1,"bootID":"b","containerID":"c1","ifName":"eth0","netns":"/run/netns/x","netnsInode":4026532000,"attachments":[{"na`))
	f.Add([]byte(`{"containerID":"c2","ifName":"eth0","netns":"/etc"`))
	f.Add([]byte{0, 0, 0})
	path := filepath.Join(f.TempDir(), "c1:eth0.json")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		r := readable(path)
		if r.ContainerID != "c1" || r.IfName != "eth0" || len(r.Attachments) != 0 {
			t.Errorf("%s is taken for %+v", content, r)
		}
	})
}
