package dhcp_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/refplugins"
)

// The reference's macvlan, dhcp and daemon, and the ones here: the same server gives the same client the same address,
// and result and kernel are the same, but for what the manual says.
func TestReference(t *testing.T) {
	classless := dhcpv4.OptGeneric(dhcpv4.OptionClasslessStaticRoute, []byte{24, 198, 51, 100, 192, 0, 2, 9, 0, 192, 0, 2, 1, 32, 203, 0, 113, 7, 0, 0, 0, 0})
	for name, c := range map[string]struct {
		keys    string
		options []dhcpv4.Option
	}{
		"router":    {options: []dhcpv4.Option{router}},
		"no router": {},
		"static routes": {
			keys: `"request": [{"option": "33"}]`,
			options: []dhcpv4.Option{router,
				dhcpv4.OptGeneric(dhcpv4.OptionStaticRoutingTable, []byte{10, 0, 0, 0, 192, 0, 2, 9})},
		},
		"classless routes": {keys: `"request": [{"option": "121"}], "priority": 7`, options: []dhcpv4.Option{router, classless}},
		"provided": {
			keys: `"provide": [{"option": "host-name", "value": "x", "fromArg": "K8S_POD_NAME"}, {"option": "12", "fromArg": "NONE"},
				{"option": "vendor-class-identifier", "value": "v"}]`,
			options: []dhcpv4.Option{router},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.server(c.options...)
			id := nettest.Name("pod-")
			daemon := w.reference()
			want := w.outcome(t, cni.Exec{Type: "macvlan"}, c.keys, id, daemon)
			w.keeper()
			got := w.outcome(t, plugin, c.keys, id, w.socket)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-reference +own)\n%s", diff)
			}
			asked := s.received(dhcpv4.MessageTypeDiscover)
			for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionClientIdentifier, dhcpv4.OptionHostName, dhcpv4.OptionClassIdentifier} {
				if diff := cmp.Diff(asked[0].Options.Get(code), asked[1].Options.Get(code)); diff != "" {
					t.Errorf("%s (-reference +own)\n%s", code, diff)
				}
			}
			for _, o := range asked[0].ParameterRequestList() {
				if !strings.Contains(asked[1].ParameterRequestList().String(), o.String()) {
					t.Errorf("the reference asks for %s", o)
				}
			}
		})
	}
}

// reference starts the daemon of the reference, and returns its socket.
func (w *world) reference() (socket string) {
	w.Helper()
	dir := refplugins.Dir(w)
	socket = filepath.Join(filepath.Dir(w.socket), "ref.sock")
	cmd := exec.Command(filepath.Join(dir, "dhcp"), "daemon", "-socketpath", socket)
	cmd.Stderr = w.Output()
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	w.eventually("the daemon listens", func() bool { _, err := os.Stat(socket); return err == nil })
	return socket
}

// An outcome of an ADD is what can be compared.
type outcome struct{ Result, Kernel string }

func (w *world) outcome(t *testing.T, p cni.Plugin, keys, id, socket string) outcome {
	t.Helper()
	ns := nettest.NewNS(t)
	req := &cni.Request{
		Attachment: cni.Attachment{ContainerID: id, Netns: ns.Path(), IfName: "net1", Args: "IgnoreUnknown=1;K8S_POD_NAME=blue"},
		Path:       []string{refplugins.Dir(t)},
		Config:     []byte(strings.Replace(string(w.config(keys)), w.socket, socket, 1)),
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	res, err := p.Add(ctx, req)
	if err != nil {
		t.Fatalf("ADD: %v", err)
	}
	for _, i := range res.Interfaces {
		i.Mac, i.Sandbox, i.Mtu = "", "", 0
	}
	found := outcome{text(t, res), ns.State(t, "net1")}
	if err := p.Del(ctx, req); err != nil {
		t.Errorf("DEL: %v", err)
	}
	return found
}
