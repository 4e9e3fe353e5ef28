package store

import (
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
)

// The index file is an array of pages. Each has a checksum, so that none is believed that was not written whole.
const (
	pageSize = 4096
	pageHead = 16 // checksum, number of records, next page of a chain: 4 bytes each; 4 to spare
)

type page [pageSize]byte

func (p *page) seal() { seal(p[:]) }

// intact says whether the page is as it was written. One that never was is a hole in the file, all zeros.
func (p *page) intact() bool { return intact(p[:]) || *p == page{} }

// seal sets the checksum in the first four bytes.
func seal(b []byte) { binary.LittleEndian.PutUint32(b, checksum(b)) }

func intact(b []byte) bool { return binary.LittleEndian.Uint32(b) == checksum(b) }

// checksum is FNV-1a by words of eight bytes, the sum itself left out. It has no tables, which those of hash/crc32 make at
// every start, longer than all pages of an ADD take.
func checksum(b []byte) uint32 {
	h := uint64(14695981039346656037)
	word := binary.LittleEndian.Uint64(b) >> 32
	for {
		h = (h ^ word) * 1099511628211
		if b = b[8:]; len(b) < 8 {
			return uint32(h>>32 ^ h)
		}
		word = binary.LittleEndian.Uint64(b)
	}
}

func (p *page) records() int      { return int(binary.LittleEndian.Uint32(p[4:])) }
func (p *page) setRecords(n int)  { binary.LittleEndian.PutUint32(p[4:], uint32(n)) }
func (p *page) next() uint32      { return binary.LittleEndian.Uint32(p[8:]) }
func (p *page) setNext(no uint32) { binary.LittleEndian.PutUint32(p[8:], no) }

var errCorrupt = errors.New("the index is corrupt")

// pages is the index file while it is used: pages are read when they are asked for, and written all at once.
type pages struct {
	file   io.ReaderAt // nil if the index is new
	size   uint32      // in pages
	cached map[uint32]*page
	dirty  map[uint32]bool
}

func newPages(file io.ReaderAt, size uint32) pages {
	return pages{file, size, map[uint32]*page{}, map[uint32]bool{}}
}

// page returns a page to look at.
func (ps *pages) page(no uint32) (*page, error) {
	if p := ps.cached[no]; p != nil {
		return p, nil
	}
	if no == 0 || no >= ps.size {
		return nil, errCorrupt
	}
	p := new(page)
	if ps.file != nil {
		if _, err := ps.file.ReadAt(p[:], int64(no)*pageSize); err != nil && err != io.EOF {
			return nil, err
		}
		if !p.intact() {
			return nil, errCorrupt
		}
	}
	ps.cached[no] = p
	return p, nil
}

// change returns a page to write to.
func (ps *pages) change(no uint32) (*page, error) {
	p, err := ps.page(no)
	if err == nil {
		ps.dirty[no] = true
	}
	return p, err
}

// add makes a page.
func (ps *pages) add() (no uint32, p *page) {
	no, p = ps.size, new(page)
	ps.cached[no], ps.dirty[no] = p, true
	ps.size++
	return no, p
}

// flush writes what was changed.
func (ps *pages) flush(w io.WriterAt) error {
	for _, no := range slices.Sorted(maps.Keys(ps.dirty)) {
		p := ps.cached[no]
		p.seal()
		if _, err := w.WriteAt(p[:], int64(no)*pageSize); err != nil {
			return err
		}
	}
	clear(ps.dirty)
	return nil
}
