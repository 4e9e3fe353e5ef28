package store

import (
	"crypto/sha256"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	memoryName  = "pods"
	memoryPages = 64 // times perPage addresses are remembered: 340 KiB
)

// Remembered returns the addresses that a pod had when [Store.Remember] was last called for it.
func (s *Store) Remembered(pod string) (addrs []netip.Addr) {
	f, err := s.openMemory()
	if err != nil {
		return nil
	}
	defer f.Close()
	key, no := podKey(pod)
	p := readMemory(f, no)
	for i := range p.records() {
		if r := p.record(i); r.key == key {
			addrs = append(addrs, netip.AddrFrom16(r.addr).Unmap())
		}
	}
	return addrs
}

// Remember remembers the addresses of a pod beyond their release. Only so many pods are remembered; those whose turn
// was longest ago are forgotten. It is not synced: what a power failure takes is no more than a preference.
func (s *Store) Remember(pod string, addrs []netip.Addr) error {
	f, err := s.openMemory()
	if err != nil {
		return err
	}
	defer f.Close()
	key, no := podKey(pod)
	old := readMemory(f, no)
	var kept []record
	for i := range old.records() { // in the order in which they were remembered
		if r := old.record(i); r.key != key {
			kept = append(kept, r)
		}
	}
	for _, a := range addrs[:min(len(addrs), perPage)] {
		kept = append(kept, record{key: key, addr: a.As16()})
	}
	p := new(page)
	for i, r := range kept[max(0, len(kept)-perPage):] {
		p.setRecord(i, r)
		p.setRecords(i + 1)
	}
	p.seal()
	_, err = f.WriteAt(p[:], int64(no)*pageSize)
	return err
}

func (s *Store) openMemory() (*handle, error) {
	if s.privateErr != nil {
		return nil, s.privateErr
	}
	return s.private.open(memoryName, unix.O_RDWR|unix.O_CREAT)
}

// readMemory returns a page, an empty one if it is not there or cannot be believed.
func readMemory(f *handle, no int) *page {
	p := new(page)
	if n, _ := f.ReadAt(p[:], int64(no)*pageSize); n < pageSize || !p.intact() || p.records() > perPage {
		return new(page)
	}
	return p
}

func podKey(pod string) (key digest, no int) {
	sum := sha256.Sum256([]byte(pod))
	copy(key[:], sum[:])
	return key, int(sum[len(sum)-1]) % memoryPages
}
