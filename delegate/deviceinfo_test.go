package delegate_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/resolve"
)

const (
	dpFile  = "dp/vendor.com-vf-0000:65:00.1-device.json"
	cniFile = "cni/blue-one-c1_net1"
	pciInfo = `{"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:65:00.1"}}`
)

// A deviceWorld is a world whose pod has a device, for network one.
type deviceWorld struct {
	*world
	info string // folder
	seen string // content of the attachment's file as the plugin finds it, or why it does not
}

func newDeviceWorld(t *testing.T) *deviceWorld {
	w := &deviceWorld{world: newWorld(t), info: t.TempDir()}
	w.answer.Annotations[conf.AnnotationNetworks] = "one"
	w.answer.Networks["blue/one"] = resolve.Network{
		Config:      `{"cniVersion":"1.1.0","type":"fake-one","capabilities":{"CNIDeviceInfoFile":true,"deviceID":true},"deviceID":"old"}`,
		Annotations: map[string]string{conf.AnnotationResourceName: "vendor.com/vf"},
	}
	w.answer.Devices = map[string][]string{"vendor.com/vf": {"0000:65:00.1"}}
	w.on = func(plugin, command string, req *cni.Request) error {
		if plugin == "fake-one" && command == "ADD" {
			w.seen = w.look(req)
		}
		return nil
	}
	return w
}

// look checks what a plugin is told of its device.
func (w *deviceWorld) look(req *cni.Request) string {
	var c struct {
		DeviceID, PCIBusID string
		RuntimeConfig      struct{ DeviceID, CNIDeviceInfoFile string }
	}
	if err := json.Unmarshal(req.Config, &c); err != nil {
		return err.Error()
	}
	const want = "0000:65:00.1"
	if c.DeviceID != want || c.PCIBusID != want || c.RuntimeConfig.DeviceID != want {
		w.t.Errorf("the plugin is told: %s", req.Config)
	}
	if got, want := c.RuntimeConfig.CNIDeviceInfoFile, filepath.Join(w.info, cniFile); got != want {
		w.t.Errorf("CNIDeviceInfoFile is %s, want %s", got, want)
	}
	b, err := os.ReadFile(c.RuntimeConfig.CNIDeviceInfoFile)
	if err != nil {
		return "nothing"
	}
	return string(b)
}

func (w *deviceWorld) write(file, content string) {
	w.t.Helper()
	path := filepath.Join(w.info, file)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *deviceWorld) delegator() *delegate.Delegator {
	d := w.world.delegator()
	d.DeviceInfo = w.info
	return d
}

func (w *deviceWorld) mustAdd() {
	w.t.Helper()
	if _, err := w.delegator().Add(w.t.Context(), w.request("")); err != nil {
		w.t.Fatal(err)
	}
}

// status returns the device-info of network one.
func (w *deviceWorld) status() string {
	w.t.Helper()
	var status []struct {
		Info json.RawMessage `json:"device-info"`
	}
	if err := json.Unmarshal(w.reports[len(w.reports)-1].Status, &status); err != nil || len(status) != 2 {
		w.t.Fatalf("%v: %s", err, w.reports[0].Status)
	}
	return string(status[1].Info)
}

func (w *deviceWorld) wantNoFile() {
	w.t.Helper()
	if entries, _ := os.ReadDir(filepath.Join(w.info, "cni")); len(entries) > 0 {
		w.t.Errorf("there is still %s", entries[0].Name())
	}
}

