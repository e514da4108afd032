//go:build e2e

package faults

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// front stands before a broker and speaks TLS for it. Real brokers with certificates are in cmd/lapwing's secure tests; here the
// certificate has to expire while records flow.
type front struct {
	listener net.Listener
	broker   string
	show     *atomic.Pointer[tls.Certificate] // to clients
	running  sync.WaitGroup
}

func startFront(broker string, show *atomic.Pointer[tls.Certificate]) (*front, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &front{listener: l, broker: broker, show: show}
	f.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.running.Go(func() { f.pass(c) })
		}
	})
	return f, nil
}

func (f *front) close() {
	f.listener.Close()
	f.running.Wait()
}

// pass carries a connection to the broker.
func (f *front) pass(c net.Conn) {
	defer c.Close()
	client := tls.Server(c, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.show.Load(), nil }})
	if err := client.Handshake(); err != nil {
		return
	}
	broker, err := net.Dial("tcp", f.broker)
	if err != nil {
		return
	}
	defer broker.Close()
	var way sync.WaitGroup
	way.Go(func() {
		io.Copy(broker, client)
		broker.Close()
	})
	io.Copy(client, broker)
	c.Close()
	way.Wait()
}

// papers are the certificates of the fronts.
type papers struct {
	authority      string // file
	valid, expired *tls.Certificate
}

func issue(t *testing.T) papers {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "faults"}, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	out := papers{authority: filepath.Join(t.TempDir(), "authority.pem")}
	if err := os.WriteFile(out.authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	until := func(serial int64, end time.Time) *tls.Certificate {
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "broker"}, NotBefore: now.Add(-24 * time.Hour), NotAfter: end,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		der, err := x509.CreateCertificate(rand.Reader, c, root, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	out.valid, out.expired = until(2, now.Add(48*time.Hour)), until(3, now.Add(-time.Hour))
	return out
}

// certificateExpired: the brokers' certificates have expired when connections have to be made anew, and are renewed some time later.
// Scorers are cut off meanwhile, and have to come back by themselves.
func certificateExpired(ctx context.Context, b *bed) error {
	d := time.Duration(1000+b.rng.IntN(8000)) * time.Millisecond
	if err := b.strike(ctx, "the brokers' certificates have expired, and are renewed after %v", d); err != nil {
		return err
	}
	b.network.show.Store(b.papers.expired)
	mend := b.network.cut(0, 1, 2)
	if err := mend(); err != nil {
		return err
	}
	err := wait(ctx, d)
	b.network.show.Store(b.papers.valid)
	return errors.Join(err, b.alive(false))
}
