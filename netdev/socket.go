package netdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A socket speaks rtnetlink in the namespace that it was opened in. It waits in the send, and is known to no poller: when a
// request has been sent the kernel has done it and has answered.
//
// A [netlink.Handle] takes more time than the kernel to look up an interface: it zeroes a buffer of 64 KiB for each answer,
// asks for the number of its own socket, sets deadlines, and goes by the poller.
type socket struct {
	fd  int
	seq uint32 // of who is sending

	mu      sync.Mutex
	sending bool
	waiting []*pending // until the socket is free
}

// A pending is requests, as the kernel gets them, that wait until the socket is free.
type pending struct {
	messages [][]byte
	answers  []answer
	err      error
	sent     chan bool // whether they have been sent by another one, and are answered; or else it is their turn
}

// maxAnswer is more than the kernel says of a link with all the names that it can have, and than it puts into one part of a list.
const maxAnswer = 128 << 10

// buffers are for answers. One of its own for each socket would be most of what a call has in memory, and most of what the
// garbage collector has to do where many calls are at work at once. A page of one that is not needed is not touched.
var buffers = sync.Pool{New: func() any { return new([maxAnswer]byte) }}

// errLost is that there was no room for an answer: it is not late.
var errLost = errors.New("it was lost")

// ErrUnanswered is that requests were sent and their answers could not be received: the kernel has done what it could of them, and
// nobody knows what that is.
var ErrUnanswered = errors.New("receive the answer to a netlink request")

// openSocket opens one in the namespace of the thread.
func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	// An answer that there is no room for is lost, and so are all of the datagram: there is room for the longest ones. It takes a
	// privilege to have more than the node's default.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, maxRequests*maxAnswer)
	// Lists are only of what was asked for. A kernel before 4.20 does not know this, and lists everything.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &socket{fd: fd}, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// An answer is what the kernel has said to a request: messages, and an error.
type answer struct {
	messages [][]byte // without header, and valid for good
	ended    bool
	torn     bool // a list whose objects have changed meanwhile
	err      error
}

// ask has the kernel do requests, in order and with no others in between, and returns the answers. The error is of the sending or receiving.
//
// While a datagram is on its way, requests of others wait, and all of them go by the next one. The kernel does one thing at a time
// anyway: whoever asks meanwhile is in the way of who is at work, on a processor that somebody else could use.
func (s *socket) ask(requests []request) ([]answer, error) {
	own := &pending{}
	for _, r := range requests { // before others wait for it
		own.messages = append(own.messages, r.message.Serialize())
	}
	if s.wait(own) {
		return own.answers, own.err
	}
	together := append([]*pending{own}, s.takeAlong(own)...)
	var all [][]byte
	for _, p := range together {
		all = append(all, p.messages...)
	}
	answers, err := s.exchange(all)
	for _, p := range together {
		if p.err = err; err == nil {
			p.answers, answers = answers[:len(p.messages)], answers[len(p.messages):]
		}
		if p != own {
			p.sent <- true
		}
	}
	if s.free() {
		runtime.Gosched() // the kernel first: what follows here can be done by another thread
	}
	return own.answers, own.err
}

// wait returns when others have sent the requests, or it is their turn to be sent.
func (s *socket) wait(p *pending) (sent bool) {
	s.mu.Lock()
	if !s.sending {
		s.sending = true
		s.mu.Unlock()
		return false
	}
	p.sent = make(chan bool, 1)
	s.waiting = append(s.waiting, p)
	s.mu.Unlock()
	return <-p.sent
}

// takeAlong returns those that wait and can go in the same datagram.
func (s *socket) takeAlong(own *pending) []*pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, len(own.messages)
	for n < len(s.waiting) && !own.isList() && !s.waiting[n].isList() {
		if size += len(s.waiting[n].messages); size > maxRequests {
			break
		}
		n++
	}
	taken := s.waiting[:n]
	s.waiting = s.waiting[n:]
	return taken
}

// isList tells whether a request is for a list: the kernel gives no more than its first part before it does the next request.
func (p *pending) isList() bool {
	m := p.messages[0]
	return isGet(kindOf(m)) && flagsOf(m)&unix.NLM_F_DUMP == unix.NLM_F_DUMP
}

