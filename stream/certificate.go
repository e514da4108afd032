package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// untrusted says why the listener's certificate is not taken: librdkafka says only that it is not. It checks as librdkafka does, by
// the authorities that are set or the system's, and the name that was dialled, if names are checked.
func (c *Client) untrusted(ctx context.Context, r reached, line string) *Error {
	e := &Error{What: "the broker's certificate is not trusted", Where: r.addr + ": " + line,
		Next: "set ssl.ca.location to the authority that signed it; connect by a name that the certificate lists", Err: errors.New(line)}
	host, _, err := net.SplitHostPort(r.addr)
	if err != nil {
		return e
	}
	cert, others := presented(ctx, r.addr)
	if cert == nil {
		return e
	}
	roots, known := c.authorities()
	o := x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if c.o.Properties["ssl.endpoint.identification.algorithm"] == "none" {
		o.DNSName = ""
	}
	_, err = cert.Verify(o)
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(cert.NotBefore):
		e.What, e.Where = "the broker's certificate is not valid yet", fmt.Sprintf("%s: valid from %s", r.addr, cert.NotBefore.UTC().Format(time.RFC3339))
		e.Next = "set this machine's clock; if it is right, the certificate is wrong"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.What, e.Where = "the broker's certificate has expired", fmt.Sprintf("%s: valid until %s", r.addr, cert.NotAfter.UTC().Format(time.RFC3339))
		e.Next = "renew it on the broker; if the date is ahead, set this machine's clock"
	case errors.As(err, &name):
		e.What, e.Where = "the broker's certificate is not for "+host, r.addr+": it lists "+listed(cert)
		e.Next = "connect by a name that the certificate lists, or have the broker's certificate list this one"
	case errors.As(err, &unknown) && known:
		e.Where = fmt.Sprintf("%s: signed by an unknown authority: %s", r.addr, cert.Issuer)
		e.Next = "set ssl.ca.location to a file with the certificate of that authority"
	}
	return e
}

// authorities are those that the client is set to trust, nil for the system's. known is false where they cannot be told here: a folder
// of them.
func (c *Client) authorities() (roots *x509.CertPool, known bool) {
	pem := []byte(c.o.Properties["ssl.ca.pem"])
	if file := c.o.Properties["ssl.ca.location"]; file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, false
		}
		pem = append(append(pem, '\n'), data...)
	}
	if len(pem) == 0 {
		return nil, true
	}
	roots = x509.NewCertPool()
	return roots, roots.AppendCertsFromPEM(pem)
}

// listed are the names and addresses that a certificate is for.
func listed(cert *x509.Certificate) string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// presented is the listener's certificate, and those that it sends with it.
func presented(ctx context.Context, addr string) (*x509.Certificate, *x509.CertPool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var first *x509.Certificate
	others := x509.NewCertPool()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		for i, cert := range s.PeerCertificates {
			if i == 0 {
				first = cert
			} else {
				others.AddCert(cert)
			}
		}
		return nil
	}}}
	if conn, err := d.DialContext(ctx, "tcp", addr); err == nil { // nothing is sent over it
		conn.Close()
	}
	return first, others
}

// refusesUs is what a listener says that does not take this client's certificate, or the want of one.
var refusesUs = []string{"certificate required", "alert bad certificate", "alert certificate unknown", "alert unknown ca", "alert certificate expired",
	"alert certificate revoked", "alert unsupported certificate", "alert handshake failure"}

func (c *Client) clientCertificate(r reached, line string) *Error {
	file := c.o.Properties["ssl.certificate.location"]
	if file == "" && c.o.Properties["ssl.certificate.pem"] == "" && c.o.Properties["ssl.keystore.location"] == "" {
		return &Error{What: "the broker wants a client certificate", Where: r.addr + ": " + line,
			Next: "set ssl.certificate.location and ssl.key.location, or use the port of a listener that wants a user instead", Err: errors.New(line)}
	}
	e := &Error{What: "the broker refuses this client's certificate", Where: r.addr + ": " + line,
		Next: "give one signed by an authority in the broker's ssl.truststore, and not expired", Err: errors.New(line)}
	if pair, err := tls.LoadX509KeyPair(file, c.o.Properties["ssl.key.location"]); err == nil && pair.Leaf != nil {
		e.Where += fmt.Sprintf("; %s is of %s, signed by %s, valid until %s", file, pair.Leaf.Subject, pair.Leaf.Issuer, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return e
}
