package stream

import (
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Why a certificate is not taken is told by the client's own settings: a cause that they rule out is not named.
func TestUntrustedCertificate(t *testing.T) {
	t.Parallel()
	listener := httptest.NewTLSServer(nil) // for 127.0.0.1, signed by itself
	t.Cleanup(listener.Close)
	_, port, err := net.SplitHostPort(listener.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	own := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: listener.Certificate().Raw}))
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	const authority, name, neither = "signed by an unknown authority", "is not for localhost", ""
	for _, tt := range []struct {
		host       string
		properties map[string]string
		want       string
	}{
		{"127.0.0.1", nil, authority},
		{"127.0.0.1", map[string]string{"ssl.ca.location": file}, neither},
		{"127.0.0.1", map[string]string{"ssl.ca.pem": own}, neither},
		{"127.0.0.1", map[string]string{"ssl.ca.location": filepath.Dir(file)}, neither},
		{"localhost", map[string]string{"ssl.ca.location": file}, name},
		{"localhost", map[string]string{"ssl.ca.location": file, "ssl.endpoint.identification.algorithm": "none"}, neither},
	} {
		c := &Client{o: Options{Properties: tt.properties}}
		e := c.untrusted(ctxOf(t), reached{addr: net.JoinHostPort(tt.host, port)}, "certificate verify failed")
		got := neither
		for _, cause := range []string{authority, name} {
			if text := e.What + e.Where; strings.Contains(text, cause) {
				got = cause
			}
		}
		if got != tt.want {
			t.Errorf("%s, %v: %v; want %q", tt.host, tt.properties, e, tt.want)
		}
	}
}
