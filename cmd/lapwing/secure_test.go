//go:build e2e

package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/bench/kafka"
)

// What must be seen nowhere: each begins like this.
const markedSecret = "marker-secret-"

// authority signs the certificates of a test.
type authority struct {
	t    *testing.T
	dir  string
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir, name: name}
	a.key = newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file(), &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func (a *authority) file() string { return filepath.Join(a.dir, a.name+".pem") }

// issue writes NAME.key, NAME.crt, and both in NAME.pem, which is what a broker reads.
func (a *authority) issue(name, host string, until time.Time) {
	a.t.Helper()
	key := newKey(a.t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(host); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	k, c := &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}, &pem.Block{Type: "CERTIFICATE", Bytes: der}
	writePEM(a.t, filepath.Join(a.dir, name+".key"), k)
	writePEM(a.t, filepath.Join(a.dir, name+".crt"), c)
	writePEM(a.t, filepath.Join(a.dir, name+".pem"), k, c)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, path string, blocks ...*pem.Block) {
	t.Helper()
	var out bytes.Buffer
	for _, b := range blocks {
		if err := pem.Encode(&out, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issuer is a token endpoint with one client, and the keys by which a broker checks its tokens.
func issuer(t *testing.T) *httptest.Server {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one",
			"n": text(key.N.Bytes()), "e": text(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if id, secret, ok := r.BasicAuth(); !ok || id != "ada" || secret != markedSecret+"token" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"wrong client or secret"}`)
			return
		}
		now := time.Now().Unix()
		claims := fmt.Sprintf(`{"sub":"ada","iss":"test","aud":"kafka","scope":"kafka","iat":%d,"exp":%d}`, now, now+600)
		body := text([]byte(`{"alg":"RS256","typ":"JWT","kid":"one"}`)) + "." + text([]byte(claims))
		sum := sha256.Sum256([]byte(body))
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"access_token": body + "." + text(sig), "token_type": "Bearer", "expires_in": 600})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// secured is a broker with each way in, and what a client needs for them.
type secured struct {
	*flow
	cluster *kafka.Cluster
	ours    *authority
	other   *authority // whom nobody trusts
	token   string     // address of the token endpoint
}

func secureKafka(t *testing.T) *secured {
	t.Helper()
	dir := t.TempDir()
	s := &secured{ours: newAuthority(t, dir, "ours"), other: newAuthority(t, dir, "other")}
	tomorrow := time.Now().Add(24 * time.Hour)
	s.ours.issue("broker", "127.0.0.1", tomorrow)
	s.ours.issue("expired", "127.0.0.1", time.Now().Add(-time.Hour))
	s.ours.issue("elsewhere", "kafka.example", tomorrow)
	s.ours.issue("ada", "ada", tomorrow)
	s.other.issue("eve", "eve", tomorrow)
	tokens := issuer(t)
	s.token = tokens.URL + "/token"
	t.Setenv("JAVA_TOOL_OPTIONS", "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="+tokens.URL+"/keys")
	sasl := "listener.name.sasl_ssl."
	var err error
	s.cluster, err = kafka.Start(t.Context(), kafka.Options{Dir: peers(t, kafka.Broker),
		Listeners: []kafka.Listener{{Name: "SSL", Protocol: "SSL"}, {Name: "SASL_SSL", Protocol: "SASL_SSL"}, {Name: "EXPIRED", Protocol: "SSL"}, {Name: "ELSEWHERE", Protocol: "SSL"}},
		Server: []string{
			"ssl.keystore.type=PEM", "ssl.keystore.location=" + filepath.Join(dir, "broker.pem"), "ssl.truststore.type=PEM", "ssl.truststore.location=" + s.ours.file(),
			"listener.name.ssl.ssl.client.auth=required",
			"listener.name.expired.ssl.keystore.type=PEM", "listener.name.expired.ssl.keystore.location=" + filepath.Join(dir, "expired.pem"),
			"listener.name.elsewhere.ssl.keystore.type=PEM", "listener.name.elsewhere.ssl.keystore.location=" + filepath.Join(dir, "elsewhere.pem"),
			sasl + "sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN,OAUTHBEARER",
			sasl + "scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			sasl + `plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ada="` + markedSecret + `plain";`,
			sasl + "oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
			sasl + "oauthbearer.sasl.server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler",
			"sasl.oauthbearer.jwks.endpoint.url=" + tokens.URL + "/keys", "sasl.oauthbearer.expected.audience=kafka", "sasl.oauthbearer.expected.issuer=test",
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cluster.Close() })
	s.flow = newFlow(t, s.cluster.Addr())
	s.scramUser("ada", markedSecret+"scram")
	return s
}

// scramUser gives the cluster a user, as kafka-configs.sh does.
func (s *secured) scramUser(name, password string) {
	s.t.Helper()
	salt := []byte("0123456789abcdef")
	salted, err := pbkdf2.Key(sha512.New, password, salt, 4096, sha512.Size)
	if err != nil {
		s.t.Fatal(err)
	}
	q := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	q.Upsertions = append(q.Upsertions, kmsg.AlterUserSCRAMCredentialsRequestUpsertion{Name: name, Mechanism: 2, Iterations: 4096, Salt: salt, SaltedPassword: salted})
	r, err := q.RequestWith(s.ctx, s.client)
	if err != nil || r.Results[0].ErrorCode != 0 {
		s.t.Fatal(err, r)
	}
}

// as runs the program at a listener with these properties, as environment variables: it gives what it wrote, and its exit status.
func (s *secured) as(listener string, properties map[string]string, args ...string) (out string, code int) {
	s.t.Helper()
	cmd := s.command(args...)
	addr := s.cluster.Addr()
	if listener != "" {
		addr = s.cluster.Listener(listener)
	}
	cmd.Env = append(cmd.Env, "LAPWING_KAFKA_BOOTSTRAP_SERVERS="+addr)
	for k, v := range properties {
		cmd.Env = append(cmd.Env, "LAPWING_KAFKA_"+strings.ToUpper(strings.ReplaceAll(k, ".", "_"))+"="+v)
	}
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	if i := strings.Index(string(b), markedSecret); i >= 0 {
		s.t.Errorf("lapwing %s wrote a secret: …%s", strings.Join(args, " "), b[max(0, i-80):])
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func (s *secured) beside(name string) string { return filepath.Join(s.ours.dir, name) }

// Every way in that Kafka has works, each fault on the way is said in words that name it, and no secret is written anywhere.
func TestSecureKafkaConnections(t *testing.T) {
	s := secureKafka(t)
	with := func(base map[string]string, more ...string) map[string]string {
		m := map[string]string{}
		for k, v := range base {
			m[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			if m[more[i]] = more[i+1]; more[i+1] == "" {
				delete(m, more[i])
			}
		}
		return m
	}
	tls := map[string]string{"security.protocol": "ssl", "ssl.ca.location": s.ours.file()}
	ada := with(tls, "ssl.certificate.location", s.beside("ada.crt"), "ssl.key.location", s.beside("ada.key"))
	sasl := with(tls, "security.protocol", "sasl_ssl", "sasl.username", "ada")
	plain := with(sasl, "sasl.mechanisms", "PLAIN", "sasl.password", markedSecret+"plain")
	scram := with(sasl, "sasl.mechanisms", "SCRAM-SHA-512", "sasl.password", markedSecret+"scram")
	oauth := with(tls, "security.protocol", "sasl_ssl", "sasl.mechanisms", "OAUTHBEARER", "sasl.oauthbearer.method", "oidc", "sasl.oauthbearer.client.id", "ada",
		"sasl.oauthbearer.client.secret", markedSecret+"token", "sasl.oauthbearer.token.endpoint.url", s.token)
	rows := s.beside("rows.csv")
	var text strings.Builder
	text.WriteString("x,y\n")
	for i := range 100 {
		fmt.Fprintf(&text, "%d,%d\n", i%17, i%5)
	}
	writeFile(t, rows, text.String())
	for _, c := range []struct {
		name, listener string
		properties     map[string]string
	}{{"plaintext", "", nil}, {"ssl", "SSL", ada}, {"plain", "SASL_SSL", plain}, {"scram", "SASL_SSL", scram}, {"oauthbearer", "SASL_SSL", oauth}} {
		for _, args := range []string{"load " + rows + " --topic " + c.name, "train --topic " + c.name + " --model " + c.name + " --layers 4 --epochs 1 --log-level debug", "config"} {
			if out, code := s.as(c.listener, c.properties, strings.Fields(args)...); code != 0 {
				t.Errorf("%s: lapwing %s: exit status %d\n%s", c.name, args, code, out)
			}
		}
	}
	for _, c := range []struct {
		name, listener string
		properties     map[string]string
		want           []string
	}{
		{"TLS to a plaintext port", "", tls, []string{"this listener does not speak TLS", "set security.protocol to plaintext"}},
		{"plaintext to a TLS port", "SSL", nil, []string{"this listener speaks TLS, but security.protocol is plaintext", "set security.protocol to ssl"}},
		{"no authority", "SSL", with(ada, "ssl.ca.location", ""), []string{"the broker's certificate is not trusted", "unknown authority", "set ssl.ca.location"}},
		{"another authority", "SSL", with(ada, "ssl.ca.location", s.other.file()), []string{"the broker's certificate is not trusted", "unknown authority", "set ssl.ca.location"}},
		{"an expired certificate", "EXPIRED", tls, []string{"the broker's certificate has expired", "renew it"}},
		{"another host's certificate", "ELSEWHERE", tls, []string{"the broker's certificate is not for 127.0.0.1", "kafka.example"}},
		{"no client certificate", "SSL", tls, []string{"the broker wants a client certificate", "ssl.certificate.location"}},
		{"a client certificate by another", "SSL", with(tls, "ssl.certificate.location", s.beside("eve.crt"), "ssl.key.location", s.beside("eve.key")), []string{"the broker refuses this client's certificate", "ssl.truststore"}},
		{"PLAIN, wrong password", "SASL_SSL", with(plain, "sasl.password", markedSecret+"x"), []string{`authentication failed for user "ada" by mechanism PLAIN`, "check sasl.username, sasl.password"}},
		{"SCRAM, wrong password", "SASL_SSL", with(scram, "sasl.password", markedSecret+"x"), []string{`authentication failed for user "ada" by mechanism SCRAM-SHA-512`, "check sasl.username, sasl.password"}},
		{"SCRAM, no such user", "SASL_SSL", with(scram, "sasl.username", "eve"), []string{`authentication failed for user "eve" by mechanism SCRAM-SHA-512`}},
		{"mechanism not enabled", "SASL_SSL", with(scram, "sasl.mechanisms", "SCRAM-SHA-256"), []string{"the broker does not offer the mechanism SCRAM-SHA-256", "SCRAM-SHA-512"}},
		{"no token", "SASL_SSL", with(oauth, "sasl.oauthbearer.client.secret", markedSecret+"x"), []string{"no token could be had", s.token, "sasl.oauthbearer.client.secret"}},
	} {
		for _, args := range []string{"models list", "models list --log-level debug"} {
			out, code := s.as(c.listener, c.properties, strings.Fields(args)...)
			if code != exitFailed {
				t.Errorf("%s: exit status %d", c.name, code)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("%s: lacks %q:\n%s", c.name, w, out)
				}
			}
		}
	}
}
