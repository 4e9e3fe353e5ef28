package cnitest

import (
	"os"
	"path/filepath"
)

func delRepeated(r *run) {
	p := r.attached()
	for range 3 {
		if err := p.del(); err != nil {
			r.Errorf("DEL: %v", err)
		}
		r.nothingLeft("after DEL")
	}
}

func delWithoutAdd(r *run) {
	p := r.pod()
	p.mustDelete(p.req)
	r.nothingLeft("after DEL")
}

func delWithoutPrevResult(r *run) {
	p := r.attached()
	p.mustDelete(p.req)
	r.nothingLeft("after DEL")
}

func delWithoutInterface(r *run) {
	p := r.attached()
	if err := p.ns.Handle().LinkDel(p.ns.Link(r, p.req.IfName)); err != nil {
		r.Fatal(err)
	}
	p.mustDelete(p.later())
	r.nothingLeft("after DEL")
}

func delWithoutNamespace(r *run) {
	p := r.attached()
	p.removeNamespace()
	p.mustDelete(p.later())
	r.nothingLeft("after DEL")
}

func delWithEmptyNetns(r *run) {
	p := r.attached()
	p.removeNamespace()
	req := p.later()
	req.Netns = ""
	p.mustDelete(req)
	r.nothingLeft("after DEL")
}

// delWithPlainFile is what a node finds after a reboot where the folder of namespaces is not on a tmpfs.
func delWithPlainFile(r *run) {
	p := r.attached()
	p.removeNamespace()
	req := p.later()
	req.Netns = filepath.Join(r.TempDir(), "netns")
	if err := os.WriteFile(req.Netns, nil, 0o600); err != nil {
		r.Fatal(err)
	}
	p.mustDelete(req)
	r.nothingLeft("after DEL")
}

func delLeavesOthers(r *run) {
	p, other := r.attached(), r.attached()
	q := p.second()
	q.mustAdd()
	if err := p.del(); err != nil {
		r.Fatalf("DEL: %v", err)
	}
	if err := q.check(); err != nil {
		r.Errorf("another interface of the same pod, after DEL: %v", err)
	}
	if err := other.check(); err != nil {
		r.Errorf("another pod, after DEL: %v", err)
	}
}
