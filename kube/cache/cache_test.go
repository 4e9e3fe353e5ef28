package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/cache"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

const (
	networks = "k8s.v1.cni.cncf.io/networks"
	source   = "kubernetes.io/config.source"
	mirror   = "kubernetes.io/config.mirror"
	hash     = "0123456789abcdef0123456789abcdef" // UID of a static pod
)

// A daemon is a cache that runs on a node called "node".
type daemon struct {
	*cache.Source
	t   *testing.T
	api *kubetest.Server
	log lockedBuffer

	mu    sync.Mutex
	found map[string]int // by resource and origin
}

func newDaemon(t *testing.T, s *kubetest.Server) *daemon {
	t.Helper()
	d := &daemon{t: t, api: s, found: make(map[string]int)}
	log := slog.New(slog.NewTextHandler(&d.log, nil))
	live, err := kube.New(kube.Options{Kubeconfig: s.Kubeconfig(), Log: log, Daemon: true})
	if err != nil {
		t.Fatal(err)
	}
	d.Source, err = cache.New(live, cache.Options{Node: "node", Log: log, Count: func(resource, origin string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.found[resource+" "+origin]++
	}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// run runs the cache until the test ends.
func (d *daemon) run() {
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	d.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// start also waits until the cache is complete, and forgets the requests for that.
func start(t *testing.T, s *kubetest.Server) *daemon {
	t.Helper()
	d := newDaemon(t, s)
	d.run()
	if err := d.WaitForSync(within(t, 5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	s.ResetRequests()
	return d
}

// TestHugeNetworks: of a configuration that is refused by its length, no more is kept than that it is.
func TestHugeNetworks(t *testing.T) {
	s := kubetest.New(t)
	addNAD(s, "huge", strings.Repeat("x", 1<<20))
	addNAD(s, "large", strings.Repeat("x", conf.MaxNetwork))
	all := start(t, s).All()
	if len(all) != 2 || len(all[0].Config) != conf.MaxNetwork+1 || len(all[1].Config) != conf.MaxNetwork {
		t.Fatalf("found %d networks, of %d and %d bytes", len(all), len(all[0].Config), len(all[1].Config))
	}
	if _, err := conf.ParseNetwork([]byte(all[0].Config), "huge"); err == nil || !strings.Contains(err.Error(), "exceed the limit") {
		t.Errorf("found %v", err)
	}
}

// ask asks for the pod default/web.
func (d *daemon) ask(uid string, handed map[string]string) (*resolve.Answer, error) {
	return d.Resolve(within(d.t, 10*time.Second), &resolve.Query{
		Pod: resolve.Pod{Namespace: "default", Name: "web", UID: uid}, Annotations: handed,
	})
}

// counts returns how often pods and networks were found where, since the last call.
func (d *daemon) counts() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := d.found
	d.found = make(map[string]int)
	return found
}

// eventually waits for what a watch brings.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func addPod(s *kubetest.Server, node, name string, annotations map[string]string) (uid string) {
	return s.AddPod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: annotations}, Spec: corev1.PodSpec{NodeName: node},
	})
}

func addNAD(s *kubetest.Server, name, config string) {
	s.AddNAD(&netv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{
			"k8s.v1.cni.cncf.io/resourceName": "vf", "kubectl.kubernetes.io/last-applied-configuration": "long",
		}},
		Spec: netv1.NetworkAttachmentDefinitionSpec{Config: config},
	})
}