func kindOf(message []byte) uint16  { return binary.NativeEndian.Uint16(message[4:]) }
func flagsOf(message []byte) uint16 { return binary.NativeEndian.Uint16(message[6:]) }

// isGet tells the requests that ask (RTM_GET*), of which there is one for each kind of object. In others flags mean something else.
func isGet(kind uint16) bool { return (kind-unix.RTM_BASE)%4 == unix.RTM_GETLINK-unix.RTM_NEWLINK }

// free lets the next ones have their turn, if there are any.
func (s *socket) free() (next bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sending = len(s.waiting) > 0; s.sending {
		next := s.waiting[0]
		s.waiting = s.waiting[1:]
		next.sent <- false
	}
	return s.sending
}

// exchange sends requests in one datagram and returns the answers.
//
// Only the last one is to be confirmed, or answered, if all goes well: since the kernel does one after the other, everything
// about those before has arrived then.
func (s *socket) exchange(messages [][]byte) (answers []answer, err error) {
	first := s.seq + 1
	for i, m := range messages {
		s.seq++
		binary.NativeEndian.PutUint32(m[8:], s.seq)
		if i < len(messages)-1 {
			binary.NativeEndian.PutUint16(m[6:], flagsOf(m)&^unix.NLM_F_ACK)
		}
	}
	datagram := bytes.Join(messages, nil)
	if err := unix.Sendto(s.fd, datagram, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send a netlink request: %w", err)
	}
	buffer := buffers.Get().(*[maxAnswer]byte)
	defer buffers.Put(buffer)
	answers = make([]answer, len(messages))
	for last := &answers[len(answers)-1]; !last.ended; {
		part, err := s.receive(buffer[:])
		if err == nil {
			err = assign(part, answers, first)
		}
		if err != nil {
			s.drain(buffer[:])
			return nil, fmt.Errorf("%w: %w", ErrUnanswered, err)
		}
	}
	return answers, nil
}

// assign gives messages to the answers that they are part of, of which the first has a number. Others are part of an answer
// that was given up.
func assign(part []byte, answers []answer, first uint32) error {
	for len(part) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(part))
		if size < unix.SizeofNlMsghdr || size > len(part) {
			return unix.EBADMSG
		}
		if n := binary.NativeEndian.Uint32(part[8:]) - first; n < uint32(len(answers)) {
			answers[n].take(part[:size])
		}
		part = part[min(len(part), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return nil
}

// take adds a message to the answer. One that is no part of a list ends it.
func (a *answer) take(message []byte) {
	kind, flags := kindOf(message), flagsOf(message)
	data := message[unix.SizeofNlMsghdr:]
	a.torn = a.torn || flags&unix.NLM_F_DUMP_INTR != 0
	switch kind {
	case unix.NLMSG_ERROR, unix.NLMSG_DONE:
		a.ended = true
		if len(data) >= 4 {
			if errno := int32(binary.NativeEndian.Uint32(data)); errno != 0 {
				a.err = unix.Errno(-errno)
			}
		}
	case unix.NLMSG_NOOP:
	default:
		a.messages = append(a.messages, append([]byte(nil), data...))
		a.ended = flags&unix.NLM_F_MULTI == 0
	}
	if a.ended && a.torn {
		a.err = errors.Join(a.err, netlink.ErrDumpInterrupted)
	}
}

// drain makes room for the answers to the next request.
func (s *socket) drain(buffer []byte) {
	for err := error(nil); err == nil || err == unix.ENOBUFS; {
		_, err = s.receive(buffer)
	}
}

// receive returns what one call receives, which is in the buffer.
func (s *socket) receive(buffer []byte) ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(s.fd, buffer, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		switch sender, _ := from.(*unix.SockaddrNetlink); {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return nil, errLost
		case err != nil:
			return nil, err
		case n > len(buffer):
			return nil, unix.EMSGSIZE
		case sender != nil && sender.Pid == 0: // not who else is in the namespace
			return buffer[:n], nil
		}
	}
}
