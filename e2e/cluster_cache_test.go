//go:build cluster

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/braid-cni/braid/e2e/cluster"
	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/cache"
	"github.com/braid-cni/braid/resolve"
)

// A cacheTest is a cluster with a node called "node", and the cache of that node's daemon.
type cacheTest struct {
	t       *testing.T
	cluster *cluster.Cluster
	proxy   *cluster.Proxy
	account *cluster.Account
	*cache.Source
}

func newCacheTest(t *testing.T) *cacheTest {
	t.Helper()
	bin := os.Getenv(kubeBinEnv)
	if bin == "" {
		t.Fatalf("%s is not set: run `make test-cluster`", kubeBinEnv)
	}
	c := &cacheTest{t: t, cluster: cluster.Start(t, bin)}
	c.cluster.Apply("../deploy/crd.yaml")
	c.cluster.Apply("../deploy/rbac.yaml")
	c.cluster.Create(map[string]any{"kind": "Namespace", "metadata": map[string]any{"name": "blue"}})
	c.proxy = c.cluster.NewProxy()
	c.account = c.cluster.NewAccount("kube-system", "braid", c.proxy.URL)
	c.Source = c.newSource()
	return c
}

// newSource opens a cache that does not run yet, with the options of a daemon.
func (c *cacheTest) newSource() *cache.Source {
	c.t.Helper()
	log := slog.New(slog.NewTextHandler(c.t.Output(), nil))
	live, err := kube.New(kube.Options{Kubeconfig: c.account.Kubeconfig, Log: log, Daemon: true, Condition: true})
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := cache.New(live, cache.Options{Node: "node", Log: log})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// run runs a cache until the test ends.
func (c *cacheTest) run(s *cache.Source) {
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	c.t.Cleanup(func() {
		cancel()
		<-done
	})
}

func (c *cacheTest) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), d)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *cacheTest) pod(node, name string, annotations map[string]any) resolve.Pod {
	c.t.Helper()
	spec := map[string]any{"containers": []any{map[string]any{"name": "c", "image": "example.org/c"}}}
	if node != "" {
		spec["nodeName"] = node
	}
	c.cluster.Create(map[string]any{
		"kind": "Pod", "metadata": map[string]any{"namespace": "blue", "name": name, "annotations": annotations}, "spec": spec,
	})
	return resolve.Pod{Namespace: "blue", Name: name, UID: string(c.get(name).UID)}
}

func (c *cacheTest) get(name string) (pod corev1.Pod) {
	c.t.Helper()
	c.cluster.Do(http.MethodGet, "/api/v1/namespaces/blue/pods/"+name, nil, &pod)
	return pod
}

func (c *cacheTest) nad(name, config string) {
	c.t.Helper()
	c.cluster.Create(map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]any{"namespace": "blue", "name": name}, "spec": map[string]any{"config": config},
	})
}

// mustResolve asks for a pod, and wants n networks of it after so many requests.
func (c *cacheTest) mustResolve(pod resolve.Pod, networks, requests int) {
	c.t.Helper()
	c.proxy.Requests()
	a, err := c.Resolve(c.within(20*time.Second), &resolve.Query{Pod: pod})
	if err != nil || len(a.Networks) != networks {
		c.t.Errorf("resolve %s: %v, %v, want %d networks", pod.Name, a, err, networks)
	}
	sent := slices.DeleteFunc(c.proxy.Requests(), func(r string) bool { return !strings.Contains(r, "/namespaces/") })
	if len(sent) != requests {
		c.t.Errorf("resolve %s sent %q, want %d requests", pod.Name, sent, requests)
	}
}

// follows makes changes and waits until the cache has them: it goes on.
func (c *cacheTest) follows(name string) {
	c.t.Helper()
	c.nad(name, `{"type":"macvlan"}`)
	pod := c.pod("node", name, map[string]any{"k8s.v1.cni.cncf.io/networks": name})
	start := time.Now()
	for deadline := start.Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		known, _ := c.Known("blue", name)
		has := slices.ContainsFunc(c.All(), func(n cache.NamedNetwork) bool { return n.Name.Name == name })
		if known != nil && known.UID == pod.UID && has {
			break
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("pod %v (want UID %s) and network (%v) have not arrived", known, pod.UID, has)
		}
	}
	c.t.Logf("the cache had the changes %v after them", time.Since(start).Round(time.Millisecond))
	c.mustResolve(pod, 1, 0)
}

