package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/internal/memo"
)

// DefaultDaemonSocket is where the daemon listens unless the configuration says otherwise.
const DefaultDaemonSocket = edge.DefaultDaemonSocket

// TLSSession is the file in cniDir that has the TLS session with the API server, from one ADD to the next.
const TLSSession = "session"

// ignoredKeys are keys of Multus and of CNI that have no effect here.
var ignoredKeys = []string{
	"retryDeleteOnError",     // a record is always kept until DEL succeeds
	"auxiliaryCNIChainName",  // plugins of a folder belong to the network of that name
	"logOptions",             // rotating is left to logrotate or the journal
	"daemonSocketDir",        // see "daemonSocket"
	"cniVersions",            // the runtime selects the version
	"loadOnlyInlinedPlugins", // a key of a list
	"dns", "ipam",            // the networks have their own
}

func defaults() *Config {
	return &Config{
		CNIVersion:       "0.1.0",
		ConfDir:          "/etc/cni/braid/net.d",
		BinDir:           "/opt/cni/bin",
		CNIDir:           "/var/lib/cni/braid",
		DaemonSocket:     DefaultDaemonSocket,
		NetworkNamespace: "kube-system",
		SystemNamespaces: []string{"kube-system"},
		GlobalNamespaces: []string{"default"},
		Result:           ResultMerged,
		Log:              Log{Level: slog.LevelWarn, ToStderr: true},
		Deadlines: Deadlines{
			Add: 100 * time.Second, Del: 100 * time.Second, Check: 60 * time.Second, GC: 100 * time.Second, Status: 10 * time.Second,
			Plugin: 60 * time.Second, Resolve: 15 * time.Second,
		},
	}
}

// Parse decodes the plugin's own configuration. Every key of Multus is known: one that has no effect here is listed in
// Ignored. Any other key is an error that names the nearest known one.
//
// Errors are of type *types.Error: code 6 if the input is no JSON object, else 7, with all complaints at once. The Config
// is never nil: with an error it has what could be read, and defaults for the rest, which is enough to DEL.
func Parse(b []byte) (*Config, error) { return ParseWith(nil, b) }

// ParseWith is [Parse] with a memory, which becomes that of the Config: what the operator has written is decoded once, and what
// the runtime has put in for a call is decoded in each.
func ParseWith(m *memo.Memory, b []byte) (*Config, error) {
	c := defaults()
	c.Memory = m
	if len(b) > maxConfig {
		return c, decodingError("configuration", fmt.Errorf("%d bytes exceed the limit of %d", len(b), maxConfig))
	}
	if err := checkSyntax(b); err != nil {
		return c, decodingError("configuration", err)
	}
	var bad complaints
	o, ok := openObject(b, "", &bad)
	if !ok {
		bad.code = types.ErrDecodingFailure
		return c, bad.err("configuration")
	}
	written, runtime := o.divide(func(m member) bool { return isReserved(m.key) || fold(m.key) == "args" })
	text := written.text()
	remembered, err := memo.Of(m, writtenConfig(text), len(text), func() (*Config, error) {
		written.known = []string{"prevResult", "args", "runtimeConfig", validAttachments} // that one of them may be meant
		c.readWritten(written)
		return c, bad.err("configuration")
	})
	if err == nil {
		own := *remembered
		c = &own
	}
	c.readRuntime(runtime)
	bad.code = 0 // it is about a delegate
	return c, bad.err("configuration")
}

// writtenConfig is what the operator has written, as [object.text] has it.
type writtenConfig string

// readWritten reads what the operator has written.
func (c *Config) readWritten(o *object) {
	o.checkMembers()
	c.readStandard(o)
	c.readNetworks(o)
	c.readLookup(o)
	c.readWork(o)
	for _, key := range ignoredKeys {
		if _, found := o.raw(key); found {
			c.Ignored = append(c.Ignored, key)
		}
	}
	o.unknown("")
}

