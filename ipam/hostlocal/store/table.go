package store

import "encoding/binary"

// A record of a table. What the fields mean is up to the table: see index.
type record struct {
	key   digest
	addr  [16]byte
	ino   uint64
	mtime int64
}

type digest [16]byte

const (
	recordSize = 48
	perPage    = (pageSize - pageHead) / recordSize
)

func (p *page) record(i int) (r record) {
	b := p[pageHead+i*recordSize:]
	copy(r.key[:], b[0:])
	copy(r.addr[:], b[16:])
	r.ino = binary.LittleEndian.Uint64(b[32:])
	r.mtime = int64(binary.LittleEndian.Uint64(b[40:]))
	return r
}

func (p *page) setRecord(i int, r record) {
	b := p[pageHead+i*recordSize:]
	copy(b[0:], r.key[:])
	copy(b[16:], r.addr[:])
	binary.LittleEndian.PutUint64(b[32:], r.ino)
	binary.LittleEndian.PutUint64(b[40:], uint64(r.mtime))
}

// A table finds records by key: a hash table whose buckets are pages. A bucket that is full goes on in another page,
// so that it does not matter how many records have one key. A key can be there several times.
type table struct{ First, Buckets uint32 }

func (t table) bucket(key digest) uint32 {
	return t.First + binary.LittleEndian.Uint32(key[:])%max(t.Buckets, 1)
}

// chain calls do for the pages of a bucket until it says that it is done.
func (t table) chain(ps *pages, no uint32, do func(no uint32, p *page) (done bool)) error {
	for range ps.size { // a chain is no longer than that, unless it is a ring
		p, err := ps.page(no)
		if err != nil {
			return err
		}
		if p.records() > perPage {
			return errCorrupt
		}
		if do(no, p) || p.next() == 0 {
			return nil
		}
		no = p.next()
	}
	return errCorrupt
}

func (t table) find(ps *pages, key digest) (found []record, err error) {
	err = t.chain(ps, t.bucket(key), func(_ uint32, p *page) bool {
		for i := range p.records() {
			if r := p.record(i); r.key == key {
				found = append(found, r)
			}
		}
		return false
	})
	return found, err
}

func (t table) insert(ps *pages, r record) error {
	var last uint32
	var room bool
	err := t.chain(ps, t.bucket(r.key), func(no uint32, p *page) bool {
		last, room = no, p.records() < perPage
		return room
	})
	if err != nil {
		return err
	}
	p, err := ps.change(last)
	if err != nil {
		return err
	}
	if !room {
		no, more := ps.add()
		p.setNext(no)
		p = more
	}
	p.setRecord(p.records(), r)
	p.setRecords(p.records() + 1)
	return nil
}

// remove deletes the record of a key that has an address, if there is one.
func (t table) remove(ps *pages, key digest, addr [16]byte) error {
	return t.chain(ps, t.bucket(key), func(no uint32, p *page) bool {
		for i := range p.records() {
			if r := p.record(i); r.key == key && r.addr == addr {
				last := p.records() - 1
				p.setRecord(i, p.record(last))
				p.setRecords(last)
				ps.dirty[no] = true
				return true
			}
		}
		return false
	})
}

// each calls do for every record.
func (t table) each(ps *pages, do func(record)) error {
	for i := range t.Buckets {
		err := t.chain(ps, t.First+i, func(_ uint32, p *page) bool {
			for i := range p.records() {
				do(p.record(i))
			}
			return false
		})
		if err != nil {
			return err
		}
	}
	return nil
}
