package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/braid-cni/braid/delegate"
)

// setClock makes everything that is on disk look as if the clock had been set by so much after it was written.
func (n *node) setClock(by time.Duration, pods ...*pod) {
	n.t.Helper()
	then := time.Now().Add(-by)
	for _, p := range pods {
		p.edit(func(r map[string]any, _ []map[string]any) { r["created"] = then.Format(time.RFC3339Nano) })
	}
	for _, dir := range []string{"braid", "ipam"} {
		err := filepath.WalkDir(filepath.Join(n.dir, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chtimes(path, then, then)
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

// TestClockIsSet: no verb compares what the clock of the node says now with what it has said to another process: neither years
// to the one side nor to the other change what is alive, what is stale, what is reserved, or how long a grace time is.
func TestClockIsSet(t *testing.T) {
	const years = 10 * 365 * 24 * time.Hour
	for name, by := range map[string]time.Duration{"forward": years, "back": -years} {
		t.Run(name, func(t *testing.T) {
			n := newSweptNode(t)
			web, dead := n.pod("web", "storage,lan"), n.pod("dead", "storage")
			web.mustAdd()
			dead.mustAdd()
			dead.ns.Remove(t)
			n.setClock(by, web, dead)
			found := n.sweep(nil)
			wantAction(t, found, "c-web", delegate.Alive, delegate.Kept)
			wantAction(t, found, "c-dead", delegate.Dead, delegate.Waits) // its grace begins now
			known := []delegate.Known{{RecordKey: found["c-dead"].RecordKey, StaleSeconds: 59}}
			wantAction(t, n.sweep(known), "c-dead", delegate.Dead, delegate.Waits)
			known[0].StaleSeconds = 60
			wantAction(t, n.sweep(known), "c-dead", delegate.Dead, delegate.Undone)
			if err := web.check(); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			if err := n.gc(web); err != nil {
				t.Errorf("GC: %v", err)
			}
			if err := web.cni().GetStatusNetworkList(t.Context(), n.network("1.1.0")); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			// Addresses that are reserved stay so, whatever the times of the files.
			n.setClock(by, web)
			db := n.pod("db", "storage,lan")
			for _, a := range addresses(t, db.mustAdd())["eth0"] {
				if a == "10.244.0.2/24" || a == "fd00:244::2/64" {
					t.Errorf("%s has been given twice", a)
				}
			}
			n.setClock(-2*by, web, db)
			for _, p := range []*pod{web, db} {
				if err := p.check(); err != nil {
					t.Errorf("CHECK of %s: %v", p.name, err)
				}
				p.mustDel()
			}
			n.left()
		})
	}
}
