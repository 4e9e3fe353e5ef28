package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	tries    = 5 // of a transaction that met another one, or a full socket buffer
	patience = 10 * time.Second
)

// A conn is a netfilter netlink socket. Transactions go by way of the library; what it cannot ask, such as a single
// element of a set, is asked on the socket itself.
type conn struct {
	*nftables.Conn
	socket *netlink.Conn
	sets   uint32 // added so far
}

// addSet adds a set to the transaction, with a number of its own in it. Left to itself the library counts in a variable
// that all goroutines share, unguarded.
func (c *conn) addSet(s *nftables.Set) error {
	c.sets++
	s.ID = c.sets
	return c.AddSet(s, nil)
}

// change runs fn, which reads and then flushes transactions, while nobody else of Braid changes anything.
func (r Rules) change(ctx context.Context, fn func(*conn) error) error {
	unlock, err := r.ns.LockExclusive(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return r.read(ctx, fn)
}

// read runs fn with a connection. It runs it again if the kernel says that this may help.
func (r Rules) read(ctx context.Context, fn func(*conn) error) (err error) {
	for range tries {
		if err = r.once(ctx, fn); !transient(err) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// once opens a connection for each try: on one with an error there may be more to be received.
func (r Rules) once(ctx context.Context, fn func(*conn) error) error {
	deadline := time.Now().Add(patience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	c := new(conn)
	prepare := func(socket *netlink.Conn) error {
		c.socket = socket
		// The library waits for an answer per request, but a kernel that rejects a transaction may give one for all.
		return socket.SetDeadline(deadline)
	}
	// Not nftables.WithNetNSFd: what it goes by loses the error of a socket that cannot be had, and the process with it.
	err := r.ns.Do(func() (err error) {
		c.Conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(prepare))
		return err
	})
	if err != nil {
		return fmt.Errorf("open a netfilter netlink socket: %w", err)
	}
	defer c.CloseLasting()
	return fn(c)
}

// transient says that a transaction may succeed if what it is about is read again. Nothing of it has been done. ENOENT is of one
// that deletes what was listed a moment before: on a busy node the kernel has been seen to say so, a few times in thousands, though
// nobody else had deleted it. Perhaps it lists an element twice while it moves a set to a larger table.
func transient(err error) bool {
	for _, errno := range []error{unix.EBUSY, unix.ENOBUFS, unix.EAGAIN, unix.EINTR, unix.ENOENT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// request sends one that is answered with objects. A table, a set or an element that is not there is an empty answer.
func (c *conn) request(kind, flags int, family nftables.TableFamily, attrs ...netlink.Attribute) (answer []netlink.Message, there bool, err error) {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return nil, false, err
	}
	answer, err = c.socket.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.HeaderFlags(flags),
		},
		Data: append([]byte{byte(family), unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, false, nil
	}
	return answer, err == nil, err
}

// setsOf lists the names of the sets of a table, if there is such a table.
func (c *conn) setsOf(table *nftables.Table) (names []string, there bool, err error) {
	answer, there, err := c.request(unix.NFT_MSG_GETSET, unix.NLM_F_DUMP, table.Family, text(unix.NFTA_SET_TABLE, table.Name))
	for _, m := range answer {
		err = errors.Join(err, eachAttribute(m.Data[headerLen:], func(a *netlink.AttributeDecoder) {
			if a.Type() == unix.NFTA_SET_NAME {
				names = append(names, a.String())
			}
		}))
	}
	if err != nil {
		return nil, false, fmt.Errorf("list the sets of table %s: %w", table.Name, err)
	}
	return names, there, nil
}

// An element is one of a set, as far as it matters here.
type element struct {
	key     string
	comment string
}

// elementsOf lists the elements of a set.
func (c *conn) elementsOf(set *nftables.Set) ([]element, error) {
	answer, _, err := c.request(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, set.Table.Family,
		text(unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name), text(unix.NFTA_SET_ELEM_LIST_SET, set.Name))
	if err == nil {
		var elements []element
		if elements, err = decodeElements(answer); err == nil {
			return elements, nil
		}
	}
	return nil, fmt.Errorf("list the elements of set %s: %w", set.Name, err)
}

// elementOf looks an element up, without a look at the others.
func (c *conn) elementOf(set *nftables.Set, key []byte) (found *element, err error) {
	wanted, err := nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, unix.NFTA_LIST_ELEM, unix.NFTA_SET_ELEM_KEY, unix.NFTA_DATA_VALUE)(key)
	if err != nil {
		return nil, err
	}
	answer, _, err := c.request(unix.NFT_MSG_GETSETELEM, 0, set.Table.Family,
		text(unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name), text(unix.NFTA_SET_ELEM_LIST_SET, set.Name), wanted)
	if err == nil {
		var elements []element
		if elements, err = decodeElements(answer); err == nil && len(elements) > 0 {
			return &elements[0], nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("look up an element of set %s: %w", set.Name, err)
	}
	return nil, nil
}

const headerLen = 4 // of nfgenmsg: family, version, resource

func text(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(value), 0)}
}

// nest returns a function that puts a value into attributes within each other, the outermost named first.
func nest(kinds ...uint16) func(value []byte) (netlink.Attribute, error) {
	return func(value []byte) (a netlink.Attribute, err error) {
		a = netlink.Attribute{Type: kinds[len(kinds)-1], Data: value}
		for i := len(kinds) - 2; i >= 0 && err == nil; i-- {
			value, err = netlink.MarshalAttributes([]netlink.Attribute{a})
			a = netlink.Attribute{Type: kinds[i] | unix.NLA_F_NESTED, Data: value}
		}
		return a, err
	}
}

func eachAttribute(data []byte, do func(*netlink.AttributeDecoder)) error {
	a, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return err
	}
	a.ByteOrder = binary.BigEndian
	for a.Next() {
		do(a)
	}
	return a.Err()
}

func decodeElements(answer []netlink.Message) (elements []element, err error) {
	for _, m := range answer {
		err = errors.Join(err, eachAttribute(m.Data[headerLen:], func(list *netlink.AttributeDecoder) {
			if list.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return
			}
			list.Do(func(data []byte) error {
				return eachAttribute(data, func(item *netlink.AttributeDecoder) {
					var e element
					item.Do(e.decode)
					elements = append(elements, e)
				})
			})
		}))
	}
	return elements, err
}

func (e *element) decode(data []byte) error {
	return eachAttribute(data, func(a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			a.Do(func(data []byte) error {
				return eachAttribute(data, func(value *netlink.AttributeDecoder) { e.key = string(value.Bytes()) })
			})
		case unix.NFTA_SET_ELEM_USERDATA:
			e.comment, _ = userdata.GetString(a.Bytes(), userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
		}
	})
}
