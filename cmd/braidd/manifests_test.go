package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The manifests call the program as it can be called.
func TestArgumentsOfManifests(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	for _, file := range []string{"../../deploy/daemonset.yaml", "../../deploy/uninstall/daemonset.yaml"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var ds appsv1.DaemonSet
		if err := yaml.UnmarshalStrict(b, &ds); err != nil {
			t.Fatal(err)
		}
		spec := ds.Spec.Template.Spec
		for _, c := range append(spec.InitContainers, spec.Containers...) {
			checkArguments(t, c)
		}
	}
}

func checkArguments(t *testing.T, c corev1.Container) {
	t.Helper()
	commands := map[string]*cobra.Command{"daemon": daemonCommand(), "install": installCommand(), "uninstall": uninstallCommand()}
	cmd, ok := commands[c.Args[0]]
	if !ok {
		t.Fatalf("container %s: braidd %s: there is no such command", c.Name, strings.Join(c.Args, " "))
	}
	if err := cmd.ParseFlags(c.Args[1:]); err != nil || cmd.Flags().NArg() > 0 {
		t.Errorf("container %s: braidd %s: %v", c.Name, strings.Join(c.Args, " "), err)
	}
}

func TestAPIServerOfEnvironment(t *testing.T) {
	for _, c := range []struct{ host, port, want string }{
		{"10.96.0.1", "443", "https://10.96.0.1:443"},
		{"fd00::1", "443", "https://[fd00::1]:443"},
		{"", "443", ""},
	} {
		env := map[string]string{"KUBERNETES_SERVICE_HOST": c.host, "KUBERNETES_SERVICE_PORT": c.port}
		if got := apiServer(func(name string) string { return env[name] }); got != c.want {
			t.Errorf("%s %s: found %q, want %q", c.host, c.port, got, c.want)
		}
	}
}
