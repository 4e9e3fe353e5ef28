package journal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Update changes the result of an attachment after its ADD: a DHCP server, for one, may give another address to a pod that
// runs, and CHECK is to compare with that one. It waits for the lock of the container until ctx ends. The error is
// ErrNotFound if no finished ADD has made the attachment.
func (j *Journal) Update(ctx context.Context, containerID, network, ifName string, change func(*types100.Result)) error {
	unlock, err := j.Lock(ctx, containerID)
	if err != nil {
		return err
	}
	defer unlock()
	paths, err := filepath.Glob(filepath.Join(j.dir, containerID+":*.json"))
	if err != nil {
		return fmt.Errorf("list records of %s: %w", containerID, err)
	}
	for _, path := range paths {
		r, err := read(path)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for i := range r.Attachments {
			a := &r.Attachments[i]
			if a.IfName == ifName && a.Network.Name == network && a.Result != nil && r.Done {
				change(a.Result)
				return j.Put(r)
			}
		}
	}
	return ErrNotFound
}
