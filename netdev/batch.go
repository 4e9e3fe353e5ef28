package netdev

import (
	"cmp"
	"errors"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Batch is requests that the kernel gets in one datagram, which is how an ADD speaks to it. It does them in order, and goes
// on after one that fails. Very many take several datagrams, of which the one with a failure is the last.
type Batch struct {
	ns       *Namespace
	requests []request
	err      error
}

// A request, and what is made of the answer to it.
type request struct {
	message *nl.NetlinkRequest
	// judge gets what the kernel has answered and its error, and returns what is an error of the batch.
	judge func(messages [][]byte, err error) error
}

// Batch returns an empty one, for the namespace.
func (ns *Namespace) Batch() *Batch { return &Batch{ns: ns} }

// add adds a request (RTM_*) of a header and attributes.
func (b *Batch) add(kind, flags int, judge func([][]byte, error) error, data ...nl.NetlinkRequestData) {
	message := &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Type: uint16(kind), Flags: unix.NLM_F_REQUEST | uint16(flags)},
		Data:     data,
	}
	b.requests = append(b.requests, request{message, judge})
}

// tolerate has an error of the request that was added last be none.
func (b *Batch) tolerate(target error) {
	last := &b.requests[len(b.requests)-1]
	judge := last.judge
	last.judge = func(messages [][]byte, err error) error {
		return Ignore(judge(messages, err), target)
	}
}

// Ignore returns an error unless it is, or wraps, target: that an object is gone is none to who deletes it, say.
func Ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

// fail makes Send return an error, and send nothing: one of the requests cannot be written.
func (b *Batch) fail(err error) { b.err = errors.Join(b.err, err) }

// maxRequests is how many go into a datagram: a socket has room for as many answers. A configuration can have routes
// without end.
const maxRequests = 32

// Send has the kernel do the requests, and returns the error of the first that has failed; one that wraps [ErrUnanswered] if that
// cannot be told of any of them. It is called once.
func (b *Batch) Send() error {
	if b.err != nil {
		return b.err
	}
	for requests := range slices.Chunk(b.requests, maxRequests) {
		if err := b.ns.send(requests); err != nil {
			return err
		}
	}
	return nil
}

func (ns *Namespace) send(requests []request) error {
	answers, err := ns.socket.ask(requests)
	if err != nil {
		return cmp.Or(requests[0].judge(nil, err), err) // it knows what was asked for
	}
	for i, a := range answers {
		if err := requests[i].judge(a.messages, a.err); err != nil {
			return err
		}
	}
	return nil
}

// plainError leaves it to the sender what an error means.
func plainError(_ [][]byte, err error) error { return err }

// one sends a single request, and returns the answer.
func (ns *Namespace) one(kind, flags int, data ...nl.NetlinkRequestData) (messages [][]byte, err error) {
	b := ns.Batch()
	b.add(kind, flags, func(m [][]byte, err error) error { messages = m; return err }, data...)
	err = b.Send()
	return messages, err
}

// list returns the objects that a request (RTM_GET*) lists.
func list[T any](ns *Namespace, kind int, decode func(message []byte) (T, error), which ...nl.NetlinkRequestData) ([]T, error) {
	return Dump(func() (found []T, err error) {
		messages, err := ns.one(kind, unix.NLM_F_DUMP, which...)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			object, err := decode(m)
			if err != nil {
				return nil, err
			}
			found = append(found, object)
		}
		return found, nil
	})
}
