//go:build e2e

package faults

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// network is the way of scorers and trainers to the brokers. Brokers among themselves, the source and the checker go another.
type network struct {
	server *toxiproxy.ApiServer // holds what proxies share; it listens to nothing
	ways   []*toxiproxy.Proxy   // to each broker, from 0
	fronts []*front             // behind each way
	show   atomic.Pointer[tls.Certificate]
}

func newNetwork() *network {
	return &network{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

// to makes the way to a broker.
func (n *network) to(broker string) (string, error) {
	f, err := startFront(broker, &n.show)
	if err != nil {
		return "", err
	}
	n.fronts = append(n.fronts, f)
	p := toxiproxy.NewProxy(n.server, fmt.Sprint("broker-", len(n.ways)+1), "127.0.0.1:0", f.listener.Addr().String())
	if err := p.Start(); err != nil {
		return "", err
	}
	n.ways = append(n.ways, p)
	return p.Listen, nil
}

func (n *network) close() {
	for _, p := range n.ways {
		p.Stop()
	}
	for _, f := range n.fronts {
		f.close()
	}
}

// cut ends the connections to brokers and refuses new ones, until mended.
func (n *network) cut(brokers ...int) (mend func() error) {
	for _, i := range brokers {
		n.ways[i].Stop()
	}
	return func() error {
		for _, i := range brokers {
			// The port may be lent to a connection that somebody makes in the meantime.
			limit, done := context.WithTimeout(context.Background(), 20*time.Second)
			err := until(limit, "the way listens again", func() (bool, error) {
				err := n.ways[i].Start()
				return err == nil, err
			})
			done()
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// spoil puts a toxic on the ways to brokers: a kind that toxiproxy knows, with its attributes.
func (n *network) spoil(kind, direction, attributes string, brokers ...int) (mend func() error, err error) {
	for _, i := range brokers {
		text := fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":%s}`, kind+direction, kind, direction, attributes)
		if _, err := n.ways[i].Toxics.AddToxicJson(strings.NewReader(text)); err != nil {
			return nil, err
		}
	}
	return func() error {
		for _, i := range brokers {
			if err := n.ways[i].Toxics.RemoveToxic(context.Background(), kind+direction); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
