package delegate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/resolve"
)

// A report that the daemon is to write is in the journal before the daemon hears of it; else there is no need.
func TestReportIsQueuedInTheJournal(t *testing.T) {
	for _, queues := range []bool{true, false} {
		t.Run(fmt.Sprint(queues), func(t *testing.T) {
			w := newWorld(t)
			w.answer.Queues = queues
			w.mustAdd()
			if want := filepath.Join(w.dir, "attachments"); w.query.Journal != want {
				t.Errorf("the query names the journal %q, want %q", w.query.Journal, want)
			}
			r := w.record()
			if r.PodUID != "u1" {
				t.Errorf("the record has UID %q", r.PodUID)
			}
			sent := w.reports[0]
			if !queues {
				if sent.Record != nil || r.Pending != nil {
					t.Errorf("without a daemon: report of record %v, pending %s", sent.Record, r.Pending)
				}
				return
			}
			if want := (resolve.Record{ContainerID: "c1", IfName: "eth0"}); sent.Record == nil || *sent.Record != want || sent.Wait {
				t.Errorf("the report is of record %v, waits: %v", sent.Record, sent.Wait)
			}
			var kept resolve.Report
			if err := json.Unmarshal(r.Pending, &kept); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(sent, &kept); diff != "" {
				t.Errorf("pending (-sent +kept):\n%s", diff)
			}
		})
	}
}

func TestWaitForStatus(t *testing.T) {
	w := newWorld(t)
	w.answer.Queues = true
	if _, err := w.delegator().Add(t.Context(), w.request(`,"waitForStatus":true`)); err != nil {
		t.Fatal(err)
	}
	if !w.reports[0].Wait {
		t.Error("the report is not waited for")
	}
	w.reporting = &resolve.Error{Reason: resolve.Unavailable, Message: "no API server"}
	w2 := w.request(`,"waitForStatus":true`)
	w2.ContainerID = "c2"
	if _, err := w.delegator().Add(t.Context(), w2); err == nil || !strings.Contains(err.Error(), "no API server") {
		t.Errorf("a status that could not be written: %v", err)
	}
	w.wantRecords(1)
}

// What the runtime knows of the pod's annotations goes along with the question.
func TestRuntimeAnnotations(t *testing.T) {
	w := newWorld(t)
	req := w.request(`,"capabilities":{"io.kubernetes.cri.pod-annotations":true},"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b"}}`)
	if _, err := w.delegator().Add(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "b"}, w.query.Annotations); diff != "" {
		t.Errorf("annotations of the query (-want +got):\n%s", diff)
	}
	// They can be long, and no plugin takes them.
	if got := w.record().Attachments[0].Capabilities; len(got) != 0 {
		t.Errorf("the journal has %v", got)
	}
}

func TestObservations(t *testing.T) {
	w := newWorld(t)
	w.mustAdd()
	w.on = fail("fake-one", "DEL", types.NewError(types.ErrTryAgainLater, "busy", ""))
	if err := w.delegator().Del(t.Context(), w.request("")); err == nil {
		t.Fatal("DEL succeeds")
	}
	w.on = nil
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Fatal(err)
	}
	w.on = fail("fake-two", "ADD", errors.New("no luck"))
	if _, err := w.delegator().Add(t.Context(), w.request("")); err == nil {
		t.Fatal("ADD succeeds")
	}
	var got []string
	for _, o := range w.observed {
		if o.Pod != (resolve.Pod{Namespace: "blue", Name: "web", UID: "u1"}) || o.Start.IsZero() || o.Seconds <= 0 || o.SpanID != "" {
			t.Errorf("observed %+v", o)
		}
		line := o.Verb + " " + o.Outcome + ":"
		for _, p := range o.Plugins {
			line += fmt.Sprintf(" %s %s %s", p.Verb, p.Type, p.Outcome)
			if p.Interface == "" || p.Network == "" || p.Start.IsZero() {
				t.Errorf("observed call %+v", p)
			}
		}
		got = append(got, line)
		for _, e := range o.Events {
			got = append(got, e.Type+" "+e.Reason+": "+e.Message)
		}
	}
	want := []string{
		"ADD success: ADD fake-default success ADD fake-one success ADD fake-two success",
		"DEL 11: DEL fake-two success DEL fake-one 11 DEL fake-default success",
		"Warning FailedRemovingInterface: Remove net1 from blue/one: network blue/one: net1: plugin fake-one: busy",
		"Normal RemovedInterface: Remove eth0 from cluster, net2 from blue/two",
		"DEL success: DEL fake-one success",
		"Normal RemovedInterface: Remove net1 from blue/one",
	}
	// Attachments that go together are made in any order.
	if n := len(got) - 1; !strings.HasPrefix(got[n], "ADD 999: ADD fake-default success ") || !strings.Contains(got[n], "ADD fake-two 999") || !strings.Contains(got[n], "DEL fake-default success") {
		t.Errorf("the failed ADD: %s", got[n])
	} else {
		got = got[:n]
	}
	got[0] = strings.Replace(got[0], "ADD fake-two success ADD fake-one success", "ADD fake-one success ADD fake-two success", 1)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
}

// Each plugin gets a span of its own below that of the call, in the trace of the runtime.
func TestTrace(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(w.dir, "traceparent")
	if err := os.WriteFile(filepath.Join(w.dir, "tracer"), fmt.Appendf(nil, "#!/bin/sh\necho $TRACEPARENT >%s\necho '{\"cniVersion\":\"1.1.0\"}'\n", file), 0o700); err != nil {
		t.Fatal(err)
	}
	w.answer.Networks["blue/one"] = resolve.Network{Config: `{"cniVersion":"1.1.0","type":"tracer"}`}
	req := w.request("")
	req.Path = []string{w.dir}
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	runtime := cni.TraceParent{TraceID: trace, SpanID: "00f067aa0ba902b7", Sampled: true}
	if _, err := w.delegator().Add(cni.WithTraceParent(t.Context(), runtime), req); err != nil {
		t.Fatal(err)
	}
	o := w.observed[0]
	if o.TraceParent != runtime.String() || len(o.SpanID) != 16 || o.SpanID == runtime.SpanID {
		t.Errorf("observed parent %q, span %q", o.TraceParent, o.SpanID)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var spans []string
	for _, p := range o.Plugins {
		spans = append(spans, p.SpanID)
		if p.Type == "tracer" && "00-"+trace+"-"+p.SpanID+"-01" != strings.TrimSpace(string(b)) {
			t.Errorf("the plugin got %s, want span %s", b, p.SpanID)
		}
	}
	if len(spans) != 3 || spans[0] == spans[1] || spans[0] == o.SpanID {
		t.Errorf("spans of plugins: %q", spans)
	}
}

// A panic of who reports undoes the ADD, once nobody is at work on its record any more.
func TestReportPanics(t *testing.T) {
	w := newWorld(t)
	w.onReport = func() { panic("no report") }
	func() {
		defer func() {
			if r := recover(); r != "no report" {
				t.Errorf("recovered %v", r)
			}
		}()
		w.mustAdd()
	}()
	if !w.record().Done {
		t.Error("the record is still being finished")
	}
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Fatal(err)
	}
	w.wantRecords(0)
}