// failing answers requests of a method with a status, some times.
func failing(times int32, method string, status int) cluster.Fault {
	var left atomic.Int32
	left.Store(times)
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || left.Add(-1) < 0 {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"message":"fault of the test"}`, status)
		return true
	}
}

// TestClusterCache: what a node's daemon knows of a real cluster, through a bad day of that.
func TestClusterCache(t *testing.T) {
	c := newCacheTest(t)
	for _, name := range []string{"a", "b", "c"} {
		c.nad(name, "{}")
	}
	three := map[string]any{"k8s.v1.cni.cncf.io/networks": "a,b,c", "example.org/other": "x"}
	web := c.pod("node", "web", three)
	elsewhere := c.pod("elsewhere", "elsewhere", three)
	static := c.pod("node", "static", map[string]any{
		"k8s.v1.cni.cncf.io/networks": "a", "kubernetes.io/config.mirror": "0123456789abcdef0123456789abcdef",
		"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef", "kubernetes.io/config.source": "file",
	})
	static.UID = "0123456789abcdef0123456789abcdef"
	sub := func(name string, f func()) {
		t.Run(name, func(t *testing.T) {
			c.t = t
			defer c.proxy.Set(nil)
			f()
		})
		c.t = t
	}

	c.cluster.StopAPIServer()
	c.run(c.Source)
	sub("down at first", func() {
		if c.Synced() {
			c.t.Error("synced without an API server")
		}
		var e *resolve.Error
		if _, err := c.Resolve(c.within(time.Second), &resolve.Query{Pod: web}); !errors.As(err, &e) || e.Reason != resolve.Unavailable {
			c.t.Errorf("resolve: %v, want Unavailable", err)
		}
		// A static pod that needs no network starts without an API server.
		q := &resolve.Query{Pod: static, Annotations: map[string]string{"kubernetes.io/config.source": "file"}}
		if a, err := c.Resolve(c.within(time.Second), q); err != nil || a.Pod != static {
			c.t.Errorf("static pod: %v, %v", a, err)
		}
		c.cluster.StartAPIServer()
		if err := c.WaitForSync(c.within(time.Minute)); err != nil {
			c.t.Fatal(err)
		}
	})
	sub("no request", func() {
		c.mustResolve(web, 3, 0)
		c.mustResolve(static, 1, 0)
		c.mustResolve(elsewhere, 3, 1) // the pod; its networks are known
		if pods, networks := c.Len(); pods != 2 || networks != 3 {
			c.t.Errorf("found %d pods and %d networks, want 2 and 3", pods, networks)
		}
	})
	sub("changes", func() {
		c.follows("change")
		c.cluster.Do(http.MethodDelete, "/apis/k8s.cni.cncf.io/v1/namespaces/blue/network-attachment-definitions/change", nil, nil)
		c.cluster.Do(http.MethodDelete, "/api/v1/namespaces/blue/pods/change", map[string]any{"gracePeriodSeconds": 0}, nil)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if pods, networks := c.Len(); pods == 2 && networks == 3 {
				return
			}
			if time.Now().After(deadline) {
				c.t.Fatal("what was deleted is still known")
			}
		}
	})
	sub("reports", func() { c.reports(web, static) })
	sub("slow by 5 s", func() {
		c.proxy.Set(func(http.ResponseWriter, *http.Request) bool { time.Sleep(5 * time.Second); return false })
		c.mustResolve(web, 3, 0)
		c.mustResolve(elsewhere, 3, 1)
	})
	sub("429 for a pod and for the watches", func() {
		c.proxy.Set(failing(3, http.MethodGet, http.StatusTooManyRequests))
		c.proxy.Cut()
		c.mustResolve(web, 3, 0)
		c.follows("busy")
	})
	sub("watches broken", func() {
		c.proxy.Requests()
		c.proxy.Cut()
		for again, deadline := 0, time.Now().Add(time.Minute); again < 2; time.Sleep(10 * time.Millisecond) {
			if again += len(c.proxy.Requests()); time.Now().After(deadline) {
				c.t.Fatalf("%d watches were begun again, want 2", again)
			}
		}
		c.mustResolve(web, 3, 0)
		c.follows("broken")
	})
	sub("token rotated", func() {
		c.account.Rotate()
		c.mustResolve(elsewhere, 3, 1)
		c.proxy.Cut()
		c.follows("token")
	})
	sub("certificate rotated", func() {
		c.cluster.RotateServingCertificate()
		c.mustResolve(web, 3, 0)
		c.proxy.Cut()
		c.mustResolve(elsewhere, 3, 1)
		c.follows("certificate")
	})
	kubeconfig, issue := c.cluster.ClientKubeconfig("first", "system:masters", c.cluster.URL)
	client, err := kube.Open(kubeconfig, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Pod(c.within(time.Minute), web); err != nil {
		t.Error(err)
	}
	sub("killed", func() {
		issue("second", "nobodies")
		c.cluster.KillAPIServer()
		c.mustResolve(web, 3, 0)
		c.cluster.StartAPIServer()
		c.follows("killed")
	})
	sub("client certificate rotated", func() {
		var e *resolve.Error
		if _, err := client.Pod(c.within(time.Minute), web); !errors.As(err, &e) || !strings.Contains(e.Message, `User "second" cannot get`) {
			c.t.Errorf("found %v, want that the user of the new certificate is refused", err)
		}
	})
	sub("exists", func() {
		for _, tt := range []struct {
			pod    resolve.Pod
			exists bool
		}{
			{web, true}, {elsewhere, true}, {static, true},
			{resolve.Pod{Namespace: "blue", Name: "web", UID: elsewhere.UID}, false},
			{resolve.Pod{Namespace: "blue", Name: "none", UID: web.UID}, false},
		} {
			if exists, err := c.PodExists(c.within(time.Minute), tt.pod.Namespace, tt.pod.Name, tt.pod.UID); err != nil || exists != tt.exists {
				c.t.Errorf("PodExists(%v): %v, %v, want %v", tt.pod, exists, err, tt.exists)
			}
		}
	})
}

// reports writes network-status and condition, of a pod whose status has other writers, and of a static pod.
func (c *cacheTest) reports(web, static resolve.Pod) {
	c.t.Helper()
	c.cluster.Do(http.MethodPut, "/api/v1/namespaces/blue/pods/web/status", func() corev1.Pod {
		pod := c.get("web")
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: "example.org/Other", Status: "True"})
		return pod
	}(), nil)
	for _, pod := range []resolve.Pod{web, static, web} {
		before := c.get(pod.Name)
		c.proxy.Set(failing(2, http.MethodPatch, http.StatusConflict))
		err := c.Report(c.within(20*time.Second), &resolve.Report{
			Pod: pod, Status: json.RawMessage(`[]`), Events: []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add eth0"}},
		})
		if err != nil {
			c.t.Fatal(err)
		}
		after := c.get(pod.Name)
		if after.Annotations["k8s.v1.cni.cncf.io/network-status"] != "[]" {
			c.t.Errorf("%s: found annotations %v, want network-status", pod.Name, after.Annotations)
		}
		for _, condition := range before.Status.Conditions {
			if condition.Type != kube.NetworksAttached && !slices.Contains(after.Status.Conditions, condition) {
				c.t.Errorf("%s: the condition %v is gone", pod.Name, condition)
			}
		}
		of := slices.DeleteFunc(slices.Clone(after.Status.Conditions), func(c corev1.PodCondition) bool { return c.Type != kube.NetworksAttached })
		if len(of) != 1 || of[0].Status != corev1.ConditionTrue {
			c.t.Errorf("%s: found conditions %v, want %s once", pod.Name, after.Status.Conditions, kube.NetworksAttached)
		}
	}
	var events corev1.EventList
	c.cluster.Do(http.MethodGet, "/api/v1/namespaces/blue/events?fieldSelector=involvedObject.uid="+static.UID, nil, &events)
	if len(events.Items) != 1 {
		c.t.Errorf("found %d events of the static pod under the UID that kubectl looks for, want 1", len(events.Items))
	}
}
