package nft

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// none says that there is none of our tables. Many nodes have no rules, and each DEL of a bridge asks: it is one datagram, and nobody
// waits for the lock. What belongs to an attachment is there since its ADD, so it makes no difference that others may be about to make
// a table.
func (r Rules) none() bool {
	missing := 0
	err := r.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var questions []byte
		for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyBridge} {
			questions = append(questions, askTable(family)...)
		}
		kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
		if err := unix.Sendto(fd, questions, 0, kernel); err != nil {
			return err
		}
		// The kernel has answered by now: with an error to each, or else with more than that.
		answer := make([]byte, 4096)
		for missing < 2 {
			n, from, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
			if err != nil {
				return err
			}
			if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
				continue // of who else is in the namespace
			}
			if !isMissing(answer[:n]) {
				return unix.EEXIST
			}
			missing++
		}
		return nil
	})
	return err == nil
}

// askTable asks for our table of a family.
func askTable(family nftables.TableFamily) []byte {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, 0)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family)})
	r.AddData(nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(tableName)))
	return r.Serialize()
}

// isMissing says whether a message is that there is no such thing.
func isMissing(message []byte) bool {
	return len(message) >= unix.SizeofNlMsghdr+4 && binary.NativeEndian.Uint16(message[4:]) == unix.NLMSG_ERROR &&
		int32(binary.NativeEndian.Uint32(message[unix.SizeofNlMsghdr:])) == -int32(unix.ENOENT)
}
