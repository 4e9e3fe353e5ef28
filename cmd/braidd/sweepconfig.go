package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/braid-cni/braid/conf"
)

// errNoEntry says that a configuration is sound and has nothing to do with Braid.
var errNoEntry = errors.New(`it has no plugin of type "braid" or "braid-shim"`)

// sweepEntry returns the configuration of the plugin in a file, or in the first file of a folder that has it.
func sweepEntry(file, dir string) ([]byte, error) {
	if file != "" {
		entry, err := entryIn(file)
		if err != nil {
			return nil, fmt.Errorf("read configuration %s: %w", file, err)
		}
		return entry, nil
	}
	entries, err := os.ReadDir(dir) // sorted, as runtimes read it
	if err != nil {
		return nil, fmt.Errorf("look for the plugin's configuration: %w", err)
	}
	var skipped []error
	for _, e := range entries {
		if !slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		entry, err := entryIn(filepath.Join(dir, e.Name()))
		if err == nil {
			return entry, nil
		}
		if !errors.Is(err, errNoEntry) {
			skipped = append(skipped, fmt.Errorf("%s: %w", e.Name(), err))
		}
	}
	return nil, errors.Join(append([]error{fmt.Errorf(`no file in %s has a plugin of type "braid" or "braid-shim": name one with --config`, dir)}, skipped...)...)
}

// entryIn returns what the plugin gets to read, if a file has it: alone, or in a list.
func entryIn(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list struct {
		Type       string            `json:"type"`
		CNIVersion string            `json:"cniVersion"`
		Name       string            `json:"name"`
		Plugins    []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	if conf.IsOwnType(list.Type) {
		return b, nil
	}
	for _, plugin := range list.Plugins {
		var p struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(plugin, &p) == nil && conf.IsOwnType(p.Type) {
			return conf.With(plugin, map[string]any{"name": list.Name, "cniVersion": list.CNIVersion})
		}
	}
	return nil, errNoEntry
}
