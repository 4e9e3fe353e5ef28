package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A deletion of interfaces is under way.
type deletion struct {
	ns     *Namespace
	socket int       // in the namespace: for the request, its answer, and news of interfaces that go
	left   []int32   // indexes of the interfaces that are not known to be gone
	lookAt time.Time // until when news are waited for

	sent   chan struct{} // closed when the kernel is done with the request; nil if there was none
	failed error         // to send it; valid when that is closed
}

// lookAgain is how long news are waited for until it is looked what is there.
const lookAgain = 50 * time.Millisecond

func (d *deletion) open() (err error) {
	d.socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	return err
}

// mark puts the interfaces in the group, and begins to hear of those that go.
func (d *deletion) mark(links []netlink.Link) error {
	b := d.ns.Batch()
	for _, link := range links {
		attrs := link.Attrs()
		b.add(unix.RTM_SETLINK, unix.NLM_F_ACK, func(_ [][]byte, err error) error {
			if errors.Is(err, unix.ENODEV) { // somebody else was faster
				return nil
			}
			if err != nil {
				return fmt.Errorf("put interface %s of %s in a group: %w", attrs.Name, d.ns.path, err)
			}
			d.left = append(d.left, int32(attrs.Index))
			return nil
		}, aboutLink(attrs.Index), nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(goingGroup)))
	}
	if err := b.Send(); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(d.socket, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_LINK); err != nil {
		return fmt.Errorf("subscribe to netlink notifications: %w", err)
	}
	return nil
}

// number is that of the request.
const number = 1

// run has the interfaces deleted, and returns when they are gone.
func (d *deletion) run() error {
	if len(d.left) == 0 {
		return nil
	}
	d.lookAt = time.Now().Add(lookAgain)
	d.send()
	for len(d.left) > 0 {
		m, err := d.receive()
		if err == nil && m.kind != unix.NLMSG_ERROR {
			d.left = slices.DeleteFunc(d.left, func(index int32) bool { return m.kind == unix.RTM_DELLINK && index == m.index })
			continue
		}
		// The request is over, nothing was heard, or too much to be kept.
		over := d.isOver(m)
		if err := d.look(); err != nil || len(d.left) == 0 {
			return err
		}
		if over {
			return errors.Join(fmt.Errorf("interfaces of %s are there still, after a request to delete them", d.ns.path), d.failed, m.failure)
		}
	}
	return nil
}

// send has a thread wait in the request.
func (d *deletion) send() {
	d.sent = make(chan struct{})
	go func() {
		defer close(d.sent)
		d.failed = unix.Sendto(d.socket, deleteRequest(goingGroup, number), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}()
}

// isOver says whether the kernel is done with the request, of which m may be the answer.
func (d *deletion) isOver(m message) bool {
	if m.kind == unix.NLMSG_ERROR && m.seq == number {
		<-d.sent // now
		return true
	}
	select {
	case <-d.sent:
		return true
	default:
		return false
	}
}

// look strikes out what is gone.
func (d *deletion) look() error {
	links, err := d.ns.Links()
	if err != nil {
		return err
	}
	d.left = slices.DeleteFunc(d.left, func(index int32) bool {
		return !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == int(index) })
	})
	return nil
}

// behind bounds the threads that wait in requests whose interfaces are gone.
var behind = make(chan struct{}, 64)

// finish removes what the interfaces have left behind. The request is waited for only if too many are under way.
func (d *deletion) finish() error {
	err := d.ns.deleteOrphanedRules()
	if d.sent == nil {
		return errors.Join(err, unix.Close(d.socket))
	}
	select {
	case behind <- struct{}{}:
		go func() {
			<-d.sent
			_ = unix.Close(d.socket)
			<-behind
		}()
		return err
	default:
		<-d.sent
		return errors.Join(err, unix.Close(d.socket))
	}
}

// A message is what the kernel says.
type message struct {
	kind    uint16
	index   int32  // of the interface that it is about
	seq     uint32 // of the request that an NLMSG_ERROR answers
	failure error  // of that request
}

// errNothing is that nothing came in time.
var errNothing = errors.New("no answer of the kernel")

// receive returns what the kernel says next. After any error news may be missing.
func (d *deletion) receive() (m message, err error) {
	var b [unix.SizeofNlMsghdr + unix.SizeofIfInfomsg]byte // that much counts of each: one comes at a time
	for {
		if !time.Now().Before(d.lookAt) { // whatever there is to hear: others can make that endless
			d.lookAt = time.Now().Add(lookAgain)
			return m, errNothing
		}
		n, from, err := unix.Recvfrom(d.socket, b[:], 0)
		switch sender, ok := from.(*unix.SockaddrNetlink); {
		case errors.Is(err, unix.EAGAIN):
			if err := d.wait(); err != nil {
				return m, err
			}
		case err != nil && !errors.Is(err, unix.EINTR):
			return m, err
		case err == nil && ok && sender.Pid == 0 && n == len(b): // any process of the namespace can send something
			return parseMessage(b[:]), nil
		}
	}
}

// wait returns when there is something to receive, or it is time to look.
func (d *deletion) wait() error {
	left := max(0, time.Until(d.lookAt))
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(d.socket), Events: unix.POLLIN}}, int(left/time.Millisecond)+1)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}

func parseMessage(b []byte) message {
	native := binary.NativeEndian
	m := message{kind: native.Uint16(b[4:])}
	body := b[unix.SizeofNlMsghdr:]
	switch m.kind {
	case unix.NLMSG_ERROR:
		m.seq = native.Uint32(b[8:])
		if errno := -int32(native.Uint32(body)); errno != 0 {
			m.failure = unix.Errno(errno)
		}
	case unix.RTM_DELLINK:
		if body[0] == unix.AF_UNSPEC { // and not a port that leaves a bridge
			m.index = int32(native.Uint32(body[4:]))
		}
	}
	return m
}
