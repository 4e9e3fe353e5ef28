// Recorder is a CNI plugin for tests. It answers as the file TYPE.json beside it says, TYPE being the name that it is
// called by, and adds each call to the file calls.jsonl there. Without such a file it does everything successfully.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A reply is what the plugin does for a command.
type reply struct {
	Result  json.RawMessage // printed, with $IFNAME, $NETNS and $VERSION filled in
	Print   string          // printed as it is, in place of a result
	Error   json.RawMessage // printed, and the exit code is 1
	Exit    int
	Stderr  string
	SleepMS int

	DeviceInfo json.RawMessage // written where runtimeConfig says
}

// A Call is one line of calls.jsonl.
type Call struct {
	Type, Command string
	Env           map[string]string
	Stdin         string
	Netns         string // the namespace that the plugin was executed in
	Start, End    int64  // nanoseconds
}

func main() {
	c := Call{Type: filepath.Base(os.Args[0]), Command: os.Getenv("CNI_COMMAND"), Env: map[string]string{}, Start: time.Now().UnixNano()}
	dir := filepath.Dir(os.Args[0])
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		c.Env[name] = value
	}
	stdin, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(2)
	}
	c.Stdin = string(stdin)
	c.Netns, _ = os.Readlink("/proc/self/ns/net") // empty in the log if it fails

	var conf struct {
		CNIVersion, Name string
		PrevResult       map[string]any
		RuntimeConfig    struct{ CNIDeviceInfoFile string }
	}
	_ = json.Unmarshal(stdin, &conf) // a test may send anything
	r := script(dir, c.Type, c.Command, conf.Name)
	time.Sleep(time.Duration(r.SleepMS) * time.Millisecond)
	fmt.Fprint(os.Stderr, r.Stderr)
	if path := conf.RuntimeConfig.CNIDeviceInfoFile; path != "" && r.DeviceInfo != nil {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, r.DeviceInfo, 0o644)); err != nil {
			fmt.Fprintln(os.Stderr, "recorder:", err)
		}
	}
	switch {
	case r.Error != nil:
		fmt.Println(string(r.Error))
		r.Exit = 1
	case r.Print != "":
		fmt.Print(r.Print)
	case r.Result != nil:
		fmt.Println(strings.NewReplacer("$IFNAME", os.Getenv("CNI_IFNAME"), "$NETNS", os.Getenv("CNI_NETNS"), "$VERSION", conf.CNIVersion).
			Replace(string(r.Result)))
	case c.Command == "VERSION":
		fmt.Println(`{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}`)
	case c.Command == "ADD":
		fmt.Println(result(conf.CNIVersion, conf.PrevResult))
	}
	c.End = time.Now().UnixNano()
	if err := log(filepath.Join(dir, "calls.jsonl"), c); err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(2)
	}
	os.Exit(r.Exit)
}

// script returns what to do: the reply to COMMAND@NETWORK, else to COMMAND.
func script(dir, plugin, command, network string) (r reply) {
	b, err := os.ReadFile(filepath.Join(dir, plugin+".json"))
	if os.IsNotExist(err) {
		return r
	}
	var replies map[string]reply
	if err == nil {
		err = json.Unmarshal(b, &replies)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(2)
	}
	if special, ok := replies[command+"@"+network]; ok {
		return special
	}
	return replies[command]
}

// result is that of an interface which nobody has made, with an address; or the one of the plugin before.
func result(version string, previous map[string]any) string {
	var answer any
	address := map[string]any{"address": "10.9.0.2/24", "interface": 0}
	answer = map[string]any{
		"cniVersion": version, "ips": []any{address}, "dns": map[string]any{},
		"interfaces": []any{map[string]any{"name": os.Getenv("CNI_IFNAME"), "mac": "02:00:00:00:00:09", "sandbox": os.Getenv("CNI_NETNS")}},
	}
	switch version {
	case "", "0.1.0", "0.2.0":
		answer = map[string]any{"cniVersion": version, "ip4": map[string]any{"ip": "10.9.0.2/24"}, "dns": map[string]any{}}
	case "0.3.0", "0.3.1", "0.4.0":
		address["version"] = "4"
	}
	if previous != nil {
		previous["cniVersion"], answer = version, previous
	}
	b, _ := json.Marshal(answer) // of maps and strings
	return string(b)
}

// log appends in one write, so that lines of processes that run at once stay whole.
func log(path string, c Call) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(append(b, '\n')); err != nil {
		return err
	}
	return f.Close()
}
