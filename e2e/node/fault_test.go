//go:build node

package node

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// testReboot has pods of every kind come back with all their networks, and nothing stay of what they had before.
func testReboot(t *testing.T, n *Node) {
	const count = 8
	n.Apply(t, strings.Replace(storm, "COUNT", fmt.Sprint(count), 1))
	if err := os.WriteFile(StaticPods+"/static.yaml", []byte(staticPod), 0o600); err != nil {
		t.Fatal(err)
	}
	before := n.WaitReady(t, 60*time.Second, "blue", count+1)
	sandboxes, err := records()
	if err != nil || len(sandboxes) != count+1 {
		t.Fatalf("records of %d pods: %q, %v", count+1, sandboxes, err)
	}
	n.Reboot(false)
	n.WaitNodeReady(t, 60*time.Second, true)
	n.Poll(t, 2*time.Minute, func() error { // until the pods have new sandboxes, and the old ones are undone
		now, err := records()
		if err != nil {
			return err
		}
		kept := slices.DeleteFunc(slices.Clone(now), func(r string) bool { return !slices.Contains(sandboxes, r) })
		if len(now) != count+1 || len(kept) > 0 {
			return fmt.Errorf("records %q, want as many new ones as there were: %q", now, sandboxes)
		}
		return nil
	})
	pods := n.WaitReady(t, 60*time.Second, "blue", count+1)
	for _, pod := range pods {
		if !slices.ContainsFunc(before, func(b corev1.Pod) bool { return b.UID == pod.UID }) {
			t.Errorf("%s is another pod, not one from before the boot", pod.Name)
		}
		n.Poll(t, 30*time.Second, func() error { // network-status is of the new sandbox
			pod := n.Pod(t, "blue", pod.Name)
			status, err := networkStatus(pod)
			if err != nil {
				return err
			}
			inside := n.addresses(t, "blue", pod.Name)
			for _, s := range status {
				if !slices.Equal(s.IPs, plain(inside[s.Interface])) {
					return fmt.Errorf("network-status of %s: %v, inside are %v", pod.Name, status, inside)
				}
			}
			if len(inside) != 3 || len(status) != 3 || pod.Status.PodIP != status[0].IPs[0] {
				return fmt.Errorf("%s: IP %s, network-status %v, inside are %v", pod.Name, pod.Status.PodIP, status, inside)
			}
			return nil
		})
	}
	n.Kubectl(t, "", "delete", "--namespace=blue", "replicaset/storm", "--wait=false")
	if err := os.Remove(StaticPods + "/static.yaml"); err != nil {
		t.Fatal(err)
	}
	n.waitNoPods(t)
	n.WaitNothingLeft(t)
}

// records returns the names of the records of pods that Braid has attached.
func records() (names []string, err error) {
	entries, err := os.ReadDir("/var/lib/cni/braid/attachments")
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// testAPIServerAway takes pods away while there is no API server, and brings some while it does not answer.
func testAPIServerAway(t *testing.T, n *Node) {
	if err := os.WriteFile(StaticPods+"/static.yaml", []byte(staticPod), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Apply(t, strings.Replace(storm, "COUNT", "4", 1))
	n.WaitReady(t, 60*time.Second, "blue", 5)
	n.PauseAPIServer(true)
	time.AfterFunc(5*time.Second, func() { n.PauseAPIServer(false) })
	n.Apply(t, strings.Replace(storm, "COUNT", "8", 1))
	pods := n.WaitReady(t, 60*time.Second, "blue", 9)
	n.wantStorm(t, slices.DeleteFunc(pods, func(p corev1.Pod) bool { return p.Name == "static-"+Name }))

	// Deletion of a static pod is the kubelet's own affair, and its network is Braid's alone.
	n.KillAPIServer()
	if err := os.Remove(StaticPods + "/static.yaml"); err != nil {
		t.Fatal(err)
	}
	n.Poll(t, 60*time.Second, func() error {
		left, err := records()
		if err == nil && len(left) != 8 {
			err = fmt.Errorf("without API server the static pod's attachments are not undone: %q", left)
		}
		return err
	})
	n.StartAPIServer()
	n.Kubectl(t, "", "delete", "--namespace=blue", "replicaset/storm", "--wait=false")
	n.waitNoPods(t)
	n.WaitNothingLeft(t)
}

// testSweep has nobody call DEL for pods that are gone.
func testSweep(t *testing.T, n *Node) {
	const count = 5
	n.Kubectl(t, "", "patch", "--namespace=kube-system", "daemonset/braid", "--type=json", "--patch="+`[
		{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--sweep-interval=1s"},
		{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--sweep-grace=5s"}]`)
	n.WaitRollout(t, "kube-system", "daemonset/braid")
	n.Apply(t, strings.Replace(storm, "COUNT", fmt.Sprint(count), 1))
	n.WaitReady(t, 60*time.Second, "blue", count)
	old, err := records()
	if err != nil || len(old) != count {
		t.Fatalf("records of %d pods: %q, %v", count, old, err)
	}
	n.Reboot(true)
	n.WaitNodeReady(t, 60*time.Second, true)
	n.Poll(t, 90*time.Second, func() error {
		now, err := records()
		if err != nil {
			return err
		}
		for _, r := range old {
			if slices.Contains(now, r) {
				return fmt.Errorf("%s is still there, of a pod that nobody knows:\n%s", r, n.Logs("kube-system"))
			}
		}
		if len(now) != count {
			return fmt.Errorf("%d pods have %d records", count, len(now))
		}
		return nil
	})
	n.Poll(t, 10*time.Second, func() error { // it counts when it has come to its end
		if undone := metrics(t).sum("braid_sweep_undone_total"); undone != count {
			return fmt.Errorf("the sweeper has undone %v pods, want %d", undone, count)
		}
		return nil
	})
	n.WaitReady(t, 60*time.Second, "blue", count)
	n.Kubectl(t, "", "delete", "--namespace=blue", "replicaset/storm", "--wait=false")
	n.waitNoPods(t)
	n.WaitNothingLeft(t)
}