// CheckDefaultNetwork returns an error, code 7, if there is no default network to attach a pod to. It is for ADD: a
// plugin that is chained after another one finds the default network in prevResult, and only ADD and its successors get
// to see that.
func (c *Config) CheckDefaultNetwork() error {
	if len(c.Delegates) > 0 || c.ClusterNetwork != "" || c.PrevResult != nil {
		return nil
	}
	return types.NewError(types.ErrInvalidNetworkConfig, `invalid configuration: found neither "delegates" nor "clusterNetwork", want one of them `+
		`for the pod's default network, or the plugin in a list after the one that makes it`, "")
}

// checkMembers complains about keys that decoders could read differently. What the runtime puts in is spared: the
// annotations of a pod, for one, may differ in case only.
func (o *object) checkMembers() {
	top := level{keys: map[string]string{}}
	for _, m := range o.members {
		if err := top.addKey(m.key); err != nil {
			o.addf("", "%v", err)
		} else if isReserved(m.key) || m.key == "args" {
			continue
		} else if err := checkKeys(m.value); err != nil {
			o.addf(m.key, "%v", err)
		}
	}
}

func (c *Config) readStandard(o *object) {
	o.read("cniVersion", &c.CNIVersion, "a string")
	o.read("type", &c.Type, "a string")
	o.readName("name", &c.Name, isNetworkName, wantNetwork)
	o.read("capabilities", &c.Capabilities, `an object of true and false, like {"ips": true}`)
	c.DisableCheck = o.readBool("disableCheck")
	c.DisableGC = o.readBool("disableGC")
}

const validAttachments = "cni.dev/valid-attachments"

// readRuntime reads what the runtime puts in for each call.
func (c *Config) readRuntime(o *object) {
	o.checkMembers()
	c.PrevResult, _ = o.raw("prevResult")
	c.Args, _ = o.raw("args")
	o.read("runtimeConfig", &c.RuntimeConfig, "an object")
	if annotations, ok := c.RuntimeConfig["io.kubernetes.cri.pod-annotations"]; ok {
		if err := json.Unmarshal(annotations, &c.PodAnnotations); err != nil {
			o.mismatch("runtimeConfig.io.kubernetes.cri.pod-annotations", annotations, "an object of strings")
		}
	}
	o.read(validAttachments, &c.ValidAttachments, `a list like [{"containerID": "id", "ifname": "eth0"}]`)
	isValid := func(m member) bool { return m.key == validAttachments && string(m.value) == "null" }
	if slices.ContainsFunc(o.members, isValid) {
		c.ValidAttachments = []types.GCAttachment{} // how a Go runtime writes that it has none
	}
	o.unknown("cni.dev/")
}

func (c *Config) readNetworks(o *object) {
	var delegates []json.RawMessage
	if o.read("delegates", &delegates, "a list of network configurations") && len(delegates) == 0 {
		o.addf("delegates", "found an empty list, want one network at least")
	}
	for i, raw := range delegates {
		inherited := Network{CNIVersion: c.CNIVersion}
		if i == 0 {
			inherited.Name = c.Name
		}
		path := fmt.Sprintf("delegates[%d]", i)
		n := parseNetwork(raw, path, inherited, nil, o.complaints)
		if i := slices.IndexFunc(n.Plugins, func(p Plugin) bool { return c.IsSelf(p.Type) }); i >= 0 {
			o.addf(path, "found type %s, want another: the plugin cannot be its own delegate", quote(n.Plugins[i].Type))
		}
		c.Delegates = append(c.Delegates, n)
	}

	const want = "the name of a NetworkAttachmentDefinition or of a network in confDir, or an absolute path"
	if o.read("clusterNetwork", &c.ClusterNetwork, want) && !isNetworkRef(c.ClusterNetwork) {
		o.mismatch("clusterNetwork", c.ClusterNetwork, want)
	}
	if c.ClusterNetwork != "" && len(delegates) > 0 {
		o.addf("clusterNetwork", `found also "delegates", want one of the two`)
	}
	o.readNames("defaultNetworks", &c.DefaultNetworks, isNetworkRef, want)
}

// isNetworkRef tells if s names a network, or a path as Multus tells it from a name.
func isNetworkRef(s string) bool {
	return isNetworkName(s) || filepath.IsAbs(s)
}

