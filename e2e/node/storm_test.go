//go:build node

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// storm are many pods, each with two networks besides the cluster's.
const storm = `
apiVersion: apps/v1
kind: ReplicaSet
metadata: { name: storm, namespace: blue }
spec:
  replicas: COUNT
  selector: { matchLabels: { app: storm } }
  template:
    metadata:
      labels: { app: storm }
      annotations: { k8s.v1.cni.cncf.io/networks: "storage,pool" }
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{ name: sleeper, image: ` + Toolbox + `, resources: { requests: { cpu: 1m } } }]
`

func testStorm(t *testing.T, n *Node) {
	const count = 50
	before := metrics(t)
	start := time.Now()
	n.Apply(t, strings.Replace(storm, "COUNT", strconv.Itoa(count), 1))
	pods := n.WaitReady(t, 3*time.Minute, "blue", count)
	t.Logf("%d pods were Ready after %s", count, time.Since(start).Round(time.Second/10))
	n.wantStorm(t, pods)
	after := metrics(t)
	grown := func(name string, labels ...string) float64 {
		return after.sum(name, labels...) - before.sum(name, labels...)
	}
	asked, added := grown("braid_resolve_requests_total"), grown("braid_cni_calls_total", `verb="ADD"`, `outcome="success"`)
	if asked != count || added != count {
		t.Errorf("the daemon has answered %v questions for %v ADDs, want one for each of %d", asked, added, count)
	}
	if done := grown("braid_worker_calls_total", `verb="ADD"`); done != count {
		t.Errorf("the worker has done %v ADDs of %d", done, count)
	}
	// Of the API server nothing is asked for a pod; it is told one thing and three events.
	if asked = grown("braid_api_requests_total", `verb="get"`) + grown("braid_api_requests_total", `verb="list"`); asked > 0 {
		t.Errorf("the daemon has asked the API server %v times:\n%s", asked, after.lines("braid_api_requests_total"))
	}
	t.Logf("requests to the API server until now:\n%s", after.lines("braid_api_requests_total"))

	start = time.Now()
	n.Kubectl(t, "", "delete", "--namespace=blue", "replicaset/storm", "--wait=false")
	n.waitNoPods(t)
	t.Logf("they were gone after %s", time.Since(start).Round(time.Second/10))
	n.WaitNothingLeft(t)
}

// testUpgrade kills the daemon, then replaces it by another version, while pods start. No pod is to notice.
func testUpgrade(t *testing.T, n *Node) {
	const count = 40
	n.importBraid("next")
	leases := n.serveDHCP(t)
	n.Apply(t, leased)
	n.WaitReady(t, 60*time.Second, "blue", 1)
	held := n.addresses(t, "blue", "leased")["net1"]
	if len(held) != 1 || !strings.HasPrefix(held[0], "203.0.113.1") || !strings.Contains(leases(), plain(held)[0]) {
		t.Errorf("net1 has %v, the DHCP server has given %s", held, leases())
	}
	n.Apply(t, strings.Replace(storm, "COUNT", strconv.Itoa(count), 1))
	n.waitStarted(t, 1+count/8)
	daemon := n.daemon(t)
	if err := unix.Kill(daemon, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.waitStarted(t, 1+count/4)
	n.Kubectl(t, "", "set", "image", "--namespace=kube-system", "daemonset/braid", "*="+nextImage)
	pods := n.WaitReady(t, 3*time.Minute, "blue", 1+count)
	n.WaitRollout(t, "kube-system", "daemonset/braid")
	n.wantStorm(t, slices.DeleteFunc(pods, func(p corev1.Pod) bool { return p.Name == "leased" }))
	if now := n.daemon(t); now == daemon {
		t.Errorf("the daemon is process %d, as before it was killed", now)
	}
	// The new daemon has taken the lease over: it knows it, and gives it back.
	if m := metrics(t); m.sum("braid_build_info", `version="next"`) != 1 || m.sum("braid_dhcp_attachments") != 1 {
		t.Errorf("want version next, with one lease: %s%s", m.lines("braid_build_info"), m.lines("braid_dhcp_attachments"))
	}
	if now := n.addresses(t, "blue", "leased")["net1"]; !slices.Equal(now, held) {
		t.Errorf("net1 has %v after the upgrade, before it had %v", now, held)
	}
	n.Kubectl(t, "", "delete", "--namespace=blue", "replicaset/storm", "pod/leased", "--wait=false")
	n.waitNoPods(t)
	n.WaitNothingLeft(t)
	if left := leases(); left != "" {
		t.Errorf("the DHCP server has not got back %s", left)
	}
}

// waitStarted waits until a number of pods are Ready.
func (n *Node) waitStarted(t *testing.T, count int) {
	t.Helper()
	n.Poll(t, time.Minute, func() error {
		started := 0
		for _, pod := range n.Pods(t, "blue") {
			if ready(&pod) {
				started++
			}
		}
		if started < count {
			return fmt.Errorf("%d pods are Ready, want %d", started, count)
		}
		return nil
	})
}

// daemon returns the process ID of the node daemon.
func (n *Node) daemon(t *testing.T) (pid int) {
	t.Helper()
	n.Poll(t, time.Minute, func() error {
		commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range commands {
			if command, _ := os.ReadFile(path); strings.Contains(string(command), "braidd\x00daemon\x00") {
				pid, err = strconv.Atoi(filepath.Base(filepath.Dir(path)))
				return err
			}
		}
		return errors.Join(err, errors.New("no process is the daemon"))
	})
	return pid
}

// wantStorm fails the test if a sandbox has failed, if an address is two pods', or if one of them lacks a network.
func (n *Node) wantStorm(t *testing.T, pods []corev1.Pod) {
	t.Helper()
	for _, event := range n.Events(t, "blue", "storm-") {
		if strings.HasPrefix(event, "FailedCreatePodSandBox") || strings.HasPrefix(event, "FailedAdding") {
			t.Error(event)
		}
	}
	taken := map[string]string{}
	n.Poll(t, 30*time.Second, func() error { // network-status may come after Ready
		clear(taken)
		for _, pod := range pods {
			status, err := networkStatus(n.Pod(t, "blue", pod.Name))
			if err != nil {
				return err
			}
			if len(status) != 3 {
				t.Errorf("%s has %d networks: %v", pod.Name, len(status), status)
			}
			for _, s := range status {
				for _, ip := range s.IPs {
					if other, ok := taken[ip]; ok {
						t.Errorf("%s is both %s's and %s's", ip, pod.Name, other)
					}
					taken[ip] = pod.Name
				}
			}
		}
		return nil
	})
	if len(taken) != 3*len(pods) {
		t.Errorf("%d pods have %d addresses", len(pods), len(taken))
	}
}
