package delegate_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

func waiting() error { return nil }

var errEnded = errors.New("the process has ended")

func ended() error { return errEnded }

// forCaller is a delegator that does the calls of another process.
func (w *world) forCaller(waits func() error) *delegate.Delegator {
	d := w.delegator()
	d.Caller = waits
	return d
}

// state is all that a call could have changed: files with their contents, and the links of the pod.
func (w *world) state() string {
	w.t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Base(path) == "lock" {
			return err
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s: %s\n", path, text)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	links := w.netns.Links(w.t)
	slices.Sort(links)
	return b.String() + fmt.Sprint(links)
}

// call has a delegator do a call.
func call(w *world, d *delegate.Delegator, verb string, req *cni.Request) (err error) {
	switch verb {
	case "ADD":
		_, err = d.Add(w.t.Context(), req)
	case "DEL":
		err = d.Del(w.t.Context(), req)
	case "CHECK":
		err = d.Check(w.t.Context(), req)
	}
	return err
}

// wantGivenBack calls, and looks that nothing has been done, and nobody been told.
func (w *world) wantGivenBack(verb string, req *cni.Request, waits func() error) {
	w.t.Helper()
	before := w.state()
	w.calls()
	w.observed, w.reports = nil, nil
	if err := call(w, w.forCaller(waits), verb, req); !errors.Is(err, cni.ErrElsewhere) {
		w.t.Errorf("%s: found %v, want that it is given back", verb, err)
	}
	if diff := cmp.Diff(before, w.state()); diff != "" {
		w.t.Errorf("%s has changed something (-before +after):\n%s", verb, diff)
	}
	w.wantCalls()
	if len(w.observed) > 0 || len(w.reports) > 0 {
		w.t.Errorf("%s is told of: %v, %v", verb, w.observed, w.reports)
	}
}

// third makes one of the networks that of a plugin of somebody else, which is there.
func (w *world) third() *cni.Request {
	w.t.Helper()
	script := "#!/bin/sh\n[ $CNI_COMMAND != ADD ] || echo '{\"cniVersion\":\"1.1.0\"}'\n"
	if err := os.WriteFile(filepath.Join(w.dir, "third"), []byte(script), 0o700); err != nil {
		w.t.Fatal(err)
	}
	w.answer.Networks["blue/two"] = resolve.Network{Config: `{"cniVersion":"1.1.0","type":"third"}`}
	req := w.request("")
	req.Path = []string{w.dir}
	return req
}

// A plugin of somebody else is executed by the process that the runtime has started, and by nobody else.
func TestCallerOfThirdParty(t *testing.T) {
	w := newWorld(t)
	req := w.third()
	w.wantGivenBack("ADD", req, waiting)
	if err := call(w, w.delegator(), "ADD", req); err != nil {
		t.Fatal(err)
	}
	w.wantGivenBack("CHECK", req, waiting)
	w.wantGivenBack("DEL", req, waiting)
	for _, verb := range []string{"CHECK", "DEL"} {
		if err := call(w, w.delegator(), verb, req); err != nil {
			t.Errorf("%s of the process itself: %v", verb, err)
		}
	}
	w.wantRecords(0)
}

// So is one of Braid's own that the operator wants to be executed.
func TestCallerOfExecuted(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(filepath.Join(w.dir, "fake-two"), []byte("#!/bin/false"), 0o700); err != nil {
		t.Fatal(err)
	}
	req := w.request(`,"exec":["fake-two"]`)
	req.Path = []string{w.dir}
	w.wantGivenBack("ADD", req, waiting)
}

// What an ADD has left that did not come to its end is undone by who can.
func TestCallerAfterThirdParty(t *testing.T) {
	w := newWorld(t)
	req := w.third()
	if err := call(w, w.delegator(), "ADD", req); err != nil {
		t.Fatal(err)
	}
	w.unfinish()
	w.answer.Networks["blue/two"] = resolve.Network{Config: `{"cniVersion":"1.1.0","type":"fake-two"}`}
	w.wantGivenBack("ADD", req, waiting)
}

func (w *world) journal() *journal.Journal {
	w.t.Helper()
	j, err := journal.Open(filepath.Join(w.dir, "attachments"))
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// unfinish makes the record one of an ADD that was killed.
func (w *world) unfinish() {
	w.t.Helper()
	j := w.journal()
	r := w.record()
	r.Done = false
	if err := j.Put(r); err != nil {
		w.t.Fatal(err)
	}
}

// Records that are not there or cannot be read are those of an early Braid, of Multus, or of a newer Braid: to undo what they were
// about can need anybody's plugins.
func TestCallerOfOtherRecords(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"unknown": os.Remove,
		"corrupt": func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"newer": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, bytes.Replace(b, []byte(`"version":1`), []byte(`"version":99`), 1), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.mustAdd()
			files, err := filepath.Glob(filepath.Join(w.dir, "attachments", "*.json"))
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			if err := damage(files[0]); err != nil {
				t.Fatal(err)
			}
			w.wantGivenBack("DEL", w.request(""), waiting)
			if name == "corrupt" {
				w.wantGivenBack("ADD", w.request(""), waiting)
			}
		})
	}
}

