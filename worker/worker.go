// Package worker has a process that stays do the calls of a plugin binary. A plugin lives for some milliseconds, most of which it
// spends on becoming a process: it reads code that is in nobody's cache, touches each page for the first time, and makes its tables
// anew. A worker has all that behind it. It is the same binary, run by the daemon, and does what the plugin process would do, in
// the same place: the plugin hands over the environment and the configuration ([Call]), and prints what it gets back.
//
// Nothing depends on a worker. A plugin process that finds none, or one that is of another build or sees another file system,
// another network or another pod's namespace at the path it is given, does the call itself; and so it does when the worker is killed
// in the middle, since it then finds in the journal what the worker has begun. A worker executes nothing: the plugins of others
// it has the plugin process run ([Caller].Execute), which is where the runtime has placed it, with the environment that they expect.
package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// SocketOf returns where the worker listens of a daemon that listens at a socket.
func SocketOf(daemon string) string { return strings.TrimSuffix(daemon, ".sock") + ".worker.sock" }

// A message is a list of texts. Before it comes its length, and before each text that of the text.
const (
	lengthSize = 4
	maxMessage = 32 << 20 // bytes: what a runtime can say, and what is answered
)

// What a worker answers.
const (
	answered  = "answered"  // with the exit code, standard output and standard error
	elsewhere = "elsewhere" // nothing has been done
	execute   = "execute"   // the plugin of somebody else, one at a time, while the call is under way
	kill      = "kill"      // what is being executed
)

// What a plugin process says after the call.
const (
	executed = "executed" // with what came of it
	stop     = "stop"     // the call is to end, and to be undone; what that takes is executed still
)

// poll says whether something has happened at a socket, or does within a time, to the millisecond.
func poll(fd int, events int16, within time.Duration) (bool, error) {
	for { // a signal interrupts even what does not wait
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(within/time.Millisecond))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
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

var errMessage = errors.New("not a message of a worker")

func receive(r io.Reader) (texts []string, err error) {
	length := make([]byte, lengthSize)
	if _, err := io.ReadFull(r, length); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length)
	if n > maxMessage {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are possible", errMessage, n, maxMessage)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	for len(b) > 0 {
		if len(b) < lengthSize {
			return nil, errMessage
		}
		size := binary.BigEndian.Uint32(b)
		b = b[lengthSize:]
		if uint64(size) > uint64(len(b)) {
			return nil, errMessage
		}
		texts = append(texts, string(b[:size]))
		b = b[size:]
	}
	return texts, nil
}

// here says where a process is, and what: two for which it is the same are of one build, and see the same files, network and
// processes. Namespace is a path that has to lead both of them to the same file, or nowhere.
func here(namespace string) string {
	var b []byte
	for _, path := range []string{"/proc/self/exe", "/", "/proc/thread-self/ns/net", "/proc/thread-self/ns/pid", namespace} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			st = unix.Stat_t{}
		}
		b = binary.BigEndian.AppendUint64(b, st.Dev)
		b = binary.BigEndian.AppendUint64(b, st.Ino)
	}
	return string(b)
}
