package delegate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
)

const (
	deviceInfoCapability = "CNIDeviceInfoFile"
	maxDeviceInfo        = 64 << 10 // bytes; a device is described in some hundred
	maxFileName          = 255      // bytes, what file systems allow
)

// deviceInfoTypes are the kinds of devices that the specification knows. Each is a key too, of what is told of the kind.
var deviceInfoTypes = []string{"pci", "vdpa", "vhost-user", "memif"}

// A deviceInfo is the folder of the files by which device plugins, Braid and CNI plugins tell each other about devices
// (Device Information Specification 1.1, 4 and 5): what the device plugin says lies in dp/, and Braid copies it to a file
// of the attachment in cni/, which a plugin that declares the capability CNIDeviceInfoFile may read, or write if there is
// none. What is there after ADD goes to network-status; DEL removes it.
//
// The file of an attachment is known by its name, so nothing about it has to be kept. No symbolic link is followed out of
// the folder.
type deviceInfo string

// deviceInfo returns the folder.
func (c *call) deviceInfo() deviceInfo {
	if c.DeviceInfo != "" {
		return deviceInfo(c.DeviceInfo)
	}
	return "/var/run/k8s.cni.cncf.io/devinfo"
}

// file returns the name of an attachment's file within the folder. Container and interface alone tell it from all others.
func (deviceInfo) file(at cni.Attachment, network string) string {
	unique := "-" + at.ContainerID + "_" + at.IfName
	name := strings.ReplaceAll(network, "/", "-")
	return filepath.Join("cni", name[:min(len(name), max(0, maxFileName-len(unique)))]+unique)
}

// request tells the plugins of an attachment that declare the capability where its file is.
func (d deviceInfo) request(r *journal.Record, a *journal.Attachment) {
	if !a.Network.Supports(deviceInfoCapability) {
		return
	}
	a.Capabilities = maps.Clone(a.Capabilities)
	if a.Capabilities == nil {
		a.Capabilities = make(map[string]any)
	}
	a.Capabilities[deviceInfoCapability] = filepath.Join(string(d), d.file(r.At(a), a.Name))
}

// prepare copies what the device plugin says of an attachment's device, if it says anything that can be read: the pod has
// its device without it, too.
func (d deviceInfo) prepare(at cni.Attachment, network string, dev device, log *slog.Logger) (err error) {
	if dev.Resource == "" {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("copy the information about device %s: %w", dev.ID, err)
		}
	}()
	name := strings.ReplaceAll(dev.Resource+"-"+dev.ID+"-device.json", "/", "-")
	root, err := os.OpenRoot(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := readBounded(root, filepath.Join("dp", name))
	if err != nil {
		log.Warn("what the device plugin says of the device is not used", "device", dev.ID, "err", err)
	}
	if info == nil {
		return nil
	}
	if err := root.Mkdir("cni", 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	file := d.file(at, network)
	if err := root.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(info)
	return errors.Join(err, f.Close())
}

// collect returns what is told of an attachment's device after ADD; nil if nothing is, or nothing that can be used.
func (d deviceInfo) collect(at cni.Attachment, network string, log *slog.Logger) json.RawMessage {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("no device-info", "err", err)
		}
		return nil
	}
	defer root.Close()
	file := d.file(at, network)
	info, err := readBounded(root, file)
	if err == nil && info != nil {
		info, err = checkDeviceInfo(info)
	}
	if err != nil {
		log.Warn("no device-info", "file", filepath.Join(string(d), file), "err", err)
		return nil
	}
	return info
}

// remove removes the file of an attachment, if there is one.
func (d deviceInfo) remove(at cni.Attachment, network string) error {
	root, err := os.OpenRoot(string(d))
	if err == nil {
		defer root.Close()
		err = root.Remove(d.file(at, network))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the information about the device: %w", err)
	}
	return nil
}

// readBounded returns the content of a file; nil if there is none, or with an error.
func readBounded(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxDeviceInfo+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxDeviceInfo {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxDeviceInfo)
	}
	return b, nil
}

// checkDeviceInfo returns the content of a file for network-status.
//
// Network CRD specification (5.3.7): "Such a map must contain the keys described in the Device Information Specification."
func checkDeviceInfo(b []byte) (json.RawMessage, error) {
	if err := conf.CheckJSON(b, maxDeviceInfo); err != nil {
		return nil, err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return nil, err
	}
	var kind, version string
	if json.Unmarshal(keys["type"], &kind) != nil || !slices.Contains(deviceInfoTypes, kind) {
		return nil, fmt.Errorf("type: found %.40q, want one of %s", keys["type"], strings.Join(deviceInfoTypes, ", "))
	}
	if json.Unmarshal(keys["version"], &version) != nil || version == "" {
		return nil, fmt.Errorf("version: found %.40q, want a version like \"1.1.0\"", keys["version"])
	}
	var details map[string]any
	if json.Unmarshal(keys[kind], &details) != nil || details == nil {
		return nil, fmt.Errorf("%s: found %.40q, want an object, which type %q asks for", kind, keys[kind], kind)
	}
	var compact bytes.Buffer
	err := json.Compact(&compact, b)
	return compact.Bytes(), err
}
