package cnitest

import (
	"context"

	"github.com/braid-cni/braid/cni"
)

func statusPasses(r *run) {
	req := &cni.Request{Path: r.Path, Config: with(r, r.Config, keys{"cniVersion": latest})}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer r.unchanged(req)()
	if err := r.Plugin.Status(ctx, req); err != nil {
		r.Errorf("STATUS: %v", err)
	}
}

func gcKeepsValid(r *run) {
	valid, stale, alsoValid := r.attached(), r.attached(), r.attached()
	stale.removeNamespace()

	r.gc(valid, alsoValid)
	for _, p := range []*pod{valid, alsoValid} {
		if err := p.check(); err != nil {
			r.Errorf("CHECK of a valid attachment after GC: %v", err)
		}
		if err := p.del(); err != nil {
			r.Errorf("DEL: %v", err)
		}
	}
	r.nothingLeft("after GC, and DEL of the valid attachments")
}

func gcTellsInterfacesApart(r *run) {
	p := r.attached()
	q := p.second()
	q.mustAdd()
	if err := q.dropLink(); err != nil {
		r.Fatal(err)
	}
	r.gc(p)
	if err := p.check(); err != nil {
		r.Errorf("CHECK of a valid attachment after GC: %v", err)
	}
	if err := p.del(); err != nil {
		r.Errorf("DEL: %v", err)
	}
	r.nothingLeft("after GC, and DEL of the valid attachment")
}

func gcEverything(r *run) {
	for range 2 {
		p := r.attached()
		p.removeNamespace()
	}
	r.gc()
	r.nothingLeft("after GC")
}

// dropLink takes the interface away behind the plugin's back.
func (p *pod) dropLink() error {
	if p.IPAM {
		return nil
	}
	return p.ns.Handle().LinkDel(p.ns.Link(p, p.req.IfName))
}
