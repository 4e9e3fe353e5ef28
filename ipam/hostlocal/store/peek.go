package store

import (
	"errors"
	"io"
	"net/netip"
	"os"
)

// Peek calls visit for every address that a folder has a reservation of, without the lock: it keeps nobody waiting and
// changes nothing, and what is reserved or freed meanwhile may be among them or not. It stops after limit files. A folder
// that does not exist has no reservations; the error then wraps fs.ErrNotExist.
func Peek(path string, limit int, visit func(netip.Addr)) error {
	dir, err := openFolder(path)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dir.fd), path)
	defer f.Close()
	for seen := 0; seen < limit; {
		names, err := f.Readdirnames(1024)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if a, ok := addressOf(name); ok {
				visit(a)
			}
		}
		seen += len(names)
	}
	return nil
}