func TestDeviceInfo(t *testing.T) {
	w := newDeviceWorld(t)
	w.write(dpFile, pciInfo)
	w.mustAdd()
	if diff := cmp.Diff(pciInfo, w.seen); diff != "" {
		t.Errorf("the plugin finds (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(strings.ReplaceAll(pciInfo, " ", ""), w.status()); diff != "" {
		t.Errorf("device-info (-want +got):\n%s", diff)
	}
	if err := w.delegator().Check(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantNoFile()
	if _, err := os.Stat(filepath.Join(w.info, dpFile)); err != nil {
		t.Error("the file of the device plugin is gone")
	}
}

// TestDeviceInfoOfPlugin: "If a file does not exist in the CNI Plugin Device Information File path, the CNI Plugin can
// write json-encoded device information to it".
func TestDeviceInfoOfPlugin(t *testing.T) {
	w := newDeviceWorld(t)
	const vhost = `{"type":"vhost-user","version":"1.1.0","vhost-user":{"mode":"client","path":"/run/a.sock"}}`
	look := w.on
	w.on = func(plugin, command string, req *cni.Request) error {
		if plugin == "fake-one" && command == "ADD" {
			defer w.write(cniFile, vhost)
		}
		return look(plugin, command, req)
	}
	w.mustAdd()
	if w.seen != "nothing" {
		t.Errorf("the plugin finds %s", w.seen)
	}
	if diff := cmp.Diff(vhost, w.status()); diff != "" {
		t.Errorf("device-info (-want +got):\n%s", diff)
	}
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantNoFile()
}

// TestDeviceInfoOfFailedAdd: nothing of it stays, whoever has failed.
func TestDeviceInfoOfFailedAdd(t *testing.T) {
	for _, plugin := range []string{"fake-one", "fake-two"} {
		w := newDeviceWorld(t)
		w.answer.Annotations[conf.AnnotationNetworks] = "one,two"
		w.write(dpFile, pciInfo)
		w.on = fail(plugin, "ADD", errors.New("no"))
		if _, err := w.delegator().Add(t.Context(), w.request("")); err == nil {
			t.Fatal("ADD succeeds")
		}
		w.wantNoFile()
		w.wantRecords(0)
	}
}

// TestDeviceInfoOfKilledAdd: the next ADD, or DEL, finds the file by its name.
func TestDeviceInfoOfKilledAdd(t *testing.T) {
	w := newDeviceWorld(t)
	w.write(dpFile, pciInfo)
	w.mustAdd()
	r := w.record()
	r.Done = false
	r.Attachments[1].Result = nil
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "attachments", "c1:eth0.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.mustAdd()
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantNoFile()
}

// TestDeviceInfoThatIsOfNoUse: the pod has its device without it.
func TestDeviceInfoThatIsOfNoUse(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(pciInfo), 0o600); err != nil {
		t.Fatal(err)
	}
	content := func(s string) func(*deviceWorld) error {
		return func(w *deviceWorld) error { w.write(dpFile, s); return nil }
	}
	in := func(w *deviceWorld, file string) string { return filepath.Join(w.info, file) }
	for _, tt := range []struct {
		name string
		make func(*deviceWorld) error
		seen bool // by the plugin, which may make something of it
	}{
		{"no folder", func(w *deviceWorld) error { return os.Remove(w.info) }, false},
		{"a link out of the folder", func(w *deviceWorld) error {
			return errors.Join(os.Mkdir(in(w, "dp"), 0o755), os.Symlink(secret, in(w, dpFile)))
		}, false},
		{"a pipe", func(w *deviceWorld) error {
			return errors.Join(os.Mkdir(in(w, "dp"), 0o755), unix.Mkfifo(in(w, dpFile), 0o600))
		}, false},
		{"a folder", func(w *deviceWorld) error { return os.MkdirAll(in(w, dpFile), 0o755) }, false},
		{"too long", content(`{"type":"pci","version":"1.1.0","pci":{"x":"` + strings.Repeat("x", 64<<10) + `"}}`), false},
		{"empty", content(""), true},
		{"no object", content("[]"), true},
		{"null", content("null"), true},
		{"unknown type", content(`{"type":"usb","version":"1.1.0","usb":{}}`), true},
		{"no version", content(`{"type":"pci","pci":{}}`), true},
		{"no details", content(`{"type":"pci","version":"1.1.0","vdpa":{}}`), true},
		{"a key twice", content(`{"type":"pci","version":"1.1.0","pci":{},"pci":{}}`), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newDeviceWorld(t)
			if err := tt.make(w); err != nil {
				t.Fatal(err)
			}
			w.mustAdd()
			if seen := w.seen != "nothing"; seen != tt.seen {
				t.Errorf("the plugin finds %.100q", w.seen)
			}
			if got := w.status(); got != "" {
				t.Errorf("device-info: %.100q", got)
			}
			if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
				t.Error(err)
			}
			w.wantNoFile()
		})
	}
}

// TestDeviceInfoCannotBeWritten: the plugin would miss it, so the pod does not start, and nothing is left.
func TestDeviceInfoCannotBeWritten(t *testing.T) {
	w := newDeviceWorld(t)
	w.write(dpFile, pciInfo)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(w.info, "cni")); err != nil {
		t.Fatal(err)
	}
	_, err := w.delegator().Add(t.Context(), w.request(""))
	if err == nil || !strings.Contains(err.Error(), "copy the information about device 0000:65:00.1") {
		t.Errorf("ADD: %v", err)
	}
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("%s was written outside of the folder", entries[0].Name())
	}
}

// TestDeviceInfoNames: whatever the names, the file has one that file systems take.
func TestDeviceInfoNames(t *testing.T) {
	w := newDeviceWorld(t)
	long := strings.Repeat("x.", 121) + "xyz"
	w.answer.Networks["blue/"+long] = w.answer.Networks["blue/one"]
	w.answer.Annotations[conf.AnnotationNetworks] = long
	w.write(dpFile, pciInfo)
	w.on = nil
	w.mustAdd()
	entries, err := os.ReadDir(filepath.Join(w.info, "cni"))
	if err != nil || len(entries) != 1 || !strings.HasSuffix(entries[0].Name(), "-c1_net1") || len(entries[0].Name()) > 255 {
		t.Errorf("files: %v, %v", entries, err)
	}
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantNoFile()
}
