package lookup

import (
	"context"

	"github.com/braid-cni/braid/internal/roomy"
	"github.com/braid-cni/braid/resolve"
)

// atOnce is how many networks are asked for at the same time.
const atOnce = 16

// A search asks for networks, each once. It is for one goroutine.
type search struct {
	src   Source
	ctx   context.Context
	end   context.CancelFunc
	slots chan struct{}
	asked map[resolve.NetworkName]*finding
}

// A finding can be read when done is closed.
type finding struct {
	done    chan struct{}
	network *resolve.Network // nil if there is none
	err     error
}

func newSearch(ctx context.Context, src Source) *search {
	s := &search{src: src, slots: make(chan struct{}, atOnce), asked: make(map[resolve.NetworkName]*finding)}
	s.ctx, s.end = context.WithCancel(ctx)
	return s
}

// stop ends what is still being asked, and waits for its end: whoever asks is about to close the connection.
func (s *search) stop() {
	s.end()
	for _, f := range s.asked {
		<-f.done
	}
}

// ask begins to ask for networks, and waits for nothing. For what a cache knows it is not worth while to do that at the same
// time.
func (s *search) ask(names []resolve.NetworkName) {
	cache, _ := s.src.(Cache)
	for _, name := range names {
		if s.asked[name] != nil {
			continue
		}
		f := &finding{done: make(chan struct{})}
		if cache != nil {
			f.network = cache.KnownNetwork(name)
		}
		s.asked[name] = f // whose end stop waits for: what may panic is behind
		if f.network != nil {
			close(f.done)
		} else {
			go s.find(name, f)
		}
	}
}

func (s *search) find(name resolve.NetworkName, f *finding) {
	defer close(f.done)
	defer Recovered(&f.err)
	roomy.Stack()
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	f.network, f.err = s.src.Network(s.ctx, name)
}

// get returns networks, without those that do not exist. What else was asked for does not matter.
func (s *search) get(names []resolve.NetworkName) (map[string]resolve.Network, error) {
	s.ask(names)
	found := make(map[string]resolve.Network)
	for _, name := range names {
		f := s.asked[name]
		<-f.done
		switch {
		case f.err != nil:
			return nil, f.err
		case f.network != nil:
			found[name.String()] = resolve.Network{Config: f.network.Config, Annotations: Annotations(f.network.Annotations)}
		}
	}
	return found, nil
}
