package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/braid-cni/braid/internal/atomicfile"
)

// leftoverAge is how old a temporary file is that nobody will rename any more.
const leftoverAge = time.Hour

// Tidy removes what writers have left that were killed. It needs no lock.
func (j *Journal) Tidy() error {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return fmt.Errorf("look for what writers have left: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), atomicfile.TmpPrefix) {
			continue
		}
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > leftoverAge {
			err = os.Remove(filepath.Join(j.dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
