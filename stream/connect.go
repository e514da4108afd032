package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// reached is what a plain TCP dial says about the bootstrap servers, before librdkafka tries.
type reached struct {
	addr   string // the first that answered
	family string // v4 or v6 where all are loopback names that answer on one family only
}

// probe dials every bootstrap server. librdkafka would retry an absent broker without end and only log it.
func probe(ctx context.Context, servers string) (reached, error) {
	type answer struct {
		addr string
		ip   net.IP
		err  error
	}
	var addrs []string
	for _, s := range strings.Split(servers, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if i := strings.Index(s, "://"); i >= 0 {
			s = s[i+3:]
		}
		if _, _, err := net.SplitHostPort(s); err != nil {
			s = net.JoinHostPort(strings.Trim(s, "[]"), "9092")
		}
		addrs = append(addrs, s)
	}
	out := make([]answer, len(addrs))
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i, a := range addrs {
		wg.Go(func() {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", a)
			out[i] = answer{addr: a, err: err}
			if err == nil {
				out[i].ip = conn.RemoteAddr().(*net.TCPAddr).IP
				conn.Close()
			}
		})
	}
	wg.Wait()
	var r reached
	var where []string
	loopback, v4, v6 := true, 0, 0
	for _, a := range out {
		if a.err != nil {
			where = append(where, a.addr+": "+dialText(a.err))
			continue
		}
		if r.addr == "" {
			r.addr = a.addr
		}
		host, _, _ := net.SplitHostPort(a.addr)
		loopback = loopback && a.ip.IsLoopback() && net.ParseIP(host) == nil
		if a.ip.To4() != nil {
			v4++
		} else {
			v6++
		}
	}
	if r.addr == "" {
		return r, &Error{What: "no Kafka broker answers", Where: strings.Join(where, "; "),
			Next: "start one (`lapwing broker` is enough to try things), or name yours with --brokers HOST:PORT", Err: errors.Join(errNoBroker, ctx.Err())}
	}
	if loopback && (v4 == 0 || v6 == 0) {
		// localhost often resolves to ::1 first while the broker listens on 127.0.0.1 alone, or the other way about.
		r.family = "v4"
		if v4 == 0 {
			r.family = "v6"
		}
	}
	return r, nil
}

// orInterrupted: whoever gave up waiting has no use for a guess at what the broker lacks.
func orInterrupted(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("connecting: %w", ctx.Err())
	}
	return err
}

var errNoBroker = errors.New("no broker answers")

func dialText(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "the name " + dns.Name + " cannot be resolved"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "no answer in time"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		t := op.Err.Error()
		return strings.TrimPrefix(t, "connect: ")
	}
	return err.Error()
}

// firstMetadata waits for the first round trip until trying ends, or until librdkafka has said why there will be none; ctx
// bounds the search for the reason.
func (c *Client) firstMetadata(ctx, trying context.Context, r reached) error {
	for {
		md, err := c.admin.GetMetadata(nil, false, 250)
		if err == nil && len(md.Brokers) > 0 {
			return c.checkAdvertised(ctx, r, md.Brokers)
		}
		if e := c.diagnose(ctx, r, false); e != nil {
			return e
		}
		if trying.Err() != nil {
			if e := c.diagnose(ctx, r, true); e != nil {
				return e
			}
			return silent(r, "check that a Kafka broker listens there, and its log")
		}
	}
}

// silent: something listens and says nothing, in any protocol.
func silent(r reached, next string) error {
	return &Error{What: "the broker accepts connections but does not answer", Where: r.addr, Next: next, Err: errNoBroker}
}

