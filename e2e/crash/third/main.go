// Command third is a third-party plugin for the tests: at ADD it makes a file, at DEL it removes it. A file beside the folder
// can have it misbehave.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(os.Getenv("CNI_COMMAND")); err != nil {
		fmt.Printf(`{"cniVersion": "1.1.0", "code": 100, "msg": %q}`, err)
		os.Exit(1)
	}
}

func run(command string) error {
	var config struct {
		Marks      string            `json:"marks"` // the folder
		PrevResult json.RawMessage   `json:"prevResult"`
		Valid      []json.RawMessage `json:"cni.dev/valid-attachments"`
	}
	if command == "VERSION" {
		fmt.Print(`{"cniVersion": "1.1.0", "supportedVersions": ["1.1.0"]}`)
		return nil
	}
	if err := json.NewDecoder(os.Stdin).Decode(&config); err != nil {
		return err
	}
	if mode := misbehaviour(config.Marks, command); mode != nil {
		if command == "ADD" {
			if err := os.WriteFile(filepath.Join(config.Marks, os.Getenv("CNI_CONTAINERID")), nil, 0o600); err != nil {
				return err
			}
		}
		mode(config.Marks, config.PrevResult)
		return nil
	}
	mark := filepath.Join(config.Marks, os.Getenv("CNI_CONTAINERID"))
	switch command {
	case "ADD":
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			return err
		}
		_, err := os.Stdout.Write(config.PrevResult)
		return err
	case "DEL":
		if err := os.Remove(mark); !os.IsNotExist(err) {
			return err
		}
	case "CHECK":
		_, err := os.Stat(mark)
		return err
	case "GC":
		return gc(config.Marks, config.Valid)
	}
	return nil
}

// gc removes the marks that are not those of valid attachments.
func gc(dir string, valid []json.RawMessage) error {
	keep := make(map[string]bool)
	for _, v := range valid {
		var a struct{ ContainerID string }
		if err := json.Unmarshal(v, &a); err != nil {
			return err
		}
		keep[a.ContainerID] = true
	}
	marks, err := os.ReadDir(dir)
	for _, m := range marks {
		if err == nil && !keep[m.Name()] {
			err = os.Remove(filepath.Join(dir, m.Name()))
		}
	}
	return err
}
