// Package client is the half of a plugin process: it has a worker do a call of the runtime. It is linked by a program that is
// executed for every call, most of whose time is that of becoming a process: so it imports little.
package client

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/worker/protocol"
)

// A Client of the worker at a socket.
type Client struct {
	Socket string
	// Binary is the plugin that would do the call otherwise. The worker has to be of the same file.
	Binary string
	// AcceptTime is how long a worker may take to accept a call; default 2 s. One that stands still costs an ADD that, and nothing else.
	AcceptTime time.Duration
}

const acceptTime = 2 * time.Second

// An Answer is what a plugin process leaves.
type Answer struct {
	ExitCode       int
	Stdout, Stderr string
}

// Call has the worker do a call of the runtime, of which it gets the environment and standard input. It returns false if there is
// none, if it is none for this process, and if it was killed, with all the locks that it held. For one that has accepted the call it
// waits, and executes plugins of others for it: that has the deadlines of the configuration, and stops what it does when this
// process ends.
//
// It does without package net, whose poller and goroutines would be most of its work.
func (c *Client) Call(environ []string, stdin []byte) (a Answer, done bool) {
	namespace, texts := "", []string{"", string(stdin)}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && IsPassed(name) {
			if isRelative(name, value) {
				return a, false
			}
			texts = append(texts, e)
			if name == "CNI_NETNS" {
				namespace = value
			}
		}
	}
	texts[0] = protocol.Place(c.Binary, namespace)
	conn, err := c.dial()
	if err != nil {
		return a, false
	}
	if err := c.send(conn, texts); err != nil {
		conn.Close()
		return a, false
	}
	return attend(conn, conn)
}

// Resume is [Client.Call] for a call that a worker of root was sent [Client.AcceptTime] ago, or has answered since. Conn is the
// socket, and said what has come of it.
func (c *Client) Resume(conn int, said []byte) (a Answer, done bool) {
	if err := unix.SetNonblock(conn, false); err != nil { // before it is a file, which would be polled
		return a, false
	}
	f, err := c.file(conn)
	if err == nil && len(said) == 0 {
		err = isRead(conn)
	}
	if err != nil {
		f.Close()
		return a, false
	}
	return attend(f, io.MultiReader(bytes.NewReader(said), f))
}

// attend waits for what a worker says that has a call, and does it.
func attend(conn *os.File, worker io.Reader) (a Answer, done bool) {
	defer conn.Close()
	x := &execution{conn: conn}
	defer func() { x.end(done) }()
	for {
		m, err := protocol.Receive(worker)
		switch {
		case err != nil || len(m) == 0:
			return a, false
		case m[0] == protocol.Execute:
			err = x.begin(m)
		case m[0] == protocol.Kill:
			x.kill()
		case m[0] == protocol.Answered && len(m) == 4:
			a = Answer{Stdout: m[2], Stderr: m[3]}
			a.ExitCode, err = strconv.Atoi(m[1])
			return a, err == nil
		default:
			return a, false
		}
		if err != nil {
			return a, false
		}
	}
}

// Ping returns an error if nobody answers at the socket.
func (c *Client) Ping() error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := c.send(conn, nil); err != nil { // no call, for which there is no worker
		return err
	}
	_, err = protocol.Receive(conn)
	return err
}

// send sends a call, and returns when the worker has accepted it. That, it does not say: it has read it then.
func (c *Client) send(conn *os.File, texts []string) error {
	if err := protocol.Send(conn, texts...); err != nil {
		return err
	}
	fd := int(conn.Fd())
	if says, err := protocol.Poll(fd, unix.POLLIN, cmp.Or(c.AcceptTime, acceptTime)); err != nil || says {
		return err
	}
	return isRead(fd)
}

// isRead returns an error if a worker has not read all that it was sent.
func isRead(conn int) error {
	unread, err := unix.IoctlGetInt(conn, unix.SIOCOUTQ)
	if err == nil && unread > 0 {
		err = errors.New("the worker has not read the call in time")
	}
	return err
}

// IsPassed says which of the environment the worker gets: all that a call consists of. The rest is for plugins that are
// executed.
func IsPassed(name string) bool {
	return strings.HasPrefix(name, "CNI_") || name == "TRACEPARENT" || name == edge.CallEnv
}

// isRelative says whether a variable leads elsewhere in a process that is in another folder.
func isRelative(name, value string) bool {
	switch name {
	case "CNI_NETNS":
		return value != "" && !filepath.IsAbs(value)
	case "CNI_PATH":
		return slices.ContainsFunc(filepath.SplitList(value), func(dir string) bool { return !filepath.IsAbs(dir) })
	default:
		return false
	}
}

func (c *Client) dial() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	conn, err := c.file(fd)
	if err == nil {
		for err = unix.EINTR; errors.Is(err, unix.EINTR); { // by signals of the runtime of Go, while the backlog is full
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: c.Socket})
		}
	}
	if err == nil {
		err = isRoot(fd)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// file makes a file of a socket, with patience for room in the backlog, and for the call.
func (c *Client) file(socket int) (*os.File, error) {
	patience := unix.NsecToTimeval(int64(cmp.Or(c.AcceptTime, acceptTime)))
	return os.NewFile(uintptr(socket), c.Socket), unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience)
}

// isRoot returns an error if a socket is listened at by somebody who could not do the call, whatever is answered.
func isRoot(fd int) error {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err == nil && peer.Uid != 0 {
		err = fmt.Errorf("process %d, which listens, is of user %d, not of root", peer.Pid, peer.Uid)
	}
	return err
}