// diagnose turns librdkafka's own lines into the likely cause. Unless final, only what will not heal by waiting counts.
func (c *Client) diagnose(ctx context.Context, r reached, final bool) error {
	p := c.o.Properties
	proto := strings.ToLower(p["security.protocol"])
	if proto == "" {
		proto = "plaintext"
	}
	lines := c.fold.heldLines()
	find := func(subs ...string) string {
		for _, l := range lines {
			ll := strings.ToLower(l)
			for _, s := range subs {
				if strings.Contains(ll, s) {
					return l
				}
			}
		}
		return ""
	}
	user := p["sasl.username"]
	mech := p["sasl.mechanisms"]
	if mech == "" {
		mech = p["sasl.mechanism"]
	}
	if mech == "" {
		mech = "GSSAPI"
	}
	if strings.HasPrefix(proto, "sasl") {
		if l := find("failed to acquire sasl oauthbearer token", "failed to retrieve oidc token"); l != "" {
			return &Error{What: "no token could be had: " + tail(l), Where: "token endpoint " + p["sasl.oauthbearer.token.endpoint.url"],
				Next: "check sasl.oauthbearer.client.id, sasl.oauthbearer.client.secret and the address of the endpoint", Err: errors.New(tail(l))}
		}
		if l := find("sasl authentication error", "sasl authentication failed", "authentication failed"); l != "" {
			return &Error{What: fmt.Sprintf("authentication failed for user %q by mechanism %s", user, mech), Where: r.addr,
				Next: "check sasl.username, sasl.password and sasl.mechanisms", Err: errors.New(tail(l))}
		}
		if l := find("unsupported sasl mechanism", "handshake failed: broker: unsupported"); l != "" {
			return &Error{What: fmt.Sprintf("the broker does not offer the mechanism %s", mech), Where: r.addr + ": " + tail(l),
				Next: "set sasl.mechanisms to one it offers", Err: errors.New(tail(l))}
		}
	}
	if strings.HasSuffix(proto, "ssl") {
		if l := find("certificate verify failed", "broker certificate could not be verified"); l != "" {
			return c.untrusted(ctx, r, tail(l))
		}
		if l := find(refusesUs...); l != "" {
			return c.clientCertificate(r, tail(l))
		}
		if l := find("wrong version number", "plaintext broker listener", "ssl handshake failed"); l != "" {
			return &Error{What: "the TLS handshake failed: this listener does not speak TLS", Where: r.addr,
				Next: "set security.protocol to plaintext or sasl_plaintext, or use the port of the TLS listener", Err: errors.New(tail(l))}
		}
		if final && !speaksTLS(ctx, r.addr) {
			return silent(r, "check that a Kafka broker listens there; where it takes no TLS handshake, set security.protocol to plaintext or sasl_plaintext")
		}
	}
	if !strings.HasSuffix(proto, "ssl") && (final || len(lines) > 0) && speaksTLS(ctx, r.addr) {
		want := "ssl"
		if proto == "sasl_plaintext" {
			want = "sasl_ssl"
		}
		return &Error{What: "this listener speaks TLS, but security.protocol is " + proto, Where: r.addr,
			Next: "set security.protocol to " + want + " (sasl_ssl where it also wants a user), and ssl.ca.location if the authority is your own", Err: errTLSWanted}
	}
	if !strings.HasPrefix(proto, "sasl") {
		if l := find("might require sasl", "disconnected"); l != "" {
			return &Error{What: "the broker closes the connection: this listener seems to want SASL", Where: r.addr + ": security.protocol is " + proto,
				Next: "set security.protocol to sasl_" + proto + ", sasl.mechanisms, sasl.username and sasl.password", Err: errors.New(tail(l))}
		}
	}
	if final && len(lines) > 0 && find("timed out") == "" {
		return &Error{What: "the broker could not be talked to: " + tail(lines[len(lines)-1]), Where: r.addr,
			Next: "check security.protocol and the broker's log", Err: errNoBroker}
	}
	return nil
}

var errTLSWanted = errors.New("the listener wants TLS")

// tail drops librdkafka's "[thrd:…]: " prefix.
func tail(l string) string {
	if i := strings.Index(l, "]: "); i >= 0 {
		l = l[i+3:]
	}
	return oneLine(l)
}

// speaksTLS offers a handshake and reports whether it is taken up. Nothing is sent over it, so whom it trusts is no matter.
func speaksTLS(ctx context.Context, addr string) bool {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: &tls.Config{InsecureSkipVerify: true}}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		conn.Close()
		return true
	}
	var alert tls.AlertError // the other side speaks TLS, only not with us (it may want a client certificate)
	return errors.As(err, &alert)
}

// checkAdvertised dials what the brokers call themselves: bootstrap may work while nothing after it can.
func (c *Client) checkAdvertised(ctx context.Context, r reached, brokers []kafka.BrokerMetadata) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	errs := make([]error, len(brokers))
	var wg sync.WaitGroup
	for i, b := range brokers {
		wg.Go(func() {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(b.Host, strconv.Itoa(b.Port)))
			if errs[i] = err; err == nil {
				conn.Close()
			}
		})
	}
	wg.Wait()
	var bad []string
	for i, err := range errs {
		if err != nil {
			b := brokers[i]
			bad = append(bad, fmt.Sprintf("%s:%d for broker %d (%s)", b.Host, b.Port, b.ID, dialText(err)))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	if len(bad) < len(brokers) {
		c.log.Warn("some brokers cannot be reached", "bootstrap", r.addr, "advertised", strings.Join(bad, "; "))
		return nil
	}
	return &Error{What: "reached " + r.addr + ", but not the brokers that it names", Where: "it advertises " + strings.Join(bad, "; "),
		Next: "check advertised.listeners on the broker, or connect from where these names resolve", Err: errNoBroker}
}
