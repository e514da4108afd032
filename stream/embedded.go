package stream

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"

	"github.com/twmb/franz-go/pkg/kfake"
)

// EmbeddedOptions configure the embedded broker.
type EmbeddedOptions struct {
	// Listen is the address to listen on. HOST:PORT; default 127.0.0.1:0, a free port.
	Listen string
	// Advertise is the address that clients are told to use. HOST:PORT; default what Listen became, with 127.0.0.1 in place of
	// "every interface".
	Advertise string
	// Dir keeps topics, groups and offsets across restarts. A folder; default "", in memory.
	Dir string
	// ClusterID is the cluster's name for itself, which models keep as part of their origin. Text; default the one that Dir keeps,
	// and random where there is none: offsets of a broker in memory mean nothing to the next one.
	ClusterID string
}

// Embedded is a broker for development and tests, inside this process, reached over TCP like any other.
// docs/embedded-broker.md says how it differs from Apache Kafka.
type Embedded struct {
	cluster *kfake.Cluster
	addr    string // as clients are told
	bound   string // as listened on
	dir     string
}

type advertised struct {
	net.Listener
	addr address
}

type address string

func (a address) Network() string   { return "tcp" }
func (a address) String() string    { return string(a) }
func (l advertised) Addr() net.Addr { return l.addr }

// Addr is the address for bootstrap.servers.
func (e *Embedded) Addr() string { return e.addr }

// Embed starts a broker.
func Embed(o EmbeddedOptions) (*Embedded, error) { return embed(o) }

func embed(o EmbeddedOptions, more ...kfake.Opt) (*Embedded, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		return nil, &Error{What: "the broker's address is not HOST:PORT", Where: fmt.Sprintf("%q", o.Listen), Next: "for example --listen 127.0.0.1:9092", Err: err}
	}
	if o.ClusterID == "" {
		o.ClusterID = rand.Text()
	}
	e := &Embedded{dir: o.Dir}
	if o.Dir != "" {
		if err := os.MkdirAll(o.Dir, 0o755); err != nil {
			return nil, &Error{What: "the broker's folder cannot be used", Where: err.Error(), Next: "name one that can be written with --data", Err: err}
		}
	}
	var listenErr error
	opts := append([]kfake.Opt{
		kfake.NumBrokers(1),
		kfake.BrokerConfigs(map[string]string{"default.replication.factor": "1"}), // it says 3 otherwise, and doctor would believe it
		kfake.ClusterID(o.ClusterID),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			l, err := net.Listen(network, o.Listen)
			if err != nil {
				listenErr = err
				return nil, err
			}
			adv := o.Advertise
			if adv == "" {
				host, _, _ := net.SplitHostPort(o.Listen)
				_, port, _ := net.SplitHostPort(l.Addr().String())
				if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
					host = "127.0.0.1"
				}
				adv = net.JoinHostPort(host, port)
			}
			e.addr, e.bound = adv, l.Addr().String()
			return advertised{l, address(adv)}, nil
		}),
	}, more...)
	if o.Dir != "" {
		opts = append(opts, kfake.DataDir(o.Dir))
	}
	c, err := kfake.NewCluster(opts...)
	if listenErr != nil {
		return nil, &Error{What: "the broker cannot listen", Where: listenErr.Error(), Next: "choose another port with --listen HOST:PORT", Err: listenErr}
	}
	if err != nil {
		return nil, &Error{What: "the embedded broker did not start: " + err.Error(), Where: o.Dir, Next: "if the folder is damaged, start with an empty one", Err: err}
	}
	e.cluster = c
	return e, nil
}

// Notice says in one line what happens to the data when the broker ends.
func (e *Embedded) Notice() string {
	if e.dir == "" {
		return "embedded broker on " + e.addr + ": in memory, nothing survives a restart (keep data with --data DIR); for development only"
	}
	return "embedded broker on " + e.addr + ": data in " + e.dir + "; for development only"
}

// Close ends the broker; with a folder, after writing its state.
func (e *Embedded) Close() error {
	e.cluster.Close()
	return nil
}
