//go:build node

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	start := time.Now()
	n.Apply(t, strings.Replace(storm, "COUNT", strconv.Itoa(count), 1))
	pods := n.WaitReady(t, 3*time.Minute, "blue", count)
	t.Logf("%d pods were Ready after %s", count, time.Since(start).Round(time.Second/10))
	n.wantStorm(t, pods)

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
	n.Apply(t, strings.Replace(storm, "COUNT", strconv.Itoa(count), 1))
	n.waitStarted(t, count/8)
	daemon := n.daemon(t)
	if err := unix.Kill(daemon, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.waitStarted(t, count/4)
	n.Kubectl(t, "", "set", "image", "--namespace=kube-system", "daemonset/braid", "*="+nextImage)
	pods := n.WaitReady(t, 3*time.Minute, "blue", count)
	n.WaitRollout(t, "kube-system", "daemonset/braid")
	n.wantStorm(t, pods)
	if now := n.daemon(t); now == daemon {
		t.Errorf("the daemon is process %d, as before it was killed", now)
	}
	n.Kubectl(t, "", "delete", "--namespace=blue", "replicaset/storm", "--wait=false")
	n.waitNoPods(t)
	n.WaitNothingLeft(t)
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
			if command, _ := os.ReadFile(path); strings.HasSuffix(string(command), "braidd\x00daemon\x00") {
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
