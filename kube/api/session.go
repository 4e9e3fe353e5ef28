package api

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"os"

	"github.com/braid-cni/braid/internal/atomicfile"
)

// maxSession is in bytes, of which a session with the certificates of a server has one thousand or two.
const maxSession = 64 << 10

// sessionFormat is raised with what the file has: a file of another one is that of another session.
const sessionFormat = "2"

// provenAfter is how many processes in a row have to resume a session before the next one relies on it.
const provenAfter = 8

// KeepSession has the TLS session with the server outlive this process, in a file that this user alone can read: the next
// process need not verify the server's certificates, nor the server sign anything, which takes it a millisecond with a key
// of RSA. It is to be called before [Server.Connect] and the first request.
//
// A session is used with the server and the authority that it was made with. One that is missing, damaged, too old or
// unknown to the server costs nothing but the handshake that it would have saved. None is kept where a client certificate is
// the credential, which would be in it, nor where the authorities are those of the system, which can change, nor by way of a
// proxy.
//
// What is kept is of a full handshake, whose exchange of keys withstands quantum computers if the server can do that. The
// keys of a connection that resumes it follow from both that exchange and another one, which need not withstand them, then,
// and takes 0.4 ms less if it does not. So where a session is proven, resumed [provenAfter] times in a row, no other is
// offered, and a server that does not resume it after all gets a full handshake on a new connection. Of several API servers
// behind one address most do not know a session of another: there none is ever proven.
func (s *Server) KeepSession(path string) {
	if s.dialer == nil || s.authority == nil || len(s.dialer.trust.Certificates) > 0 {
		return
	}
	with := sha256.Sum256(bytes.Join([][]byte{[]byte(sessionFormat), []byte(s.URL.Host), []byte(s.dialer.trust.ServerName), s.authority}, []byte{0}))
	s.dialer.sessions = &sessions{path: path, with: with[:]}
}

// sessions are the file of the last session: a digest of whom it is with, how many processes in a row have resumed it, the
// ticket behind its length, and the state.
type sessions struct {
	path string
	with []byte
}

// A session is for one handshake: it is the one that was kept, if there is one, and keeps the one that the server offers if
// that was not resumed.
type session struct {
	*sessions
	content []byte                  // of the file
	kept    *tls.ClientSessionState // nil if there is none
	resumed bool                    // and so what is kept is good for the next process too
}

var _ tls.ClientSessionCache = (*session)(nil)

// last reads the session that was kept.
func (s *sessions) last() *session {
	found := &session{sessions: s}
	content, err := atomicfile.Read(s.path, maxSession)
	if err != nil {
		return found
	}
	rest, ours := bytes.CutPrefix(content, s.with)
	if !ours || len(rest) < 5 {
		return found
	}
	length, rest := binary.BigEndian.Uint32(rest[1:]), rest[5:]
	if uint64(len(rest)) < uint64(length) {
		return found
	}
	state, err := tls.ParseSessionState(rest[length:])
	if err != nil {
		return found
	}
	if kept, err := tls.NewResumptionState(rest[:length], state); err == nil {
		found.content, found.kept = content, kept
	}
	return found
}

// count is how many processes in a row have resumed the session.
func (s *session) count() *byte { return &s.content[len(s.with)] }

// isProven says whether the server can be relied on to resume the session.
func (s *session) isProven() bool { return s.kept != nil && *s.count() >= provenAfter }

// Get implements [tls.ClientSessionCache].
func (s *session) Get(string) (*tls.ClientSessionState, bool) { return s.kept, s.kept != nil }

// Put implements [tls.ClientSessionCache]. Nil is for a session with which a handshake has failed.
func (s *session) Put(_ string, c *tls.ClientSessionState) {
	if c == nil {
		_ = os.Remove(s.path)
	} else if !s.resumed {
		_ = s.keep(c)
	}
}

// errNotResumed ends a handshake that has offered nothing but to resume a session.
var errNotResumed = errors.New("the server does not resume the TLS session")

// shaken takes note of what a handshake has come to, before any session of it is put.
func (s *session) shaken(c tls.ConnectionState) error {
	s.resumed = c.DidResume
	proven := s.isProven()
	switch {
	case s.kept == nil:
	case !s.resumed:
		_ = os.Remove(s.path)
		if proven {
			return errNotResumed
		}
	case !proven:
		*s.count()++
		_ = s.write(s.content)
	}
	return nil
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
	b := append(bytes.Clone(s.with), 0)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(ticket))), ticket...)
	return s.write(append(b, encoded...))
}

// write replaces the file. Two processes may do it at the same time. What comes of it is a good file, or a damaged one, which
// costs one more handshake; a file for each would be left by each that is killed.
func (s *sessions) write(content []byte) error {
	return atomicfile.Replace(s.path+".tmp", s.path, content, 0o600)
}
