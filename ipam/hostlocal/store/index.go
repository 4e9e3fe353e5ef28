package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"net/netip"
	"strings"
)

// An index answers in constant time what the folder of reservations answers only to who reads all of it: which
// addresses an owner has, and which address is the next free one.
//
// It says nothing that the folder does not say: it can be deleted at any time, is not synced to disk, and is made anew
// when it does not agree with the folder. Whether it does is told by the times of the folder: having changed it, the
// store sets its modification time to one in the past, which nobody who makes or removes a file can leave there, and
// notes it in the index.
type index struct {
	pages
	header
}

const (
	indexName  = "index"
	indexMagic = "braid reserved 2" // what a reservation can not begin with
)

// The header is in page 0. It is written last.
type header struct {
	Boot    [sha256.Size]byte // the boot of the node during which the folder was indexed
	Node    [sha256.Size]byte // the node
	Salt    [16]byte          // keys are hashed with, so that nobody can make many of one bucket
	Folder  stamp
	Pages   uint32
	Records uint32 // of owners
	Owners  table  // by owner: an address, and the inode and time of the file that reserves it
	Chunks  table  // by first address: which page has the bitmap of a chunk
}

// A stamp tells a state of the folder from every other.
type stamp struct {
	Dev, Ino     uint64
	Mtime, Ctime uint64 // nanoseconds
}

// A chunk is the unit of the map of addresses: a page that has one bit per address, set if it is reserved.
const (
	chunkBits  = 14
	chunkSize  = 1 << chunkBits
	chunkMask  = chunkSize - 1
	bitmapAt   = pageSize - chunkSize/8
	bucketLoad = 60 // records of a bucket, on average, beyond which the table is made larger
)

// newIndex makes an index of a folder, with room for four times as many owners.
func newIndex(n int) *index {
	x := &index{pages: newPages(nil, 1)}
	_, _ = rand.Read(x.Salt[:])
	x.Owners = x.newTable(4 * n / bucketLoad)
	x.Chunks = x.newTable(n / bucketLoad)
	return x
}

func (x *index) newTable(buckets int) table {
	t := table{x.size, uint32(max(buckets, 8))}
	x.size += t.Buckets
	return t
}

// readIndex reads the header of an index. The pages are looked at when they are needed.
func readIndex(file io.ReaderAt) (*index, error) {
	b := make([]byte, headerSize)
	if _, err := file.ReadAt(b, 0); err != nil {
		return nil, err
	}
	x := new(index)
	if !x.decode(b) || x.Owners.Buckets == 0 || x.Chunks.Buckets == 0 {
		return nil, errCorrupt
	}
	x.pages = newPages(file, x.header.Pages)
	return x, nil
}

// writeHeader makes the index valid for a folder.
func (x *index) writeHeader(w io.WriterAt, folder stamp) error {
	x.header.Pages, x.Folder = x.size, folder
	_, err := w.WriteAt(x.encode(), 0)
	return err
}

const headerSize = 192

func (h *header) encode() []byte {
	b := make([]byte, pageHead, headerSize)
	b = append(b, indexMagic...)
	for _, bytes := range [][]byte{h.Boot[:], h.Node[:], h.Salt[:]} {
		b = append(b, bytes...)
	}
	for _, n := range []uint64{h.Folder.Dev, h.Folder.Ino, h.Folder.Mtime, h.Folder.Ctime} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	for _, n := range []uint32{h.Pages, h.Records, h.Owners.First, h.Owners.Buckets, h.Chunks.First, h.Chunks.Buckets} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	b = b[:headerSize]
	seal(b)
	return b
}

// decode is the inverse. It returns false for what was not written whole, or is none.
func (h *header) decode(b []byte) bool {
	if !intact(b) || !strings.HasPrefix(string(b[pageHead:]), indexMagic) {
		return false
	}
	b = b[pageHead+len(indexMagic):]
	for _, into := range [][]byte{h.Boot[:], h.Node[:], h.Salt[:]} {
		b = b[copy(into, b):]
	}
	for _, into := range []*uint64{&h.Folder.Dev, &h.Folder.Ino, &h.Folder.Mtime, &h.Folder.Ctime} {
		*into, b = binary.LittleEndian.Uint64(b), b[8:]
	}
	for _, into := range []*uint32{&h.Pages, &h.Records, &h.Owners.First, &h.Owners.Buckets, &h.Chunks.First, &h.Chunks.Buckets} {
		*into, b = binary.LittleEndian.Uint32(b), b[4:]
	}
	return true
}

func (x *index) digest(kind byte, key []byte) (d digest) {
	h := sha256.New()
	h.Write(x.Salt[:])
	h.Write([]byte{kind})
	h.Write(key)
	copy(d[:], h.Sum(nil))
	return d
}

func (x *index) ownerKey(o Owner) digest { return x.digest('o', []byte(o.content())) }

// full says that the index works better after it has been made anew.
func (x *index) full() bool { return x.Records > x.Owners.Buckets*bucketLoad }

// insert notes an address. If it is not known whose it is, it is reserved all the same.
func (x *index) insert(e entry) error {
	if e.owned {
		if err := x.Owners.insert(&x.pages, record{x.ownerKey(e.owner), e.addr.As16(), e.ino, e.mtime}); err != nil {
			return err
		}
		x.Records++
	}
	return x.mark(e.addr, true)
}

