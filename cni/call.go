package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/internal/edge"
)

// What is accepted of a runtime at most. The specification has no limits, but a container's identifier is part of names of files,
// which have at most 255 bytes.
const (
	maxStdin       = edge.MaxStdin
	maxContainerID = 200      // bytes; runtimes use 64
	maxName        = 253      // bytes of a network's name, that of a folder
	maxArgs        = 32 << 10 // bytes of CNI_ARGS
)

// A call is what a plugin binary is asked: the protocol parameters of the environment and the configuration of
// standard input, validated.
type call struct {
	command string
	version string // cniVersion of the configuration
	req     *Request
}

// commands has what each command asks for. VERSION is not among them: it comes before all validation.
var commands = map[string]struct {
	since      string   // cniVersion that introduced it
	attachment bool     // it is about one interface of one container
	required   []string // environment variables
}{
	"ADD":    {"0.1.0", true, []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}},
	"DEL":    {"0.1.0", true, []string{"CNI_CONTAINERID", "CNI_IFNAME"}},
	"CHECK":  {"0.4.0", true, []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}},
	"GC":     {"1.1.0", false, []string{"CNI_PATH"}},
	"STATUS": {"1.1.0", false, nil},
}

// readCall reads and validates one call.
func readCall(ctx context.Context, command string, proc Process) (*call, error) {
	req, err := readEnv(command, proc.Env)
	if err != nil {
		return nil, err
	}
	if req.Config, err = readBounded(ctx, proc.Stdin); err != nil {
		return nil, types.NewError(types.ErrIOFailure, fmt.Sprintf("read configuration from standard input: %v", err), "")
	}
	cniVersion, err := validateConfig(command, req.Config)
	if err != nil {
		return nil, err
	}
	if !isTrue(proc.Env("CNI_NETNS_OVERRIDE")) {
		if err := refuseOwnNetns(command, req.Netns); err != nil {
			return nil, err
		}
	}
	return &call{command: command, version: cniVersion, req: req}, nil
}

// readEnv reads the parameters.
//
// "4: Invalid necessary environment variables, like CNI_COMMAND, CNI_CONTAINERID, etc. The error message must contain
// the names of invalid variables."
func readEnv(command string, env func(string) string) (*Request, error) {
	rules, known := commands[command]
	if !known {
		names := slices.Sorted(maps.Keys(commands))
		return nil, envError(fmt.Sprintf("CNI_COMMAND is %q: must be VERSION, %s", command, strings.Join(names, ", ")))
	}
	req := &Request{Path: filepath.SplitList(env("CNI_PATH"))}
	if rules.attachment {
		req.Attachment = Attachment{
			ContainerID: env("CNI_CONTAINERID"),
			Netns:       env("CNI_NETNS"),
			IfName:      env("CNI_IFNAME"),
			Args:        env("CNI_ARGS"),
		}
	}
	var complaints []string
	for _, name := range rules.required {
		if env(name) == "" {
			complaints = append(complaints, name+" is missing")
		}
	}
	if id := req.ContainerID; len(id) > maxContainerID {
		complaints = append(complaints, fmt.Sprintf("CNI_CONTAINERID has %d bytes: at most %d are possible", len(id), maxContainerID))
	} else if id != "" {
		if err := utils.ValidateContainerID(id); err != nil {
			complaints = append(complaints, fmt.Sprintf("CNI_CONTAINERID is %q: %s", id, err.Msg))
		}
	}
	if name := req.IfName; name != "" {
		if err := utils.ValidateInterfaceName(name); err != nil {
			complaints = append(complaints, fmt.Sprintf("CNI_IFNAME is %q: %s", name, err.Msg))
		} else if strings.Contains(name, "%") {
			complaints = append(complaints, fmt.Sprintf("CNI_IFNAME is %q: the kernel takes a %% for a pattern", name))
		} else if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
			complaints = append(complaints, fmt.Sprintf("CNI_IFNAME is %q: must have no control characters and be valid UTF-8", name))
		}
	}
	if args := req.Args; command != "DEL" { // which has to work for whatever there was an ADD of
		if len(args) > maxArgs {
			complaints = append(complaints, fmt.Sprintf("CNI_ARGS has %d bytes: at most %d are possible", len(args), maxArgs))
		} else if strings.ContainsFunc(args, unicode.IsControl) {
			complaints = append(complaints, fmt.Sprintf("CNI_ARGS is %.100q: must have no control characters", args))
		}
	}
	if complaints != nil {
		return nil, envError(complaints...)
	}
	return req, nil
}

func envError(complaints ...string) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, "invalid environment: "+strings.Join(complaints, "; "), "")
}

// validateConfig checks the keys that every configuration has, and returns the version.
func validateConfig(command string, config []byte) (cniVersion string, err error) {
	var conf struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
	}
	if err := json.Unmarshal(config, &conf); err != nil {
		return "", decodingError("configuration", err)
	}
	if len(conf.Name) > maxName {
		return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("invalid configuration: name has %d bytes: at most %d are possible", len(conf.Name), maxName), "")
	}
	if err := utils.ValidateNetworkName(conf.Name); err != nil {
		return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("invalid configuration: name is %q: must start with a letter or digit, "+
			"followed by letters, digits, underscores, dots or hyphens", conf.Name), "")
	}
	if conf.CNIVersion == "" {
		conf.CNIVersion = "0.1.0"
	}
	if all := version.All.SupportedVersions(); !slices.Contains(all, conf.CNIVersion) {
		return "", versionError("cniVersion is %q, supported are %s", conf.CNIVersion, strings.Join(all, ", "))
	}
	if since := commands[command].since; !atLeast(conf.CNIVersion, since) {
		return "", versionError("cniVersion is %q, but %s needs %s or later", conf.CNIVersion, command, since)
	}
	return conf.CNIVersion, nil
}

func versionError(format string, args ...any) error {
	return types.NewError(types.ErrIncompatibleCNIVersion, "incompatible CNI versions: "+fmt.Sprintf(format, args...), "")
}

// refuseOwnNetns refuses the network namespace of the host, in which the plugin would make and delete the host's own
// interfaces, and one that does not exist, unless it is to be cleaned up.
func refuseOwnNetns(command, netns string) error {
	if netns == "" {
		return nil
	}
	pod, err := os.Stat(netns)
	if err != nil {
		if command == "DEL" {
			return nil
		}
		return envError(fmt.Sprintf("CNI_NETNS is %q: %v", netns, err))
	}
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("find own network namespace: %w", err)
	}
	if os.SameFile(pod, own) {
		return types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("CNI_NETNS is %q: that is the network namespace of the host", netns), "")
	}
	return nil
}

func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

// readBounded reads standard input to its end, and not longer than the context lives. An empty one is an error: a
// closed one looks like that.
func readBounded(ctx context.Context, stdin io.Reader) ([]byte, error) {
	type read struct {
		data []byte
		err  error
	}
	done := make(chan read, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(stdin, maxStdin+1))
		done <- read{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case r := <-done:
		switch {
		case r.err != nil:
			return nil, r.err
		case len(r.data) == 0:
			return nil, io.ErrUnexpectedEOF
		case len(r.data) > maxStdin:
			return nil, fmt.Errorf("more than %d bytes", maxStdin)
		}
		return r.data, nil
	}
}
