package server

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/resolve"
)

// deleteLinks waits in the kernel in place of a plugin. Over the bound it refuses, since the plugin can do it itself.
func (s *Server) deleteLinks(c *connection, d *resolve.Deletion) (err error) {
	defer watched{s}.served(DeleteLinks, time.Now(), &err)()
	defer func() {
		if err != nil { // the plugin goes on, and does not read why
			s.Log.Info("a plugin has to wait for the kernel itself", "err", err)
		}
	}()
	if c.descriptor < 0 {
		return &resolve.Error{Reason: resolve.Invalid, Message: "deleteLinks: no descriptor came with it, want a netlink socket"}
	}
	defer c.drop()
	select {
	case s.deletions <- struct{}{}:
		defer func() { <-s.deletions }()
	default:
		return &resolve.Error{Reason: resolve.Unavailable, Message: fmt.Sprintf("deleteLinks: %d are under way already", cap(s.deletions))}
	}
	if err := netdev.DeleteGroup(c.descriptor, d.Group); err != nil {
		return fmt.Errorf("deleteLinks: %w", err)
	}
	return nil
}

// receive reads, and keeps the last descriptor that comes along: until the next, or the end of the connection.
func (c *connection) receive(p []byte) (int, error) {
	control := make([]byte, unix.CmsgSpace(4))
	n, controls, _, _, err := c.ReadMsgUnix(p, control)
	if err != nil {
		return 0, err // it may have returned -1
	}
	messages, _ := unix.ParseSocketControlMessage(control[:controls])
	for _, m := range messages {
		descriptors, _ := unix.ParseUnixRights(&m)
		for _, fd := range descriptors {
			c.drop()
			c.descriptor = fd
		}
	}
	return n, nil
}

// drop closes the descriptor that the connection keeps.
func (c *connection) drop() {
	if c.descriptor >= 0 {
		_ = unix.Close(c.descriptor)
		c.descriptor = -1
	}
}
