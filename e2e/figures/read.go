package figures

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Read returns all figures that were noted in a folder, in the order of their files' names.
func Read(folder string) (list []Figure, err error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		var f Figure
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &f)
		}
		if err != nil {
			return nil, fmt.Errorf("read figure %s: %w", file, err)
		}
		list = append(list, f)
	}
	return list, nil
}
