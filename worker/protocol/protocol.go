// Package protocol is what a plugin process and a worker say to each other. Both are on one node, and mostly of one build; where
// they are not, [Place] differs, and a worker does nothing.
package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Version is raised whenever the meaning of a message changes.
const Version = 2

// SocketOf returns where the worker listens of a daemon that listens at a socket.
func SocketOf(daemon string) string { return strings.TrimSuffix(daemon, DaemonEnd) + WorkerEnd }

// The ends of names of sockets.
const (
	DaemonEnd = ".sock"
	WorkerEnd = ".worker.sock"
)

// A plugin process says first what it wants done: its [Place], its standard input, and of its environment all that the call
// consists of.
//
// This is what a worker answers, and says before it does.
const (
	Answered  = "answered"  // with the exit code, standard output and standard error
	Elsewhere = "elsewhere" // nothing has been done
	Execute   = "execute"   // the plugin of somebody else, one at a time, while the call is under way
	Kill      = "kill"      // what is being executed
)

// This is what a plugin process says after the call.
const (
	Executed = "executed" // with what came of it
	Stop     = "stop"     // the call is to end, and to be undone; what that takes is executed still
)

// Place says where a process is, and what: two for which it is the same speak one protocol, have one build of the plugin, and see the
// same files, network and processes. File is the binary of the plugin. Namespace is a path that has to lead both of them to the same
// file, or nowhere.
func Place(file, namespace string) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, PlaceSize), Version)
	for _, path := range []string{file, "/", "/proc/thread-self/ns/net", "/proc/thread-self/ns/pid", namespace} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			st = unix.Stat_t{}
		}
		b = binary.BigEndian.AppendUint64(b, st.Dev)
		b = binary.BigEndian.AppendUint64(b, st.Ino)
	}
	return string(b)
}

// PlaceSize is that of a [Place], in bytes.
const PlaceSize = 8 + 5*(8+8)

// Own is the binary of the process itself, for [Place].
const Own = "/proc/self/exe"

// A message is a list of texts. Before it comes its length, and before each text that of the text.
const (
	lengthSize = 4
	maxMessage = 32 << 20 // bytes: what a runtime can say, and what is answered
)

// ErrMessage is the error about bytes that are no message.
var ErrMessage = errors.New("not a message of a worker")

// Send writes a message.
func Send(w io.Writer, texts ...string) error {
	_, err := w.Write(encode(texts...))
	return err
}

func encode(texts ...string) []byte {
	b := make([]byte, lengthSize)
	for _, t := range texts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(t)))
		b = append(b, t...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-lengthSize))
	return b
}

// Receive reads a message.
func Receive(r io.Reader) (texts []string, err error) {
	length := make([]byte, lengthSize)
	if _, err := io.ReadFull(r, length); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length)
	if n > maxMessage {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are possible", ErrMessage, n, maxMessage)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	for len(b) > 0 {
		if len(b) < lengthSize {
			return nil, ErrMessage
		}
		size := binary.BigEndian.Uint32(b)
		b = b[lengthSize:]
		if uint64(size) > uint64(len(b)) {
			return nil, ErrMessage
		}
		texts = append(texts, string(b[:size]))
		b = b[size:]
	}
	return texts, nil
}

// Poll says whether something has happened at a socket, or does within a time, to the millisecond.
func Poll(fd int, events int16, within time.Duration) (bool, error) {
	for { // a signal interrupts even what does not wait
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(within/time.Millisecond))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}