// A lockedBuffer can be written to and read at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestNoRequest: the answer of a cache is that of the API server, and costs nothing.
func TestNoRequest(t *testing.T) {
	s := kubetest.New(t)
	for _, name := range []string{"a", "b", "c"} {
		addNAD(s, name, `{"type":"`+name+`"}`)
	}
	uid := addPod(s, "node", "web", map[string]string{networks: "a,b,c", "other": "annotation", "k8s.v1.cni.cncf.io/network-status": "[]"})
	d := start(t, s)
	live, err := kube.Open(s.Kubeconfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, handed := range []map[string]string{nil, {networks: "a,b,c", source: "api", "yet": "another"}} {
		q := &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web", UID: uid}, Annotations: handed}
		cached, err := d.Resolve(within(t, time.Minute), q)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(s.Requests()); n > 0 {
			t.Errorf("found requests %v, want none", s.Requests())
		}
		asked, err := live.Resolve(within(t, time.Minute), q)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(asked, cached); diff != "" || len(cached.Networks) != 3 {
			t.Errorf("answer (-live +cached):\n%s", diff)
		}
		s.ResetRequests()
	}
	if diff := cmp.Diff(map[string]int{"pods cache": 2, "network-attachment-definitions cache": 6}, d.counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if pods, networks := d.Len(); pods != 1 || networks != 3 {
		t.Errorf("found %d pods and %d networks, want 1 and 3", pods, networks)
	}
	all := d.All()
	if len(all) != 3 || all[1].Name.String() != "default/b" || all[1].Config != `{"type":"b"}` {
		t.Errorf("found networks %v", all)
	}
}

// TestOrigins: each cell of the table in the documentation.
func TestOrigins(t *testing.T) {
	const pod, nad = "GET /api/v1/namespaces/default/pods/web", "GET /apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/"
	for _, tt := range []struct {
		name        string
		node        string            // of the pod; empty means that there is none
		annotations map[string]string // of the pod
		uid         string            // that is asked for; empty means that of the pod, "-" none
		handed      map[string]string
		want        string   // networks of the answer
		requests    []string // sent
		counts      string
		logged      bool
	}{
		{name: "cached", node: "node", annotations: map[string]string{networks: "a"}, want: "a", counts: "cache"},
		{name: "cached, same annotations", node: "node", annotations: map[string]string{networks: "a"}, handed: map[string]string{networks: "a"}, want: "a", counts: "cache"},
		{name: "cached, no annotation that matters", node: "node", handed: map[string]string{source: "api"}, counts: "cache"},
		{name: "cached, other annotations", node: "node", annotations: map[string]string{networks: "a"}, handed: map[string]string{networks: "b"}, want: "a", requests: []string{pod}, counts: "disputed", logged: true},
		{name: "cached, one annotation less", node: "node", annotations: map[string]string{networks: "a"}, handed: map[string]string{source: "api"}, want: "a", requests: []string{pod}, counts: "disputed", logged: true},
		{name: "cached, without UID", node: "node", annotations: map[string]string{networks: "a"}, uid: "-", want: "a", requests: []string{pod}, counts: "live"},
		{name: "cached, another UID", node: "node", annotations: map[string]string{networks: "a"}, uid: "other", counts: "live", requests: []string{pod}},
		{name: "cached, another UID, annotations", node: "node", annotations: map[string]string{networks: "a"}, uid: "other", handed: map[string]string{networks: "a"}, counts: "live", requests: []string{pod}},
		{name: "on another node yet", node: "other", annotations: map[string]string{networks: "a"}, want: "a", requests: []string{pod}, counts: "live"},
		{name: "on another node yet, annotations", node: "other", annotations: map[string]string{networks: "a"}, handed: map[string]string{networks: "b"}, want: "b", counts: "runtime"},
		{name: "not there, annotations", uid: "later", handed: map[string]string{networks: "b"}, want: "b", counts: "runtime"},
		{name: "static pod", uid: hash, handed: map[string]string{source: "file", networks: "b"}, want: "b", counts: "runtime"},
		{name: "static pod, mirror pod cached, no annotations", node: "node", annotations: map[string]string{mirror: hash, networks: "a"}, uid: hash, want: "a", counts: "cache"},
		{name: "static pod, mirror pod cached", node: "node", annotations: map[string]string{mirror: hash, networks: "a"}, uid: hash, handed: map[string]string{source: "file", networks: "b"}, want: "b", counts: "runtime"},
		{name: "a network that is not there", node: "node", annotations: map[string]string{networks: "none"}, want: "", requests: []string{nad + "none"}, counts: "cache"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			addNAD(s, "a", "{}")
			addNAD(s, "b", "{}")
			uid := ""
			if tt.node != "" {
				uid = addPod(s, tt.node, "web", tt.annotations)
			}
			switch tt.uid {
			case "":
				tt.uid = uid
			case "-":
				tt.uid = ""
			}
			d := start(t, s)
			a, err := d.ask(tt.uid, tt.handed)
			switch {
			case tt.uid == "other":
				var e *resolve.Error
				if !errors.As(err, &e) || e.Reason != resolve.NotFound {
					t.Errorf("found %v, %v, want NotFound", a, err)
				}
			case err != nil:
				t.Error(err)
			default:
				if got := strings.Join(slices.Sorted(maps.Keys(a.Networks)), ","); got != strings.TrimSuffix("default/"+tt.want, "default/") {
					t.Errorf("found networks %q, want %q", got, tt.want)
				}
				if tt.uid != "" && a.Pod.UID != tt.uid || tt.uid == "" && a.Pod.UID != uid {
					t.Errorf("found UID %q, want %q or %q", a.Pod.UID, tt.uid, uid)
				}
			}
			var requests []string
			for _, r := range s.Requests() {
				requests = append(requests, r.String())
			}
			if diff := cmp.Diff(tt.requests, requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if counts := d.counts(); counts["pods "+tt.counts] != 1 {
				t.Errorf("found counts %v, want pods %s", counts, tt.counts)
			}
			if logged := strings.Contains(d.log.String(), "pod=default/web"); logged != tt.logged {
				t.Errorf("found log %q, want it there: %v", &d.log, tt.logged)
			}
		})
	}
}

// TestNotSynced: what the cache has of one kind is no answer before it has all of that kind.
func TestNotSynced(t *testing.T) {
	for _, hangs := range []string{"/api/v1/pods", "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"} {
		t.Run(hangs, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			s.Break(kubetest.Fault{Path: hangs, Hang: true})
			addNAD(s, "a", "{}")
			uid := addPod(s, "node", "web", map[string]string{networks: "a"})
			d := newDaemon(t, s)
			want := map[string]int{"pods live": 1, "network-attachment-definitions live": 1}
			for _, running := range []bool{false, true} {
				if running {
					d.run()
					eventually(t, "the other kind to be complete", func() bool { p, n := d.Len(); return p+n == 1 })
					// What was heard of all pods, or of all networks, counts.
					want = map[string]int{"pods live": 1, "network-attachment-definitions cache": 1}
					if strings.Contains(hangs, "definitions") {
						want = map[string]int{"pods cache": 1, "network-attachment-definitions live": 1}
					}
					eventually(t, "an answer from the cache", func() bool {
						d.counts()
						_, err := d.ask(uid, nil)
						found := d.counts()
						return err == nil && found["pods cache"]+found["network-attachment-definitions cache"] == 1
					})
				}
				a, err := d.ask(uid, map[string]string{networks: "a"})
				if err != nil || len(a.Networks) != 1 {
					t.Errorf("found %v, %v, want one network", a, err)
				}
				if diff := cmp.Diff(want, d.counts()); diff != "" {
					t.Errorf("counts (-want +got):\n%s", diff)
				}
			}
			if d.Synced() {
				t.Error("synced without an answer")
			}
			if err := d.WaitForSync(within(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("WaitForSync: %v, want the deadline", err)
			}
		})
	}
}

// TestFollows: changes arrive, whatever becomes of the watches.
func TestFollows(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(s *kubetest.Server, change func())
	}{
		{"watch goes on", func(_ *kubetest.Server, change func()) { change() }},
		{"watch broken", func(s *kubetest.Server, change func()) { s.BreakWatches(); change() }},
		{"410 Gone", func(s *kubetest.Server, change func()) {
			s.Break(kubetest.Fault{Path: "/api/v1/pods", Close: true, Times: 1})
			s.BreakWatches()
			change()
			s.Compact()
		}},
		{"410 Gone, no streaming of lists", func(s *kubetest.Server, change func()) {
			s.NoWatchList()
			s.BreakWatches()
			change()
			s.Compact()
		}},
		{"token replaced", func(s *kubetest.Server, change func()) { s.SetToken("other"); s.BreakWatches(); change() }},
		{"429, then 503", func(s *kubetest.Server, change func()) {
			s.Break(kubetest.Fault{Path: "/api/v1/pods", Code: 429, RetryAfter: "1", Message: "slow down", Times: 1})
			s.Break(kubetest.Fault{Path: "network-attachment-definitions", Code: 503, Message: "no leader", Times: 1})
			s.BreakWatches()
			change()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			addNAD(s, "a", "old")
			addNAD(s, "gone", "{}")
			uid := addPod(s, "node", "web", map[string]string{networks: "a"})
			addPod(s, "node", "gone", nil)
			addPod(s, "", "scheduled", nil)
			d := start(t, s)
			var laterUID string
			tt.do(s, func() {
				addNAD(s, "a", "new")
				addNAD(s, "b", "{}")
				s.DeleteNAD("default", "gone")
				s.DeletePod("default", "gone")
				addPod(s, "node", "scheduled", nil)
				laterUID = addPod(s, "node", "later", map[string]string{networks: "b"})
			})
			eventually(t, "all changes", func() bool {
				later, _ := d.Known("default", "later")
				gone, _ := d.Known("default", "gone")
				scheduled, _ := d.Known("default", "scheduled")
				all := d.All()
				return later != nil && later.UID == laterUID && gone == nil && scheduled != nil &&
					len(all) == 2 && all[0].Config == "new" && all[1].Name.Name == "b"
			})
			s.ResetRequests()
			a, err := d.ask(uid, nil)
			if err != nil || a.Networks["default/a"].Config != "new" {
				t.Errorf("found %v, %v, want the new network", a, err)
			}
			for _, r := range s.Requests() {
				if !r.Query.Has("watch") && strings.Contains(r.Path, "/namespaces/") {
					t.Errorf("found request %v, want watches at most", r)
				}
			}
		})
	}
}

// TestAPIServerGone: the cache answers with what it knew.
func TestAPIServerGone(t *testing.T) {
	s := kubetest.New(t)
	addNAD(s, "a", "{}")
	uid := addPod(s, "node", "web", map[string]string{networks: "a"})
	d := start(t, s)
	s.Stop()
	eventually(t, "the end of the watches", func() bool { return strings.Count(d.log.String(), "watch ended") > 1 })
	if a, err := d.ask(uid, nil); err != nil || len(a.Networks) != 1 {
		t.Errorf("found %v, %v, want one network", a, err)
	}
	_, err := d.Resolve(within(t, 500*time.Millisecond), &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "none", UID: "none"}})
	var e *resolve.Error
	if !errors.As(err, &e) || e.Reason != resolve.Unavailable {
		t.Errorf("a pod that is not known: %v, want Unavailable", err)
	}
}