func (c *Config) readLookup(o *object) {
	o.readPath("kubeconfig", &c.Kubeconfig)
	o.readPath("manifests", &c.Manifests)
	o.readPath("podResources", &c.PodResources)
	o.readPath("confDir", &c.ConfDir)
	o.readPath("binDir", &c.BinDir)
	if c.Kubeconfig != "" && c.Manifests != "" {
		o.addf("manifests", `found also "kubeconfig", want one of the two`)
	}

	o.readOptional("multusNamespace", &c.NetworkNamespace, isLabel, wantLabel)
	multusNamespace, both := o.raw("multusNamespace")
	o.readOptional("networkNamespace", &c.NetworkNamespace, isLabel, wantLabel)
	if ns, ok := o.raw("networkNamespace"); ok && both && string(ns) != string(multusNamespace) {
		o.addf("networkNamespace", `found %s, but "multusNamespace" is %s, want one of the two keys`, quote(ns), quote(multusNamespace))
	}

	o.readNames("systemNamespaces", &c.SystemNamespaces, isLabel, wantLabel)
	c.NamespaceIsolation = o.readBool("namespaceIsolation")
	c.readGlobalNamespaces(o)
	c.readPolicy(o)
}

// readGlobalNamespaces takes a list, or names separated by commas as Multus does. Without a name the latter counts as
// absent.
func (c *Config) readGlobalNamespaces(o *object) {
	var csv string
	if raw, ok := o.raw("globalNamespaces"); !ok || json.Unmarshal(raw, &csv) != nil {
		o.readNames("globalNamespaces", &c.GlobalNamespaces, isLabel, wantLabel)
		return
	}
	var names []string
	for name := range strings.SplitSeq(csv, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if !isLabel(name) {
			o.mismatch("globalNamespaces", name, wantLabel)
		}
		names = append(names, name)
	}
	if names != nil {
		c.GlobalNamespaces = names
	}
}

func (c *Config) readWork(o *object) {
	o.readPath("cniDir", &c.CNIDir)
	o.readPath("readinessindicatorfile", &c.ReadinessIndicatorFile)
	o.readPath("daemonSocket", &c.DaemonSocket)
	c.WaitForStatus = o.readBool("waitForStatus")
	isResult := func(s string) bool { return s == ResultMerged || s == ResultDefault }
	o.readOptional("result", &c.Result, isResult, `"merged" or "default"`)
	o.readNames("exec", &c.Exec, isFileName, wantType)
	if raw, ok := o.raw("deadlines"); ok {
		c.Deadlines.read(raw, o.complaints)
	}
	c.Log.read(o)
}

func (d *Deadlines) read(raw json.RawMessage, c *complaints) {
	const want = `a duration like "90s" or "2m"`
	o, _ := openObject(raw, "deadlines", c)
	for _, deadline := range []struct {
		key  string
		into *time.Duration
	}{
		{"add", &d.Add}, {"del", &d.Del}, {"check", &d.Check}, {"gc", &d.GC}, {"status", &d.Status}, {"plugin", &d.Plugin}, {"resolve", &d.Resolve},
	} {
		var s string
		if !o.read(deadline.key, &s, want) {
			continue
		}
		if v, err := time.ParseDuration(s); err != nil || v <= 0 {
			o.mismatch(o.path+deadline.key, s, want)
		} else {
			*deadline.into = v
		}
	}
	o.unknown("")
}

func (l *Log) read(o *object) {
	o.readPath("logFile", &l.File)
	if _, ok := o.raw("logToStderr"); ok {
		l.ToStderr = o.readBool("logToStderr")
	}
	level := "warn"
	const want = `"panic", "error", "warn", "info", "verbose" or "debug"`
	if !o.read("logLevel", &level, want) {
		return
	}
	var err error
	if l.Level, err = parseLevel(level); err != nil {
		o.mismatch("logLevel", level, want)
	}
}

// parseLevel knows the levels of Multus, of which "verbose" is what others call "info", and those of slog.
func parseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "panic":
		return LevelPanic, nil
	case "error":
		return slog.LevelError, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "info", "verbose":
		return slog.LevelInfo, nil
	case "debug":
		return slog.LevelDebug, nil
	default:
		return slog.LevelWarn, errors.New("unknown level")
	}
}