// remove forgets an address of an owner.
func (x *index) remove(o Owner, a netip.Addr) error {
	if err := x.Owners.remove(&x.pages, x.ownerKey(o), a.As16()); err != nil {
		return err
	}
	x.Records -= min(x.Records, 1)
	return x.mark(a, false)
}

// of returns the addresses of an owner.
func (x *index) of(o Owner) (addrs []netip.Addr, err error) {
	found, err := x.Owners.find(&x.pages, x.ownerKey(o))
	for _, r := range found {
		addrs = append(addrs, netip.AddrFrom16(r.addr).Unmap())
	}
	return addrs, err
}

// chunk returns the number of the page with the bit of an address, 0 if the chunk has no address that is reserved.
func (x *index) chunk(first [16]byte) (no uint32, err error) {
	found, err := x.Chunks.find(&x.pages, x.digest('c', first[:]))
	if err != nil || len(found) == 0 {
		return 0, err
	}
	return uint32(found[0].ino), nil
}

// split returns the first address of the chunk that an address is in, and its place there.
func split(a netip.Addr) (first [16]byte, bit int) {
	first = a.As16()
	low := binary.BigEndian.Uint16(first[14:])
	binary.BigEndian.PutUint16(first[14:], low&^chunkMask)
	return first, int(low & chunkMask)
}

// mark sets or clears the bit of an address.
func (x *index) mark(a netip.Addr, reserved bool) error {
	first, bit := split(a)
	no, err := x.chunk(first)
	if err != nil {
		return err
	}
	if no == 0 {
		if !reserved {
			return nil
		}
		no, _ = x.add()
		if err := x.Chunks.insert(&x.pages, record{key: x.digest('c', first[:]), addr: first, ino: uint64(no)}); err != nil {
			return err
		}
	}
	p, err := x.change(no)
	if err != nil {
		return err
	}
	mask := byte(1) << (bit % 8)
	if p[bitmapAt+bit/8] &^= mask; reserved {
		p[bitmapAt+bit/8] |= mask
	}
	return nil
}

// reserved says whether an address is.
func (x *index) reserved(a netip.Addr) (bool, error) {
	first, bit := split(a)
	no, err := x.chunk(first)
	if err != nil || no == 0 {
		return false, err
	}
	p, err := x.page(no)
	return err == nil && p[bitmapAt+bit/8]>>(bit%8)&1 == 1, err
}

// nextFree returns the first address from..to that is not reserved.
func (x *index) nextFree(from, to netip.Addr) (a netip.Addr, ok bool, err error) {
	for from.Compare(to) <= 0 {
		first, bit := split(from)
		no, err := x.chunk(first)
		if err != nil {
			return netip.Addr{}, false, err
		}
		if no == 0 {
			return from, true, nil
		}
		p, err := x.page(no)
		if err != nil {
			return netip.Addr{}, false, err
		}
		if free := clearBit(p, bit); free < chunkSize {
			a = inChunk(first, free)
			return a, a.Compare(to) <= 0, nil
		}
		if from = inChunk(first, chunkMask).Next(); !from.IsValid() { // the end of the address family
			break
		}
	}
	return netip.Addr{}, false, nil
}

// inChunk is the inverse of split.
func inChunk(first [16]byte, bit int) netip.Addr {
	first[14] |= byte(bit >> 8)
	first[15] |= byte(bit)
	return netip.AddrFrom16(first).Unmap()
}

// clearBit returns the first bit from..chunkSize that is clear, or chunkSize.
func clearBit(p *page, from int) int {
	for at := from &^ 63; at < chunkSize; at += 64 {
		word := ^binary.LittleEndian.Uint64(p[bitmapAt+at/8:])
		if at < from {
			word &^= 1<<(from-at) - 1
		}
		if word != 0 {
			return at + bits.TrailingZeros64(word)
		}
	}
	return chunkSize
}

// count returns how many addresses from..to are reserved. It looks at every chunk.
func (x *index) count(from, to netip.Addr) (n uint64, err error) {
	var chunks []record
	if err := x.Chunks.each(&x.pages, func(r record) { chunks = append(chunks, r) }); err != nil {
		return 0, err
	}
	for _, r := range chunks {
		if inChunk(r.addr, chunkMask).Less(from) || to.Less(inChunk(r.addr, 0)) {
			continue
		}
		p, err := x.page(uint32(r.ino))
		if err != nil {
			return 0, err
		}
		for bit := range chunkSize {
			if p[bitmapAt+bit/8]>>(bit%8)&1 == 1 && within(inChunk(r.addr, bit), from, to) {
				n++
			}
		}
	}
	return n, nil
}

func within(a, from, to netip.Addr) bool { return from.Compare(a) <= 0 && a.Compare(to) <= 0 }

// files returns the reservations whose owners are known, by address, as far as they can be read.
func (x *index) files() (known map[netip.Addr]record, err error) {
	known = map[netip.Addr]record{}
	var errs []error
	for i := range x.Owners.Buckets {
		bucket := table{x.Owners.First + i, 1}
		errs = append(errs, bucket.each(&x.pages, func(r record) { known[netip.AddrFrom16(r.addr).Unmap()] = r }))
	}
	return known, errors.Join(errs...)
}
