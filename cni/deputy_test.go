package cni_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
)

// measured says what is called.
func measured(ctx context.Context, command string, req *cni.Request) error {
	fmt.Fprintf(os.Stderr, "plugin: %s, %d bytes, after a deputy: %t\n", command, len(req.Config), cni.CallID(ctx) != "")
	return nil
}

// deputy says what it is called for, and does it if CNI_ARGS has an exit code for it.
func deputy(environ []string, stdin []byte) (cni.Answer, bool) {
	args := ""
	for _, e := range environ {
		if value, ok := strings.CutPrefix(e, "CNI_ARGS="); ok {
			args = value
		}
	}
	fmt.Fprintf(os.Stderr, "deputy: %s, %d bytes\n", os.Getenv("CNI_COMMAND"), len(stdin))
	var code int
	if _, err := fmt.Sscanf(args, "exit=%d", &code); err != nil {
		return cni.Answer{Stdout: "to be thrown away", ExitCode: 7}, false
	}
	return cni.Answer{ExitCode: code, Stdout: "an answer", Stderr: "a remark\n"}, true
}

// An outcome is what a binary leaves.
type outcome struct {
	Exit           int
	Stdout, Stderr string
}

func outcomeOf(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Stderr = &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

const (
	small     = `{"cniVersion": "1.1.0", "name": "n"}`
	mostStdin = 8 << 20
)

func padded(size int) string { return small + strings.Repeat(" ", size-len(small)) }

func TestDeputy(t *testing.T) {
	for _, tt := range []struct {
		command, args, stdin string
		want                 outcome // of which standard output is looked at only if the deputy has answered, or has an error
	}{
		{"ADD", "exit=0", small, outcome{0, "an answer", "deputy: ADD, 36 bytes\na remark\n"}},
		{"DEL", "exit=0", small, outcome{0, "an answer", "deputy: DEL, 36 bytes\na remark\n"}},
		{"CHECK", "exit=3", small, outcome{3, "an answer", "deputy: CHECK, 36 bytes\na remark\n"}},
		{"ADD", "exit=0", padded(mostStdin), outcome{0, "an answer", "deputy: ADD, 8388608 bytes\na remark\n"}},
		{"ADD", "exit=0", "", outcome{0, "an answer", "deputy: ADD, 0 bytes\na remark\n"}},

		// It declines.
		{"ADD", "", small, outcome{0, "", "deputy: ADD, 36 bytes\nplugin: ADD, 36 bytes, after a deputy: true\n"}},
		{"DEL", "", small, outcome{0, "", "deputy: DEL, 36 bytes\nplugin: DEL, 36 bytes, after a deputy: true\n"}},
		{"CHECK", "", padded(mostStdin), outcome{0, "", "deputy: CHECK, 8388608 bytes\nplugin: CHECK, 8388608 bytes, after a deputy: true\n"}},
		{"ADD", "", "", outcome{1, "unexpected EOF", "deputy: ADD, 0 bytes\n"}},

		// It is not asked.
		{"ADD", "exit=0", padded(mostStdin + 1), outcome{1, "more than 8388608 bytes", ""}},
		{"ADD", "exit=0", padded(3 * mostStdin), outcome{1, "more than 8388608 bytes", ""}},
		{"GC", "exit=0", small, outcome{0, "", "plugin: GC, 36 bytes, after a deputy: false\n"}},
		{"STATUS", "exit=0", small, outcome{0, "", "plugin: STATUS, 36 bytes, after a deputy: false\n"}},
		{"VERSION", "exit=0", small, outcome{0, "supportedVersions", ""}},
		{"", "exit=0", small, outcome{0, "", "about\nCNI versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"}},
		{"UPDATE", "exit=0", small, outcome{1, "CNI_COMMAND is", ""}},
	} {
		t.Run(fmt.Sprint(tt.command, tt.args, len(tt.stdin)), func(t *testing.T) {
			cmd := binary(t, "deputised", tt.command)
			cmd.Env = append(cmd.Env, "CNI_ARGS="+tt.args)
			cmd.Stdin = strings.NewReader(tt.stdin)
			got := outcomeOf(t, cmd)
			if strings.Contains(got.Stdout, tt.want.Stdout) && tt.want.Stdout != "an answer" {
				got.Stdout = tt.want.Stdout
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
		})
	}
}

// What cannot be read is no call, for nobody.
func TestDeputyIsNotAskedAfterAnError(t *testing.T) {
	cmd := binary(t, "deputised", "ADD")
	cmd.Env = append(cmd.Env, "CNI_ARGS=exit=0")
	folder, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	cmd.Stdin = folder
	if got := outcomeOf(t, cmd); got.Exit != 1 || !strings.Contains(got.Stdout, "is a directory") || got.Stderr != "" {
		t.Errorf("found %+v", got)
	}
}

// A result that nobody takes is undone. Other answers leave nothing that had to be.
func TestDeputyAnswersNobody(t *testing.T) {
	for _, tt := range []struct {
		command, args string
		exit          int
		undone        bool
	}{
		{"ADD", "exit=0", 1, true},
		{"ADD", "exit=1", 1, false},
		{"DEL", "exit=0", 0, false},
		{"CHECK", "exit=0", 0, false},
	} {
		t.Run(tt.command+tt.args, func(t *testing.T) {
			cmd := binary(t, "deputised", tt.command)
			cmd.Env = append(cmd.Env, "CNI_ARGS="+tt.args)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			cmd.Stdout = w
			got := outcomeOf(t, cmd)
			undone := strings.Contains(got.Stderr, "plugin: DEL, 36 bytes") && strings.Contains(got.Stderr, syscall.EPIPE.Error())
			if got.Exit != tt.exit || undone != tt.undone || strings.Contains(got.Stderr, "plugin:") != tt.undone {
				t.Errorf("found %+v, want exit code %d, undone: %t", got, tt.exit, tt.undone)
			}
		})
	}
}
