package node

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kubectl runs kubectl as the cluster's administrator, with standard input, and returns what it prints.
func (n *Node) Kubectl(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := n.TryKubectl(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryKubectl is Kubectl, but returns the error.
func (n *Node) TryKubectl(stdin string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(n.bin, "kubectl"), append([]string{"--kubeconfig=" + n.kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Apply applies YAML documents.
func (n *Node) Apply(t testing.TB, yaml string) {
	t.Helper()
	n.Kubectl(t, yaml, "apply", "-f", "-")
}

// Inside runs a command in a pod's first container and returns what it prints.
func (n *Node) Inside(t testing.TB, namespace, pod string, command ...string) string {
	t.Helper()
	return n.Kubectl(t, "", append([]string{"exec", "--namespace=" + namespace, pod, "--"}, command...)...)
}

// Pod returns a pod, or nil if there is none.
func (n *Node) Pod(t testing.TB, namespace, name string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	status, err := n.Try(http.MethodGet, "/api/v1/namespaces/"+namespace+"/pods/"+name, nil, pod)
	if status == http.StatusNotFound {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// Pods returns the pods of a namespace.
func (n *Node) Pods(t testing.TB, namespace string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	n.Do(http.MethodGet, "/api/v1/namespaces/"+namespace+"/pods", nil, &list)
	return list.Items
}

// Events returns "reason: message" of a namespace's events about objects whose names begin with name, each text once.
func (n *Node) Events(t testing.TB, namespace, name string) (events []string) {
	t.Helper()
	var list corev1.EventList
	n.Do(http.MethodGet, "/api/v1/namespaces/"+namespace+"/events", nil, &list)
	for _, e := range list.Items {
		event := e.Reason + ": " + e.Message
		if strings.HasPrefix(e.InvolvedObject.Name, name) && !slices.Contains(events, event) {
			events = append(events, event)
		}
	}
	return events
}

// WaitReady waits until there are as many pods in the namespace, all of them Ready, and returns them.
func (n *Node) WaitReady(t testing.TB, patience time.Duration, namespace string, count int) (pods []corev1.Pod) {
	t.Helper()
	n.Poll(t, patience, func() error {
		pods = n.Pods(t, namespace)
		var waiting []string
		for _, pod := range pods {
			if !ready(&pod) {
				waiting = append(waiting, fmt.Sprintf("%s is %s: %q", pod.Name, pod.Status.Phase, n.Events(t, namespace, pod.Name)))
			}
		}
		if len(waiting) > 0 || len(pods) != count {
			return fmt.Errorf("%d pods, want %d, not ready: %s", len(pods), count, strings.Join(waiting, "\n"))
		}
		return nil
	})
	return pods
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

// WaitNodeReady waits until the kubelet says that the node is Ready, or that it is not.
func (n *Node) WaitNodeReady(t testing.TB, patience time.Duration, want bool) {
	t.Helper()
	n.Poll(t, patience, func() error {
		var node corev1.Node
		if _, err := n.Try(http.MethodGet, "/api/v1/nodes/"+Name, nil, &node); err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady {
				if (c.Status == corev1.ConditionTrue) == want {
					return nil
				}
				return fmt.Errorf("the node is %s: %s", c.Status, c.Message)
			}
		}
		return fmt.Errorf("the node has no condition Ready")
	})
}

// WaitRollout waits until all pods of a DaemonSet are Ready and of its newest template.
func (n *Node) WaitRollout(t testing.TB, namespace, name string) {
	t.Helper()
	if _, err := n.TryKubectl("", "rollout", "status", "--namespace="+namespace, name, "--timeout=90s"); err != nil {
		t.Fatalf("%v\n%s\n%s", err, n.Events(t, namespace, ""), n.Logs(namespace))
	}
}

// Logs returns the end of what the containers of all pods of a namespace have written.
func (n *Node) Logs(namespace string) string {
	var all strings.Builder
	files, _ := filepath.Glob("/var/log/pods/" + namespace + "_*/*/*.log")
	for _, file := range files {
		content, err := os.ReadFile(file)
		fmt.Fprintf(&all, "%s: %v\n%s\n", file, err, content[max(0, len(content)-4000):])
	}
	return all.String()
}

// WaitNADs waits until the API server knows NetworkAttachmentDefinitions.
func (n *Node) WaitNADs(t testing.TB) {
	t.Helper()
	n.Kubectl(t, "", "wait", "--for=condition=Established", "crd/network-attachment-definitions.k8s.cni.cncf.io")
}
