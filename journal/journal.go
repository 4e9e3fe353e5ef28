// Package journal keeps on disk what Braid has made for a pod, so that it can be checked and undone with nothing else
// at hand: no API server, no daemon, no valid configuration, after kill -9 and after a reboot.
//
// A [Record] stands for one ADD. It is written before the first attachment is made, added to when all are, and removed
// when all are undone: whatever moment a process dies at, the record names at least everything that may exist. One
// record for all attachments of an ADD, rather than one for each, makes every change of it atomic and costs one fsync of
// the file and one of the folder, which pass while attachments are made: see [Journal.Begin].
//
// On disk a record is DIR/<container id>:<interface>.json (neither name can contain a colon or a slash). Until it is known to
// be whole and to survive a loss of power its mode is 0400, and then 0600. When it is written anew, that is to a temporary
// file, that name with ".tmp" behind it, which is renamed. Lines behind the record tell what has become of its ADD since: see
// [Journal.Finish]. DIR/lock carries the locks: see [Journal.Lock].
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/atomicfile"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/internal/plainfile"
)

// A Record is what one ADD of the entry plugin made, or was about to make.
type Record struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	BootID  string    `json:"bootID"`           // of the kernel that holds the attachments
	Network string    `json:"network"`          // name of the entry configuration's network
	Pod     string    `json:"pod,omitempty"`    // "namespace/name"
	PodUID  string    `json:"podUID,omitempty"` // as the runtime has it: of a static pod, not that of its mirror pod

	ContainerID string `json:"containerID"`
	Netns       string `json:"netns"`
	NetnsInode  uint64 `json:"netnsInode,omitempty"`  // of the namespace at Netns: another one may get its path
	NetnsCookie uint64 `json:"netnsCookie,omitempty"` // of the same, and its own for good; 0 if the kernel has none
	IfName      string `json:"ifName"`                // CNI_IFNAME of the ADD
	Args        string `json:"args,omitempty"`
	// PIDNamespace is the inode of the one that the plugin ran in: who looks for the processes of the pod has to see that.
	PIDNamespace uint64 `json:"pidNamespace,omitempty"`
	// Call is the name of the ADD, see cni.CallID; empty if the runtime executed braid itself.
	Call string `json:"call,omitempty"`

	// Done says that the ADD came to its end. Until then attachments may exist in part or not at all.
	Done        bool         `json:"done"`
	Attachments []Attachment `json:"attachments"` // in the order in which they were made

	// Pending is what the cluster is still to be told of the ADD, a resolve.Report; nil when it has been. The journal is
	// its queue: it is written with the results, so that no crash can lose it.
	Pending json.RawMessage `json:"pending,omitempty"`

	Unknown Unknown `json:"-"`
}

// An Attachment is one interface of the pod: all that is needed to check it and to undo it.
type Attachment struct {
	Name         string         `json:"name"` // "namespace/name" of the NetworkAttachmentDefinition, or the network's name
	IfName       string         `json:"ifName"`
	Default      bool           `json:"default,omitempty"` // the cluster-wide default network
	Network      *conf.Network  `json:"network"`           // as it was at ADD
	Capabilities map[string]any `json:"capabilities,omitempty"`
	// Result is nil until the attachment was made.
	Result *types100.Result `json:"result,omitempty"`

	Unknown Unknown `json:"-"`
}

// At returns what identifies an attachment of the record to its plugins. The keys of CNI_ARGS that ask for an address
// are for the cluster-wide default network.
//
// Network CRD specification (7.5): what a runtime asks for "must not be passed to or applied by network attachments
// other than the cluster-wide default network".
func (r *Record) At(a *Attachment) cni.Attachment {
	at := cni.Attachment{ContainerID: r.ContainerID, Netns: r.Netns, IfName: a.IfName, Args: r.Args}
	if !a.Default {
		at.Args = withoutRequests(r.Args)
	}
	return at
}

func withoutRequests(args string) string {
	pairs := slices.DeleteFunc(strings.Split(args, ";"), func(pair string) bool {
		key, _, _ := strings.Cut(pair, "=")
		return key == "IP" || key == "GATEWAY" || key == "MAC"
	})
	return strings.Join(pairs, ";")
}

// ErrNotFound says that there is no record of an attachment.
var ErrNotFound = errors.New("no record")

// A CorruptError says that a record can not be read as one.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string { return fmt.Sprintf("read record %s: %v", e.Path, e.Err) }
func (e *CorruptError) Unwrap() error { return e.Err }

// A Journal is a folder of records. It is safe for concurrent use, by processes too, under its locks.
type Journal struct {
	dir string

	// Memory is for what [Journal.Get] decodes; nil remembers nothing.
	Memory *memo.Memory

	// Later does what nobody has to wait for. It is nil in a process that does not stay to do it.
	Later func(do func())
}

// Open returns the journal in dir, and makes the folder if need be.
func Open(dir string) (*Journal, error) {
	if err := atomicfile.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make journal: %w", err)
	}
	// What a record says is undone as root: whoever can write one could have anything undone.
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the journal: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && (int(st.Uid) != os.Geteuid() || info.Mode()&0o022 != 0) {
		return nil, fmt.Errorf("the journal's folder %s has owner %d and mode %04o: want %d, and that nobody else can write (0700)",
			dir, st.Uid, info.Mode().Perm(), os.Geteuid())
	}
	return &Journal{dir: dir}, nil
}

