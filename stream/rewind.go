package stream

// Rewind takes back what the caller has read since the last commit: every partition that it knows comes as Lost, and then as
// Assigned, from its committed offset. Records that wait to be handed out are dropped; what is on its way through the caller comes
// before that Lost, which bears the number returned, and is to be dropped by the caller. After an aborted transaction, and for
// nothing less: partitions are fetched anew. Any goroutine.
//
// Leaving the group and joining again would do as well, but costs the others a rebalance, and a rebalance is what most aborts come
// from.
func (g *Group) Rewind() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rewinds++
	g.poke()
	return g.rewinds
}

// rewind does what Rewind asked for. In the poller's goroutine.
func (p *poller) rewind() {
	if tps := p.takeBack(); tps != nil {
		p.unassign(p.k, tps)
	}
}

// takeBack returns the partitions that are to be fetched anew; nil where no rewind was asked for.
func (p *poller) takeBack() []TopicPartition {
	g := p.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rewound == g.rewinds {
		return nil
	}
	g.rewound = g.rewinds
	tps := []TopicPartition{}
	for tp, w := range g.parts {
		if w.told { // the others have not been read
			tps = append(tps, tp)
		}
	}
	sortTPs(tps)
	p.takeAway(tps)
	for _, tp := range tps {
		g.parts[tp] = &owned{from: -1}
	}
	p.fresh = append(p.fresh, tps...)
	g.events = append(g.events, &Lost{Partitions: tps, Rewound: g.rewound})
	g.notify()
	return tps
}

// CaughtUp tells whether everything that could be read has been handed out, as far as known: see Lag.
func (g *Group) CaughtUp() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.parts {
		if w.pending > 0 || w.end > w.pos {
			return false
		}
	}
	return true
}
