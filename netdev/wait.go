package netdev

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// WaitCarrier waits until an interface can carry packets. The error wraps that of the context if it ends before.
func (ns *Namespace) WaitCarrier(ctx context.Context, ifName string) error {
	err := ns.waitFor(ctx, func() (bool, error) {
		link, err := ns.Link(ifName)
		return err == nil && Operational(link), err
	}, unix.RTNLGRP_LINK)
	if err != nil {
		return fmt.Errorf("wait for the carrier of %s: %w", ifName, err)
	}
	return nil
}

// Operational tells whether an interface could carry packets when it was looked up. It is true for a device whose driver does not
// report a state, too.
func Operational(link netlink.Link) bool {
	a := link.Attrs()
	return a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown && a.RawFlags&unix.IFF_LOWER_UP != 0
}

// waitFor evaluates ready at once, and again after every notification of the groups, until it is true or fails. The
// subscription is older than the first evaluation, so no change is missed.
func (ns *Namespace) waitFor(ctx context.Context, ready func() (bool, error), groups ...uint) error {
	if ok, err := ready(); ok || err != nil {
		return err
	}
	events, err := nl.SubscribeAt(ns.fd, netns.None(), unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return fmt.Errorf("subscribe to netlink notifications: %w", err)
	}
	defer events.Close()
	defer context.AfterFunc(ctx, events.Close)()
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		if err := receive(ctx, events); err != nil {
			return err
		}
	}
}

func receive(ctx context.Context, events *nl.NetlinkSocket) error {
	_, _, err := events.Receive()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, unix.ENOBUFS): // notifications were lost: as good as one
		return nil
	case err != nil:
		return fmt.Errorf("receive netlink notifications: %w", err)
	}
	return nil
}

// Bounds for what the kernel does on its own time, if the context leaves more.
const (
	carrierPatience = time.Second
	dadPatience     = 5 * time.Second
)

// waitDAD waits until duplicate address detection has accepted all IPv6 addresses of a result. Without carrier it does
// not run, and so is not waited for.
func (ns *Namespace) waitDAD(ctx context.Context, link netlink.Link, want []*netlink.Addr) error {
	carrier, cancel := context.WithTimeout(ctx, carrierPatience)
	defer cancel()
	if err := ns.WaitCarrier(carrier, link.Attrs().Name); errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	} else if err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, dadPatience)
	defer cancel()
	err := ns.waitFor(ctx, func() (bool, error) { return ns.settled(link, want) }, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return fmt.Errorf("duplicate address detection on %s: %w", link.Attrs().Name, err)
	}
	return nil
}

func (ns *Namespace) settled(link netlink.Link, want []*netlink.Addr) (bool, error) {
	have, err := ns.Addresses(link)
	if err != nil {
		return false, err
	}
	for _, w := range want {
		if w.IP.To4() != nil {
			continue
		}
		a := find(have, w)
		switch {
		case a == nil:
			return false, fmt.Errorf("address %s has been removed", w.IPNet)
		case a.Flags&unix.IFA_F_DADFAILED != 0:
			return false, fmt.Errorf("address %s is in use by another host", w.IPNet)
		case a.Flags&unix.IFA_F_TENTATIVE != 0:
			return false, nil
		}
	}
	return true, nil
}
