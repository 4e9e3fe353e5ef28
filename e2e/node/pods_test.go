//go:build node

package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
)

// tenant is whose pods the tests make.
const tenant = `
apiVersion: v1
kind: Namespace
metadata: { name: blue }
`

// networks are what the pods ask for, besides the cluster's.
const networks = `
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: { name: storage, namespace: blue }
spec:
  config: |
    {"cniVersion": "1.0.0", "type": "bridge", "bridge": "storage0", "ipam": {"type": "host-local", "subnet": "10.10.0.0/16"}}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: { name: lan, namespace: blue }
spec:
  config: |
    {"cniVersion": "1.0.0", "type": "macvlan", "master": "` + NIC + `", "capabilities": {"ips": true}, "ipam": {"type": "static"}}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: { name: pool, namespace: blue }
spec:
  config: |
    {"cniVersion": "1.0.0", "type": "macvlan", "master": "` + NIC + `", "ipam": {"type": "host-local", "subnet": "198.51.100.0/24"}}
`

// podsManifest are pods of every kind. Each container answers HTTP where the kubelet's probes ask, at the pod's IP.
const podsManifest = `
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: blue
  annotations:
    k8s.v1.cni.cncf.io/networks: |
      [{"name": "storage"}, {"name": "lan", "interface": "net2", "ips": ["192.0.2.10/24", "2001:db8::10/64"]}]
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
    - name: look
      image: ` + Toolbox + `
      command: [/bin/sh, -c, "ip -4 -o address show dev net1 && ip -4 -o address show dev net2"]
    - name: look-again
      image: ` + Toolbox + `
      command: [/bin/sh, -c, "ip -4 -o address show dev eth0"]
  containers:
    - name: server
      image: ` + Toolbox + `
      command: [/bin/sh, -c, "httpd -f -p 8080"]
      ports: [{ containerPort: 8080, hostPort: 8088 }]
      livenessProbe: { httpGet: { port: 8080, path: /etc/hostname }, periodSeconds: 1, failureThreshold: 3 }
      readinessProbe: { httpGet: { port: 8080, path: /etc/hostname }, periodSeconds: 1 }
---
apiVersion: v1
kind: Pod
metadata:
  name: db
  namespace: blue
  annotations:
    k8s.v1.cni.cncf.io/networks: |
      [{"name": "storage"}, {"name": "lan", "interface": "net2", "ips": ["192.0.2.11/24", "2001:db8::11/64"]}]
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: server
      image: ` + Toolbox + `
      command: [/bin/sh, -c, "httpd -f -p 8080"]
      readinessProbe: { httpGet: { port: 8080, path: /etc/hostname }, periodSeconds: 1 }
---
apiVersion: v1
kind: Pod
metadata:
  name: host
  namespace: blue
  annotations: { k8s.v1.cni.cncf.io/networks: storage }
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers: [{ name: sleeper, image: ` + Toolbox + ` }]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: agent, namespace: blue }
spec:
  selector: { matchLabels: { app: agent } }
  template:
    metadata:
      labels: { app: agent }
      annotations: { k8s.v1.cni.cncf.io/networks: 'storage,pool@net2' }
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{ name: sleeper, image: ` + Toolbox + ` }]
`

const staticPod = `
apiVersion: v1
kind: Pod
metadata:
  name: static
  namespace: blue
  annotations:
    k8s.v1.cni.cncf.io/networks: '[{"name": "storage"}, {"name": "lan", "interface": "net2", "ips": ["192.0.2.12/24"]}]'
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: sleeper, image: ` + Toolbox + ` }]
`