// Writable returns an error if it is certain that no record can be put into it.
func (j *Journal) Writable() error { return atomicfile.Writable(j.dir) }

// Dir returns the folder.
func (j *Journal) Dir() string { return j.dir }

func (j *Journal) path(containerID, ifName string) string {
	return filepath.Join(j.dir, containerID+":"+ifName+".json")
}

// maxRecord bounds a record, in bytes. It has some kilobytes; an ADD fails whose plugins say so much that it would have more.
const maxRecord = 16 << 20

// temporary ends the names of files that are being written, or that a killed process has left.
const temporary = ".tmp"

// Put writes the record anew. What it says survives the death of the process; after a loss of power, which no container
// outlives, there is the record as it was before or as it is now. The caller has the lock of the container.
func (j *Journal) Put(r *Record) error {
	_, err := os.Lstat(j.path(r.ContainerID, r.IfName))
	if isNew := errors.Is(err, fs.ErrNotExist); isNew {
		durable, err := j.Begin(r)
		if err != nil {
			return err
		}
		return durable()
	}
	return j.write(r)
}

func (j *Journal) write(r *Record) error {
	b, err := r.document()
	if err != nil {
		return err
	}
	path := j.path(r.ContainerID, r.IfName)
	return atomicfile.Replace(path+temporary, path, b, 0o600)
}

// document is what a file has of a record.
func (r *Record) document() ([]byte, error) {
	r.Version = version
	b, err := r.encode()
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return b, bounded(r.ContainerID, int64(len(b)))
}

// Get returns the record of one ADD. The error is ErrNotFound if there is none, a *CorruptError if it can not be read, a
// *NewerError if a newer version of Braid has written it so that this one cannot.
func (j *Journal) Get(containerID, ifName string) (*Record, error) {
	return readWith(j.Memory, j.path(containerID, ifName))
}

func read(path string) (*Record, error) { return readWith(nil, path) }

func readWith(m *memo.Memory, path string) (*Record, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	r, n, err := decodeRecord(m, b, true)
	known := err == nil
	if !known {
		r, n, err = decodeRecord(m, b, false)
	}
	record, lines := b[:n], b[n:]
	if err != nil || r.Version > version {
		if newer := newer(path, record); newer != nil {
			return nil, newer
		}
	}
	if err == nil && !known {
		err = r.noteUnknown(record)
	}
	if err == nil {
		err = amendments(lines, r.take)
	}
	if err == nil {
		err = r.validate(path)
	}
	if err != nil {
		return nil, corrupt(path, err)
	}
	return r, nil
}

// corrupt is why there is no record in a file that is there.
func corrupt(path string, err error) error {
	if isLost(path) {
		return ErrNotFound
	}
	return &CorruptError{path, err}
}

func readFile(path string) ([]byte, error) {
	b, err := atomicfile.Read(path, maxRecord)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNotFound
	case errors.Is(err, atomicfile.ErrNotRegular), errors.Is(err, atomicfile.ErrTooLarge):
		return nil, &CorruptError{path, err}
	}
	return b, err
}

// ReadRaw returns the content of a record that can not be read as one, within the bounds of records.
func ReadRaw(path string) ([]byte, error) { return atomicfile.Read(path, maxRecord) }

// validate refuses a record that is well-formed JSON and still none of ours: zeroed or swapped content would otherwise
// undo something else.
func (r *Record) validate(path string) error {
	if want := r.ContainerID + ":" + r.IfName + ".json"; filepath.Base(path) != want {
		return fmt.Errorf("its content belongs to %s", want)
	}
	for _, a := range r.Attachments {
		if a.Network == nil || a.IfName == "" {
			return fmt.Errorf("attachment %q has no network or interface", a.Name)
		}
	}
	return nil
}

// Remove forgets a record, and what a killed process has left of writing it. It succeeds if there is none. The caller has
// the lock of the container.
//
// To give its blocks back may have to wait for what others write to the disk. A process that stays holds the file until nobody
// waits for that.
func (j *Journal) Remove(containerID, ifName string) error {
	path := j.path(containerID, ifName)
	if j.Later != nil {
		if f, err := plainfile.Open(path, unix.O_PATH|unix.O_NOFOLLOW, 0); err == nil {
			defer j.Later(func() { f.Close() })
		}
	}
	return errors.Join(remove(path+temporary), remove(path)) // the record last: it is what the next DEL or sweep looks for
}

func remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// SetAside renames a record that can not be read, so that it is out of the way and can still be looked at: the end of its
// name says why, ".corrupt" or ".newer".
func (j *Journal) SetAside(containerID, ifName string) error {
	path := j.path(containerID, ifName)
	end := ".corrupt"
	var newer *NewerError
	if _, err := read(path); errors.As(err, &newer) {
		end = ".newer"
	}
	return os.Rename(path, path+end)
}

// All returns the records that can be read, in the order of their file names. The error joins those of the others.
func (j *Journal) All() ([]*Record, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, err
	}
	var records []*Record
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || !strings.Contains(e.Name(), ":") {
			continue
		}
		r, err := read(filepath.Join(j.dir, e.Name()))
		switch {
		case errors.Is(err, ErrNotFound): // removed since the folder was read, or lost
		case err != nil:
			errs = append(errs, err)
		default:
			records = append(records, r)
		}
	}
	return records, errors.Join(errs...)
}
