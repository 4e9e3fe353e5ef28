package devices_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/kube/devices"
	"github.com/braid-cni/braid/kube/devices/devicestest"
	"github.com/braid-cni/braid/resolve"
)

// What a kubelet says has much that is not read: other fields, of every type, come between.
const pods = `{"podResources": [
	{"name": "db", "namespace": "blue", "containers": [{"name": "a", "devices": [{"resourceName": "vendor.com/vf", "deviceIds": ["0000:65:00.7"]}]}]},
	{"name": "web", "namespace": "red", "containers": [{"name": "a", "devices": [{"resourceName": "vendor.com/vf", "deviceIds": ["0000:65:00.6"]}]}]},
	{"name": "web", "namespace": "blue", "cpuIds": ["1", "2"], "containers": [
		{"name": "a", "cpuIds": ["1", "300"], "memory": [{"memoryType": "memory", "size": "4294967296", "topology": {"nodes": [{"ID": "1"}]}}], "devices": [
			{"resourceName": "vendor.com/vf", "deviceIds": ["0000:65:00.2"], "topology": {"nodes": [{"ID": "0"}]}},
			{"resourceName": "vendor.com/gpu", "deviceIds": ["GPU-1"]},
			{"resourceName": "vendor.com/vf", "deviceIds": ["0000:65:00.3", "0000:65:00.2"], "topology": {"nodes": [{"ID": "1"}]}}]},
		{"name": "b"},
		{"name": "c", "devices": [{"resourceName": "vendor.com/vf", "deviceIds": ["0000:65:00.1"]}],
			"dynamicResources": [{"claimName": "x", "claimResources": [{"driverName": "d", "shareId": "s", "cdiDevices": [{"name": "v/c=d"}]}]}]}]},
	{"name": "bare", "namespace": "blue"}]}`

var webDevices = map[string][]string{
	"vendor.com/vf": {"0000:65:00.1", "0000:65:00.2", "0000:65:00.3"}, "vendor.com/gpu": {"GPU-1"},
}

func TestDevices(t *testing.T) {
	for _, flags := range [][]string{nil, {"-no-get"}, {"-refuse=3"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			k := devices.Kubelet{Socket: devicestest.Kubelet(t, pods, flags...)}
			for pod, want := range map[string]map[string][]string{"web": webDevices, "bare": {}, "unknown": {}} {
				got, err := k.Devices(t.Context(), resolve.Pod{Namespace: "blue", Name: pod})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("devices of %s (-want +got):\n%s", pod, diff)
				}
			}
		})
	}
}

func TestKubeletDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := devices.Kubelet{Socket: devicestest.Kubelet(t, pods, "-hang")}.Devices(ctx, resolve.Pod{Namespace: "blue", Name: "web"})
	wantError(t, err, resolve.Unavailable, "deadline exceeded")

	_, err = devices.Kubelet{Socket: devicestest.Kubelet(t, pods, "-refuse=1000000")}.Devices(t.Context(), resolve.Pod{Namespace: "blue", Name: "web"})
	wantError(t, err, resolve.Unavailable, "rejected by rate limit")

	socket := filepath.Join(t.TempDir(), "none.sock")
	_, err = devices.Kubelet{Socket: socket}.Devices(t.Context(), resolve.Pod{Namespace: "blue", Name: "web"})
	wantError(t, err, resolve.Unavailable, "ask the kubelet for the devices of pod blue/web, on socket "+socket)
}

// TestNothingStaysOpen: a process that lives on keeps no connection to a kubelet that was given up.
func TestNothingStaysOpen(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			err = errors.Join(conn.SetDeadline(time.Now().Add(10*time.Second)), discard(conn))
		}
		closed <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = devices.Kubelet{Socket: socket}.Devices(ctx, resolve.Pod{Namespace: "blue", Name: "web"})
	wantError(t, err, resolve.Unavailable, "deadline exceeded")
	if err := <-closed; err != nil {
		t.Errorf("the connection is open still: %v", err)
	}
}