// TestCannotWatch: the log says what to change.
func TestCannotWatch(t *testing.T) {
	for _, tt := range []struct {
		fault kubetest.Fault
		want  string
	}{
		{kubetest.Fault{Path: "/api/v1/pods", Code: 403, Message: `User "braid" cannot list resource "pods"`}, "needs the verb"},
		{kubetest.Fault{Path: "definitions", Code: 404}, "apply their CustomResourceDefinition"},
		{kubetest.Fault{Code: 401, Message: "Unauthorized"}, "does not accept the credentials"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			s.Break(tt.fault)
			d := newDaemon(t, s)
			d.run()
			eventually(t, "a log of it", func() bool { return strings.Contains(d.log.String(), tt.want) })
			if d.Synced() {
				t.Error("synced")
			}
		})
	}
}

func TestPodExists(t *testing.T) {
	s := kubetest.New(t)
	uid := addPod(s, "node", "web", nil)
	elsewhere := addPod(s, "other", "elsewhere", nil)
	addPod(s, "node", "static", map[string]string{mirror: hash})
	d := start(t, s)
	for _, tt := range []struct {
		name, uid string
		exists    bool
		requests  int
	}{
		{"web", uid, true, 0},
		{"web", "other", false, 1},
		{"elsewhere", elsewhere, true, 1},
		{"none", uid, false, 1},
		{"static", hash, true, 0},
		{"static", "fedcba9876543210fedcba9876543210", true, 0}, // it may be about to get its mirror pod
	} {
		s.ResetRequests()
		exists, err := d.PodExists(within(t, time.Minute), "default", tt.name, tt.uid)
		if err != nil || exists != tt.exists || len(s.Requests()) != tt.requests {
			t.Errorf("%s %s: %v, %v after %v, want %v after %d", tt.name, tt.uid, exists, err, s.Requests(), tt.exists, tt.requests)
		}
	}
	s.DeletePod("default", "web")
	eventually(t, "the pod to be gone", func() bool {
		exists, err := d.PodExists(within(t, time.Minute), "default", "web", uid)
		return err == nil && !exists
	})
	s.Break(kubetest.Fault{Code: 503, Message: "no leader"})
	if exists, err := d.PodExists(within(t, 300*time.Millisecond), "default", "web", uid); err == nil {
		t.Errorf("without an answer: %v, want an error", exists)
	}
}

// TestManyAtOnce: a storm of requests against a cache that changes all the time.
func TestManyAtOnce(t *testing.T) {
	s := kubetest.New(t)
	addNAD(s, "a", "{}")
	uid := addPod(s, "node", "web", map[string]string{networks: "a"})
	d := start(t, s)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				if a, err := d.ask(uid, map[string]string{networks: "a"}); err != nil || len(a.Networks) != 1 {
					t.Errorf("found %v, %v", a, err)
				}
				addNAD(s, "a", fmt.Sprintf(`{"type":"%d-%d"}`, i, j))
			}
		})
	}
	wg.Wait()
	if n := len(s.Requests()); n > 0 {
		t.Errorf("found requests %v, want none", s.Requests())
	}
}

func TestNoNode(t *testing.T) {
	s := kubetest.New(t)
	live, err := kube.Open(s.Kubeconfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cache.New(live, cache.Options{}); err == nil || !strings.Contains(err.Error(), "name of the node") {
		t.Errorf("without a node: %v", err)
	}
}
