package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// calledByEarly is all that early calls besides what is in this package: none of it needs a runtime.
var calledByEarly = []string{
	"bytes.Cut", "bytes.EqualFold", "bytes.Index", "bytes.TrimLeft", "bytes.trimLeftUnicode",
	"indexbody", "indexbytebody", "memeqbody",
	"internal/bytealg.Index", "internal/bytealg.IndexByte", "internal/bytealg.IndexByteString",
	"internal/bytealg.IndexRabinKarp[go.shape.[]uint8]", "internal/bytealg.IndexString",
	"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall", "syscall.RawSyscall6",
	"runtime.decoderune", "runtime.memequal", "runtime.memmove",
	"unicode.SimpleFold", "unicode/utf8.decodeRuneSlow",
}

// neverCalled is what is compiled into every function: checks of bounds, which do not fail, and of the stack, which has no end.
var neverCalled = []string{
	"runtime.morestack_noctxt", "runtime.panicBounds",
	"runtime.panicunsafeslicelen", "runtime.panicunsafestringlen", "runtime.panicunsafestringnilptr",
}

// depth is how much of the stack early may take, in bytes. The kernel gives at least 128 KiB, and takes some for itself.
const depth = 8 << 10

var (
	direct   = regexp.MustCompile(`^(?:CALL|JMP) (.*)\(SB\)$`)
	indirect = regexp.MustCompile(`^(?:CALL|JMP) `)
	within   = regexp.MustCompile(`^JMP (?:0x[0-9a-f]+|-?\d+\(PC\))$`)
	frame    = regexp.MustCompile(`^(?:SUBQ \$([^-].*), SP|ADDQ \$-(.*), SP|SUB \$(.*), RSP, R.+|MOVD\.W R30, -(.*)\(RSP\))$`)
	abi      = regexp.MustCompile(`\.abi(0|internal)$`)
)

// A function is what its machine code says of it.
type function struct {
	calls   []string
	unknown []string // instructions by which it may call anybody
	frame   int      // bytes
}

func (f *function) read(instruction string) {
	if m := direct.FindStringSubmatch(instruction); m != nil {
		f.calls = append(f.calls, abi.ReplaceAllString(m[1], ""))
	} else if indirect.MatchString(instruction) && !within.MatchString(instruction) {
		f.unknown = append(f.unknown, instruction)
	} else if m := frame.FindStringSubmatch(instruction); m != nil {
		size, _ := strconv.ParseInt(m[1]+m[2]+m[3]+m[4], 0, 0)
		f.frame += int(size)
	}
}

// TestWithoutRuntime reads the machine code of braid-shim: early is in effect with this toolchain, and calls nothing but what goes without a
// runtime. This is what has to be seen, with the tests in early_test.go and alone_test.go, before start_GOARCH.s is opened to
// another release of Go.
func TestWithoutRuntime(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			functions := disassemble(t, arch)
			entry := functions["_rt0_"+arch+"_linux"]
			if entry == nil || !slices.Contains(entry.calls, "main.early") {
				t.Fatalf("early is not in effect with %s: start_%s.s says for which releases it is", runtime.Version(), arch)
			}
			deepest := 0
			var walk func(name string, above int, path string)
			walk = func(name string, above int, path string) {
				f := functions[name]
				if path += " > " + name; f == nil {
					t.Errorf("%s: there is no such function", path)
					return
				}
				above += f.frame
				if deepest = max(deepest, above); above > depth {
					t.Fatalf("%s: %d bytes of stack", path, above)
				}
				if len(f.unknown) > 0 {
					t.Errorf("%s calls what is not known: %q", path, f.unknown)
				}
				for _, called := range f.calls {
					switch {
					case called == name: // again, once the stack would have grown
					case strings.HasPrefix(called, "main.") || slices.Contains(calledByEarly, called):
						walk(called, above, path)
					case !slices.Contains(neverCalled, called):
						t.Errorf("%s calls %s", path, called)
					}
				}
			}
			walk("main.early", 0, "")
			t.Logf("it takes %d bytes of stack", deepest)
			if deepest < 400 {
				t.Errorf("%d bytes of stack are too few for what is known to lie there", deepest)
			}
		})
	}
}

// build builds braid-shim.
func build(t *testing.T, shim string, flags ...string) {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", shim, ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// disassemble builds braid-shim, and returns its functions by name. One that has two, for two calling conventions, is one here.
func disassemble(t *testing.T, arch string) map[string]*function {
	t.Helper()
	shim := filepath.Join(t.TempDir(), "braid-shim")
	t.Setenv("GOARCH", arch)
	build(t, shim)
	out, err := exec.Command("go", "tool", "objdump", shim).Output()
	if err != nil {
		t.Fatal(err)
	}
	functions := make(map[string]*function)
	var f *function
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "TEXT "); ok {
			name, _, _ := strings.Cut(text, "(SB)")
			name = abi.ReplaceAllString(name, "")
			if functions[name] == nil {
				functions[name] = new(function)
			}
			f = functions[name]
		} else if f != nil && text != "" {
			columns := strings.FieldsFunc(lines.Text(), func(r rune) bool { return r == '\t' })
			f.read(strings.TrimSpace(columns[len(columns)-1]))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return functions
}