func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func wantError(t *testing.T, err error, reason, text string) {
	t.Helper()
	e, ok := errors.AsType[*resolve.Error](err)
	if !ok || e.Reason != reason || !strings.Contains(e.Message, text) {
		t.Errorf("found %v, want %s and %q", err, reason, text)
	}
}

// TestGarbage: what listens on the socket is no kubelet, or one that is broken.
func TestGarbage(t *testing.T) {
	ok := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = io.WriteString(w, body)
			w.Header().Set("Grpc-Status", "0")
		}
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		text   string
	}{
		{"not found", http.NotFound, "HTTP status 404"},
		{"no status", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }, `status ""`},
		{"no frame", ok("\x00"), "1 bytes that are not one message"},
		{"compressed", ok("\x01\x00\x00\x00\x00"), "not one message"},
		{"too short", ok("\x00\x00\x00\x00\x09x"), "not one message"},
		{"two messages", ok("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "not one message"},
		{"no protobuf", ok("\x00\x00\x00\x00\x03\x0a\x7fx"), "no PodResources"},
		{"a tag that does not end", ok("\x00\x00\x00\x00\x01\xff"), "no PodResources"},
		{"too long", ok("\x00\x01\x00\x00\x01" + strings.Repeat("x", 16<<20+1)), "more than 16777216 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := devices.Kubelet{Socket: serve(t, tt.answer)}.Devices(t.Context(), resolve.Pod{Namespace: "blue", Name: "web"})
			wantError(t, err, resolve.Invalid, tt.text)
		})
	}
}

// serve answers every request of HTTP/2 on a socket.
func serve(t *testing.T, handler http.Handler) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: handler, Protocols: &protocols}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return socket
}

type source struct{ *resolve.Answer }

func (s source) Resolve(context.Context, *resolve.Query) (*resolve.Answer, error) {
	a := *s.Answer
	return &a, nil
}
func (s source) Report(context.Context, *resolve.Report) error { return nil }

// TestResolverAsksIfNeedBe: a pod without devices must not depend on a kubelet.
func TestResolverAsksIfNeedBe(t *testing.T) {
	socket := devicestest.Kubelet(t, pods)
	web := resolve.Pod{Namespace: "blue", Name: "web", UID: "u1"}
	plain := map[string]resolve.Network{"blue/a": {Config: "{}"}}
	vf := map[string]resolve.Network{"blue/a": {Annotations: map[string]string{conf.AnnotationResourceName: "vendor.com/vf"}}}
	for _, tt := range []struct {
		name  string
		a     resolve.Answer
		asked bool
	}{
		{"no annotation", resolve.Answer{Pod: web}, false},
		{"no device", resolve.Answer{Pod: web, Networks: plain, Annotations: map[string]string{conf.AnnotationNetworks: "a"}}, false},
		{"wrong annotation", resolve.Answer{Pod: web, Annotations: map[string]string{conf.AnnotationNetworks: "[{"}}, false},
		{"no pod", resolve.Answer{Networks: vf}, false},
		{"network of a resource", resolve.Answer{Pod: web, Networks: vf}, true},
		{"device", resolve.Answer{Pod: web, Networks: plain, Annotations: map[string]string{conf.AnnotationNetworks: `[{"name":"a","deviceID":"x"}]`}}, true},
		{"device of the default network", resolve.Answer{Pod: web, Annotations: map[string]string{conf.AnnotationDefaultNetwork: `[{"name":"a","deviceID":"x"}]`}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, socket := range []string{socket, filepath.Join(t.TempDir(), "none.sock")} {
				r := &devices.Resolver{Resolver: source{&tt.a}, Socket: socket}
				a, err := r.Resolve(t.Context(), &resolve.Query{Pod: web, DefaultNamespace: "kube-system"})
				if err != nil {
					t.Fatal(err)
				}
				there := strings.HasSuffix(socket, "/s")
				if got, want := a.Devices != nil, tt.asked && there; got != want {
					t.Errorf("found devices %v, want any: %v", a.Devices, want)
				}
				if got, want := a.DevicesError != nil, tt.asked && !there; got != want {
					t.Errorf("found error %v, want any: %v", a.DevicesError, want)
				}
			}
		})
	}
}