// A caller that has ended, or does the call itself, is not served: it is asked when the lock of the container is held.
func TestCallerThatDoesNotWait(t *testing.T) {
	w := newWorld(t)
	w.wantGivenBack("ADD", w.request(""), ended)
	w.mustAdd()
	w.wantGivenBack("CHECK", w.request(""), ended)
	w.wantGivenBack("DEL", w.request(""), ended)
	w.unfinish()
	w.wantGivenBack("ADD", w.request(""), ended)
}

func TestCallerIsAskedUnderTheLock(t *testing.T) {
	for _, verb := range []string{"ADD", "DEL"} {
		t.Run(verb, func(t *testing.T) {
			w := newWorld(t)
			if verb == "DEL" {
				w.mustAdd()
			}
			j := w.journal()
			unlock, err := j.Lock(t.Context(), "c1")
			if err != nil {
				t.Fatal(err)
			}
			asked := make(chan struct{}, 10)
			result := make(chan error)
			go func() {
				result <- call(w, w.forCaller(func() error { asked <- struct{}{}; return nil }), verb, w.request(""))
			}()
			select {
			case <-asked:
				t.Error("the caller is asked before the lock is held")
			case <-time.After(100 * time.Millisecond): // if it were asked earlier, then by now
			}
			unlock()
			<-asked
			if err := <-result; err != nil {
				t.Error(err)
			}
		})
	}
}

// Everything else is as in the process itself.
func TestCallerOfOwn(t *testing.T) {
	outcomes := func(d func(*world) *delegate.Delegator) (lines []string) {
		w := newWorld(t)
		w.macs = true
		for _, verb := range []string{"CHECK", "ADD", "ADD", "CHECK", "DEL"} {
			err := call(w, d(w), verb, w.request(""))
			text := strings.ReplaceAll(fmt.Sprint(err), w.dir, "DIR")
			if before, _, found := strings.Cut(text, "made by an ADD at"); found {
				text = before
			}
			calls := w.calls()
			slices.Sort(calls)
			lines = append(lines, fmt.Sprint(verb, " ", text, " ", calls, " reports ", len(w.reports)))
		}
		w.wantRecords(0)
		for _, o := range w.observed {
			lines = append(lines, fmt.Sprint(o.Verb, " ", o.Outcome, " ", len(o.Plugins), " ", o.Events))
			if want := d(w).Caller != nil; o.Worker != want {
				t.Errorf("%s: done by a worker: %t, want %t", o.Verb, o.Worker, want)
			}
		}
		return lines
	}
	itself := outcomes((*world).delegator)
	if diff := cmp.Diff(itself, outcomes(func(w *world) *delegate.Delegator { return w.forCaller(waiting) })); diff != "" {
		t.Errorf("calls (-itself +for a caller):\n%s", diff)
	}
	if len(itself) != 10 {
		t.Errorf("found %q", itself)
	}
}

// An ADD that a caller does not wait for any more when it has begun is undone by its context, and whole.
func TestCallerThatGoes(t *testing.T) {
	w := newWorld(t)
	gone := false
	w.on = func(plugin, command string, _ *cni.Request) error {
		if plugin == "fake-default" && command == "ADD" {
			gone = true
			return errEnded
		}
		return nil
	}
	d := w.forCaller(func() error {
		if gone {
			return errEnded
		}
		return nil
	})
	if _, err := d.Add(t.Context(), w.request("")); !errors.Is(err, errEnded) || errors.Is(err, cni.ErrElsewhere) {
		t.Errorf("found %v", err)
	}
	w.wantRecords(0)
}

// An ADD whose worker was killed when all but the answer was done is made again. Another one has answered, whenever that was.
func TestAddAfterWorker(t *testing.T) {
	w := newWorld(t)
	if _, err := w.forCaller(waiting).Add(cni.WithCallID(t.Context(), "this"), w.request("")); err != nil {
		t.Fatal(err)
	}
	w.calls()
	_, err := w.delegator().Add(cni.WithCallID(t.Context(), "another"), w.request(""))
	if err == nil || !strings.Contains(err.Error(), "has interface eth0 already") {
		t.Errorf("another ADD: found %v, want that it has the interface", err)
	}
	w.wantCalls()
	if _, err := w.delegator().Add(cni.WithCallID(t.Context(), "this"), w.request("")); err != nil {
		t.Errorf("that of the worker: %v", err)
	}
	calls := w.calls()
	if len(calls) != 6 {
		t.Fatalf("calls: %q", calls)
	}
	slices.Sort(calls[4:])
	if diff := cmp.Diff([]string{"fake-two DEL net2", "fake-one DEL net1", "fake-default DEL eth0", "fake-default ADD eth0", "fake-one ADD net1", "fake-two ADD net2"}, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	w.wantRecords(1)
	if err := call(w, w.delegator(), "DEL", w.request("")); err != nil {
		t.Error(err)
	}
}
