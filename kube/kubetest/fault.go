package kubetest

import (
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Fault is a way to fail. Several can be at work at the same time; the first that fits a request takes it.
type Fault struct {
	Method string // "GET"; empty means all
	Path   string // a part of the path; empty means all
	Times  int    // how often; 0 means always

	// What happens, in this order.
	Delay      time.Duration // before all else
	Hang       bool          // no answer, until the client gives up or the test ends
	Close      bool          // the connection or stream breaks
	Code       int           // HTTP status of the answer; 0 is the right answer (after a Delay)
	Message    string        // a metav1.Status with this message; empty means plain text
	RetryAfter string        // value of the header
	Body       string        // of the answer, in the place of Message
}

// Break makes the server fail.
func (s *Server) Break(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Times == 0 {
		f.Times = -1
	}
	s.faults = append(s.faults, &f)
}

// Mend ends all faults.
func (s *Server) Mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Lag leaves the memory of the server as it is now: a get that is content with that sees no later change.
func (s *Server) Lag() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory = maps.Clone(s.objects)
}

// fault returns the fault that a request meets, or nil.
func (s *Server) fault(r *http.Request) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Times != 0 && (f.Method == "" || f.Method == r.Method) && strings.Contains(r.URL.Path, f.Path) {
			f.Times--
			return f
		}
	}
	return nil
}

// fail does what the fault says, and reports whether the request has been answered.
func (s *Server) fail(f *Fault, w http.ResponseWriter, r *http.Request) bool {
	select {
	case <-time.After(f.Delay):
	case <-r.Context().Done():
	case <-s.done:
	}
	if f.Hang {
		select {
		case <-r.Context().Done():
		case <-s.done:
		}
	}
	if f.Hang || f.Close {
		panic(http.ErrAbortHandler)
	}
	if f.Code == 0 {
		return false
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	if f.Body != "" {
		w.WriteHeader(f.Code)
		_, _ = io.WriteString(w, f.Body)
	} else if f.Message == "" {
		http.Error(w, http.StatusText(f.Code), f.Code)
	} else {
		writeJSON(w, f.Code, metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
			Status:   metav1.StatusFailure, Code: int32(f.Code), Message: f.Message,
		})
	}
	return true
}
