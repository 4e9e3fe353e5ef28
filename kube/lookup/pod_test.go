package lookup

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnnotations(t *testing.T) {
	all := map[string]string{
		"k8s.v1.cni.cncf.io/networks": "a", "v1.multus-cni.io/default-network": "b", "braid-cni.io/x": "c", "k8s.v1.cni.cncf.io/resourceName": "d",
		"k8s.v1.cni.cncf.io/network-status": "[]", "kubernetes.io/config.mirror": "hash", "kubernetes.io/config.source": "file",
		"k8s.v1.cni.cncf.io": "no key", "k8s.v1.cni.cncf.io.example.org/networks": "another domain", "networks": "e", "": "",
	}
	want := map[string]string{
		"k8s.v1.cni.cncf.io/networks": "a", "v1.multus-cni.io/default-network": "b", "braid-cni.io/x": "c", "k8s.v1.cni.cncf.io/resourceName": "d",
	}
	if diff := cmp.Diff(want, Annotations(all)); diff != "" {
		t.Errorf("Annotations (-want +got):\n%s", diff)
	}
	want["kubernetes.io/config.mirror"] = "hash"
	if diff := cmp.Diff(want, Strip(all)); diff != "" {
		t.Errorf("Strip (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, Strip(Strip(all))); diff != "" {
		t.Errorf("Strip, twice (-want +got):\n%s", diff)
	}
	if got := Annotations(map[string]string{"other": ""}); got != nil {
		t.Errorf("found %v, want nil", got)
	}
}

func TestIsStaticUID(t *testing.T) {
	for uid, want := range map[string]bool{
		"0123456789abcdef0123456789abcdef":     true,
		"00000000-0000-4000-8000-000000000001": false,
		"0123456789abcdef0123456789abcde":      false,
		"0123456789ABCDEF0123456789abcdef":     false,
		"":                                     false,
	} {
		if got := IsStaticUID(uid); got != want {
			t.Errorf("IsStaticUID(%q) = %v, want %v", uid, got, want)
		}
	}
}