func testPods(t *testing.T, n *Node) {
	if err := os.WriteFile(StaticPods+"/static.yaml", []byte(staticPod), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Apply(t, podsManifest)
	pods := map[string]*corev1.Pod{}
	for _, pod := range n.WaitReady(t, 60*time.Second, "blue", 5) {
		name, _, _ := strings.Cut(pod.Name, "-") // agent-xxxxx, static-node1
		pods[name] = &pod
	}
	inside := map[string]map[string][]string{}
	for _, name := range []string{"web", "db", "static", "agent"} {
		inside[name] = n.addresses(t, "blue", pods[name].Name)
	}
	for name, lan := range map[string][]string{
		"web": {"192.0.2.10/24", "2001:db8::10/64"}, "db": {"192.0.2.11/24", "2001:db8::11/64"}, "static": {"192.0.2.12/24"},
	} {
		if got := inside[name]["net2"]; !slices.Equal(got, lan) {
			t.Errorf("net2 of %s has %v, the pod asks for %v", name, got, lan)
		}
	}
	taken := map[string]string{}
	for name, interfaces := range inside {
		pod := pods[name]
		for interf, pool := range map[string]string{"eth0": "10.244.0.0/24", "net1": "10.10.0.0/16"} {
			got := interfaces[interf]
			if len(got) != 1 || !netip.MustParsePrefix(pool).Contains(netip.MustParsePrefix(got[0]).Addr()) {
				t.Errorf("%s of %s has %v, want one address of %s", interf, name, got, pool)
			}
			for _, address := range got {
				if other, ok := taken[address]; ok {
					t.Errorf("%s is both %s's and %s's", address, name, other)
				}
				taken[address] = name
			}
		}
		wantPodIP(t, pod, interfaces["eth0"])
		n.waitNetworkStatus(t, pod.Name, interfaces)
		for _, c := range pod.Status.ContainerStatuses {
			if c.RestartCount > 0 {
				t.Errorf("a container of %s was restarted: %v", name, n.Events(t, "blue", pod.Name))
			}
		}
	}
	if _, ok := pods["host"].Annotations[netv1.NetworkStatusAnnot]; ok || pods["host"].Status.PodIP != IP {
		t.Errorf("the pod with the node's network has IP %s and annotations %v", pods["host"].Status.PodIP, pods["host"].Annotations)
	}
	n.wantReached(t, "web", inside["db"], "192.0.2.1", "2001:db8::1", "192.0.2.12")
	n.wantReached(t, "db", map[string][]string{"eth0": inside["agent"]["eth0"], "net1": inside["agent"]["net1"]})
	n.wantReached(t, pods["agent"].Name, nil, "198.51.100.1")

	n.wantHostPort(t, 8088, "web")

	// The networks are there before the first process of the pod.
	logs := n.Kubectl(t, "", "logs", "--namespace=blue", "web", "--container=look")
	if !strings.Contains(logs, inside["web"]["net1"][0]) || !strings.Contains(logs, "192.0.2.10/24") {
		t.Errorf("the first init container sees %s", logs)
	}
	events := strings.Join(n.Events(t, "blue", "web"), "\n")
	for _, want := range []string{"AddedInterface: Add eth0 [", ", net1 [", ", net2 [192.0.2.10/24 2001:db8::10/64] from blue/lan"} {
		if !strings.Contains(events, want) {
			t.Errorf("no event %q among\n%s", want, events)
		}
	}
}

// testDelete follows testPods: nothing is to stay of its pods.
func testDelete(t *testing.T, n *Node) {
	if err := os.Remove(StaticPods + "/static.yaml"); err != nil {
		t.Fatal(err)
	}
	n.Kubectl(t, "", "delete", "--namespace=blue", "--wait=false", "daemonset/agent", "pod/web", "pod/db", "pod/host")
	n.waitNoPods(t)
	n.WaitNothingLeft(t)
}

func (n *Node) waitNoPods(t *testing.T) {
	t.Helper()
	n.Poll(t, 90*time.Second, func() error {
		if pods := n.Pods(t, "blue"); len(pods) > 0 {
			return fmt.Errorf("%d pods are still there, the first is %s: %v", len(pods), pods[0].Name, n.Events(t, "blue", pods[0].Name))
		}
		return nil
	})
}

// wantPodIP fails the test unless the addresses that Kubernetes knows are those of the default network, and no others.
func wantPodIP(t *testing.T, pod *corev1.Pod, eth0 []string) {
	t.Helper()
	var ips []string
	for _, ip := range pod.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	if want := plain(eth0); !slices.Equal(ips, want) || pod.Status.PodIP != want[0] {
		t.Errorf("status.podIPs of %s is %v, its eth0 has %v", pod.Name, ips, want)
	}
}

// waitNetworkStatus waits until network-status says what is seen inside. It may come some time after the pod runs.
func (n *Node) waitNetworkStatus(t *testing.T, pod string, inside map[string][]string) (status []netv1.NetworkStatus) {
	t.Helper()
	n.Poll(t, 20*time.Second, func() (err error) {
		if status, err = networkStatus(n.Pod(t, "blue", pod)); err != nil {
			return err
		}
		for i, s := range status {
			if want := plain(inside[s.Interface]); !slices.Equal(s.IPs, want) || s.Default != (i == 0) {
				return fmt.Errorf("network-status of %s is %+v, inside are %v", pod, status, inside)
			}
		}
		if len(status) != len(inside) {
			return fmt.Errorf("network-status of %s has %d networks, inside are %v", pod, len(status), inside)
		}
		return nil
	})
	return status
}

// wantHostPort fails the test unless a port of the node leads to the pod, whose server has its /etc/hostname.
func (n *Node) wantHostPort(t *testing.T, port int, pod string) {
	t.Helper()
	n.Poll(t, 10*time.Second, func() error {
		client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Get(fmt.Sprintf("http://%s:%d/etc/hostname", IP, port))
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if name, err := io.ReadAll(answer.Body); strings.TrimSpace(string(name)) != pod {
			return fmt.Errorf("port %d of the node leads to %q, %v; want %s", port, name, err, pod)
		}
		return nil
	})
}

func networkStatus(pod *corev1.Pod) (status []netv1.NetworkStatus, err error) {
	annotation := pod.Annotations[netv1.NetworkStatusAnnot]
	if err := json.Unmarshal([]byte(annotation), &status); err != nil {
		return nil, fmt.Errorf("network-status of %s: %w: %q", pod.Name, err, annotation)
	}
	return status, nil
}

// plain are addresses without their prefix lengths.
func plain(cidrs []string) (ips []string) {
	for _, cidr := range cidrs {
		ips = append(ips, netip.MustParsePrefix(cidr).Addr().String())
	}
	return ips
}

// wantReached fails the test unless the pod reaches each address of another pod, and each further one.
func (n *Node) wantReached(t *testing.T, pod string, other map[string][]string, further ...string) {
	t.Helper()
	targets := further
	for _, addresses := range other {
		targets = append(targets, plain(addresses)...)
	}
	// The first packets may get lost while neighbours and ports of bridges become ready.
	script := `for ip in ` + strings.Join(targets, " ") + `; do
		for attempt in 1 2 3 4 5 6 7 8 9; do ping -c 1 -W 1 $ip >/dev/null && continue 2; done; echo $ip
	done`
	if unreached := n.Inside(t, "blue", pod, "sh", "-c", script); unreached != "" {
		t.Errorf("%s does not reach %s", pod, strings.Fields(unreached))
	}
}

// addresses returns the addresses of a pod's interfaces as a process in the pod sees them, link-local ones aside.
func (n *Node) addresses(t *testing.T, namespace, pod string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for line := range strings.Lines(n.Inside(t, namespace, pod, "ip", "-o", "address")) {
		fields := strings.Fields(line) // INDEX: NAME FAMILY ADDRESS ...
		name, address := strings.TrimSuffix(fields[1], ":"), netip.MustParsePrefix(fields[3])
		if name != "lo" && !address.Addr().IsLinkLocalUnicast() {
			found[name] = append(found[name], address.String())
		}
	}
	return found
}
