package lease

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/atomicfile"
)

// A Record is what is kept of an attachment.
type Record struct {
	Version   int       `json:"version"`
	BootID    string    `json:"bootID"`          // records of another boot are about nothing
	Booted    time.Time `json:"booted,omitzero"` // when the node was, by the clock that the times of the leases are by
	Spec      Spec      `json:"spec"`
	Interface Interface `json:"interface"`
	IPv4      *Binding  `json:"ipv4,omitempty"`
	IPv6      *Binding  `json:"ipv6,omitempty"`
}

// A Binding is a lease and what has become of it.
type Binding struct {
	Lease Lease `json:"lease"`

	// Lost tells that the lease has ended and was taken off the interface. The keeper tries to get the address again.
	Lost bool `json:"lost,omitempty"`

	// NoDefault tells that somebody took the default route of the lease away. The keeper does not put it back.
	NoDefault bool `json:"noDefault,omitempty"`
}

// Held returns the leases that are there.
func (r *Record) Held() Held {
	return Held{IPv4: r.IPv4.held(), IPv6: r.IPv6.held()}
}

func (b *Binding) held() *Lease {
	if b == nil || b.Lost {
		return nil
	}
	l := b.Lease
	return &l
}

// ErrBusy is wrapped by the error of opening a Store that somebody else has open: the keeper.
var ErrBusy = errors.New("in use by another process")

// A Store is a folder with a file for each record. Only one process at a time can have it open.
type Store struct {
	dir    string
	bootID string
	lock   *os.File
}

const recordSuffix = ".json"

// CreateStore opens the store, and makes its folder if there is none.
func CreateStore(dir string) (*Store, error) {
	if err := atomicfile.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the leases: %w", err)
	}
	return OpenStore(dir)
}

// OpenStore opens a store whose folder exists. The error wraps fs.ErrNotExist if it does not, and ErrBusy if somebody
// else has it open. The folder must be that of the user of this process, and closed to all others.
func OpenStore(dir string) (_ *Store, err error) {
	s := &Store{dir: dir}
	if s.bootID, err = bootID(); err != nil {
		return nil, err
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	if s.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	err = unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		_ = s.lock.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return s, nil
}

func private(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is no folder", dir)
	case int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0:
		return fmt.Errorf("the folder %s has owner %d and mode %04o, want %d and 0700",
			dir, st.Uid, st.Mode&0o7777, os.Geteuid())
	}
	return nil
}

// Close lets others open the store.
func (s *Store) Close() error { return s.lock.Close() }

// Put writes a record, durably.
func (s *Store) Put(r *Record) error {
	r.Version, r.BootID = ProtocolVersion, s.bootID
	onDisk := r.toWall(time.Now())
	onDisk.Booted, _ = booted() // without, nobody sees whether the clock has been set
	doc, err := json.MarshalIndent(onDisk, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(s.path(r.Spec.Key), doc, 0o600)
}

// Remove removes the record of an attachment, if there is one.
func (s *Store) Remove(k Key) error {
	err := os.Remove(s.path(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, atomicfile.SyncDir(s.dir))
}

// All returns the records of this boot. It removes those of an earlier one, those that are damaged, and what a killed
// process has left; not those of a newer version of Braid. The error tells what was damaged; the records are all the others.
func (s *Store) All() (records []*Record, err error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, f := range files {
		path := filepath.Join(s.dir, f.Name())
		switch filepath.Ext(path) {
		case recordSuffix:
			r, err := s.read(path)
			if err != nil {
				errs = append(errs, fmt.Errorf("read %s: %w", path, err))
			}
			if r != nil {
				records = append(records, r)
				continue
			}
			if !errors.Is(err, errNewer) {
				errs = append(errs, os.Remove(path))
			}
		default:
			if strings.HasPrefix(f.Name(), atomicfile.TmpPrefix) {
				errs = append(errs, os.Remove(path))
			}
		}
	}
	return records, errors.Join(errs...)
}

// Get returns the record of an attachment, nil if there is none of this boot.
func (s *Store) Get(k Key) (*Record, error) {
	r, err := s.read(s.path(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// read returns nil without an error for a record of an earlier boot. Keys that a later version may have added do not
// matter.
func (s *Store) read(path string) (*Record, error) {
	doc, err := atomicfile.Read(path, maxDocument)
	if err != nil {
		return nil, err
	}
	r := new(Record)
	if err := json.Unmarshal(doc, r); err != nil {
		return nil, err
	}
	if r.BootID != s.bootID {
		return nil, nil
	}
	if r.Version > ProtocolVersion {
		return nil, fmt.Errorf("%w: it has version %d, this one knows versions up to %d", errNewer, r.Version, ProtocolVersion)
	}
	if r.Version != ProtocolVersion || s.path(r.Spec.Key) != path || r.IPv4 == nil && r.IPv6 == nil {
		return nil, fmt.Errorf("no record of version %d of the attachment %s", ProtocolVersion, r.Spec.Key)
	}
	now, err := booted()
	if err != nil {
		return nil, err
	}
	return r.fromWall(now), nil
}

var errNewer = errors.New("a newer version of Braid has written it")

// path is a hash, because the parts of a key may be long and have any character between them.
func (s *Store) path(k Key) string {
	sum := sha256.Sum256([]byte(k.ContainerID + "\x00" + k.Network + "\x00" + k.IfName))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16])+recordSuffix)
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(id)), err
}
