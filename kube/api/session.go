package api

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"os"
	"sync/atomic"

	"github.com/braid-cni/braid/internal/atomicfile"
)

// maxSession is in bytes, of which a session with the certificates of a server has one thousand or two.
const maxSession = 64 << 10

// KeepSession has the TLS session with the server outlive this process, in a file that this user alone can read: the next
// process need not verify the server's certificates, nor the server sign anything, which takes it a millisecond with a key
// of RSA. It is to be called before [Server.Connect] and the first request.
//
// A session is used with the server and the authority that it was made with. One that is missing, damaged, too old or
// unknown to the server costs nothing but the handshake that it would have saved. None is kept where a client certificate is
// the credential, which would be in it, nor where the authorities are those of the system, which can change, nor by way of a
// proxy.
func (s *Server) KeepSession(path string) {
	if s.dialer == nil || s.authority == nil || len(s.dialer.trust.Certificates) > 0 {
		return
	}
	with := sha256.Sum256(bytes.Join([][]byte{[]byte(s.URL.Host), []byte(s.dialer.trust.ServerName), s.authority}, []byte{0}))
	kept := &session{path: path, with: with[:]}
	s.dialer.trust.ClientSessionCache = kept
	s.dialer.trust.VerifyConnection = func(c tls.ConnectionState) error {
		kept.resumed.Store(c.DidResume)
		return nil
	}
}

// A session is the last one, in a file: a digest of whom it is with, the ticket behind its length, and the state.
type session struct {
	path    string
	with    []byte
	resumed atomic.Bool // and so what is kept is good for the next process too
}

var _ tls.ClientSessionCache = (*session)(nil)

// Get implements [tls.ClientSessionCache].
func (s *session) Get(string) (*tls.ClientSessionState, bool) {
	kept, err := atomicfile.Read(s.path, maxSession)
	if err != nil {
		return nil, false
	}
	rest, ours := bytes.CutPrefix(kept, s.with)
	if !ours || len(rest) < 4 || uint64(len(rest)-4) < uint64(binary.BigEndian.Uint32(rest)) {
		return nil, false
	}
	ticket, state := rest[4:4+binary.BigEndian.Uint32(rest)], rest[4+binary.BigEndian.Uint32(rest):]
	parsed, err := tls.ParseSessionState(state)
	if err != nil {
		return nil, false
	}
	c, err := tls.NewResumptionState(ticket, parsed)
	return c, err == nil
}

// Put implements [tls.ClientSessionCache]. Nil is for a session with which a handshake has failed.
func (s *session) Put(_ string, c *tls.ClientSessionState) {
	if c == nil {
		_ = os.Remove(s.path)
	} else if !s.resumed.Load() {
		_ = s.keep(c)
	}
}

func (s *session) keep(c *tls.ClientSessionState) error {
	ticket, state, err := c.ResumptionState()
	if err != nil || state == nil {
		return err
	}
	encoded, err := state.Bytes()
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32(bytes.Clone(s.with), uint32(len(ticket)))
	b = append(append(b, ticket...), encoded...)
	// Two processes may write at the same time. What comes of it is a good file, or a damaged one, which costs one more
	// handshake; a file for each would be left by each that is killed.
	return atomicfile.Replace(s.path+".tmp", s.path, b, 0o600)
}
