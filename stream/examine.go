package stream

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// Rights are the operations that the broker allows this client on something, as ACLs name them: READ, WRITE, DESCRIBE.
// nil means that the broker does not say: it has no authorizer, or is older than 2.3.
type Rights map[string]bool

// Allows tells whether an operation is allowed, as far as the broker says.
func (r Rights) Allows(operation string) bool { return r == nil || r[operation] }

func rightsOf(operations []kafka.ACLOperation) Rights {
	if len(operations) == 0 {
		return nil
	}
	r := Rights{}
	for _, o := range operations {
		r[o.String()] = true
	}
	return r
}

// TopicState is what the broker says about a topic, but for its records.
type TopicState struct {
	Name       string
	Partitions int
	Leaderless []int32           // partitions without a leader, which can be neither read nor written
	Replicas   int               // of the partition with the fewest
	InSync     int               // replicas in sync, of the partition with the fewest
	Config     map[string]string // effective, defaults included; nil where this client may not read it
	Rights     Rights
}

// Describe asks for the state of a topic; a missing one is an error that wraps ErrNoTopic. It never creates one.
func (c *Client) Describe(ctx context.Context, topic string) (TopicState, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	r, err := c.admin.DescribeTopics(ctx, kafka.NewTopicCollectionOfTopicNames([]string{topic}), kafka.SetAdminOptionIncludeAuthorizedOperations(true))
	if err == nil && len(r.TopicDescriptions) == 1 {
		switch e := r.TopicDescriptions[0].Error; e.Code() {
		case kafka.ErrNoError:
		case kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopic:
			return TopicState{}, c.noTopic(ctx, topic)
		default:
			err = e
		}
	}
	if err != nil || len(r.TopicDescriptions) != 1 {
		return TopicState{}, c.adminErr("the topic could not be looked up", "topic "+topic, err)
	}
	d := r.TopicDescriptions[0]
	s := TopicState{Name: topic, Partitions: len(d.Partitions), Rights: rightsOf(d.AuthorizedOperations)}
	for i, p := range d.Partitions {
		if p.Leader == nil || p.Leader.ID < 0 {
			s.Leaderless = append(s.Leaderless, int32(p.Partition))
		}
		if i == 0 || len(p.Replicas) < s.Replicas {
			s.Replicas = len(p.Replicas)
		}
		if i == 0 || len(p.Isr) < s.InSync {
			s.InSync = len(p.Isr)
		}
	}
	config, err := c.TopicConfig(ctx, topic)
	if err != nil && !NotAllowed(err) {
		return s, err
	}
	s.Config = config
	return s, nil
}

// ClusterState is what the brokers say about themselves.
type ClusterState struct {
	ID      string
	Brokers int
	Rights  Rights // CREATE allows to make topics
}

// Cluster asks for the state of the cluster.
func (c *Client) Cluster(ctx context.Context) (ClusterState, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	r, err := c.admin.DescribeCluster(ctx, kafka.SetAdminOptionIncludeAuthorizedOperations(true))
	if err != nil {
		return ClusterState{}, c.adminErr("the cluster could not be described", c.Brokers(), err)
	}
	s := ClusterState{Brokers: len(r.Nodes), Rights: rightsOf(r.AuthorizedOperations)}
	if r.ClusterID != nil {
		s.ID = *r.ClusterID
	}
	return s, nil
}

// GroupRights are what this client may do with a consumer group. A group that does not exist yet answers too.
func (c *Client) GroupRights(ctx context.Context, group string) (Rights, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	for {
		r, err := c.admin.DescribeConsumerGroups(ctx, []string{group}, kafka.SetAdminOptionIncludeAuthorizedOperations(true))
		if err == nil && len(r.ConsumerGroupDescriptions) == 1 {
			d := r.ConsumerGroupDescriptions[0]
			if d.Error.Code() == kafka.ErrNoError {
				return rightsOf(d.AuthorizedOperations), nil
			}
			err = d.Error
		}
		switch code(err) {
		case kafka.ErrGroupIDNotFound:
			return nil, nil
		case kafka.ErrGroupAuthorizationFailed:
			return Rights{}, nil
		case kafka.ErrCoordinatorLoadInProgress, kafka.ErrCoordinatorNotAvailable, kafka.ErrNotCoordinator:
			if pause(ctx, 0) {
				continue
			}
		}
		return nil, c.adminErr("the group could not be described", "group "+group, err)
	}
}

// BrokerVersion says what the first bootstrap server that answers is, as "Kafka 4.1" or in words: a guess from the requests that
// it knows, since Kafka has no request that names it, and librdkafka keeps what it learns to itself. Over TLS the listener's certificate is not looked at
// again: Connect has done so, and nothing is sent but the question.
func (c *Client) BrokerVersion(ctx context.Context) (string, error) {
	answer, err := c.versions(ctx)
	if err != nil {
		return "", err
	}
	return versionText(answer), nil
}

func (c *Client) versions(ctx context.Context) (*kmsg.ApiVersionsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := probe(ctx, c.Brokers())
	if err != nil {
		return nil, err
	}
	var d interface {
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	} = &net.Dialer{}
	if strings.HasSuffix(strings.ToLower(c.o.Properties["security.protocol"]), "ssl") {
		t := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
		if cert, key := c.o.Properties["ssl.certificate.location"], c.o.Properties["ssl.key.location"]; cert != "" && key != "" {
			if pair, err := tls.LoadX509KeyPair(cert, key); err == nil { // without it the broker says that it wants one
				t.Config.Certificates = append(t.Config.Certificates, pair)
			}
		}
		d = t
	}
	conn, err := d.DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		conn.SetDeadline(at)
	}
	// Brokers before 2.4 know only the older form of the question, and answer the newer one with an error in the older form.
	for _, version := range []int16{3, 0} {
		answer, err := askVersions(conn, version)
		if err != nil {
			return nil, err
		}
		if answer.ErrorCode == 0 {
			return answer, nil
		}
	}
	return nil, errors.New("the broker does not say which requests it knows")
}

// BrokerConfig is the configuration of one of the brokers: they are expected to agree.
func (c *Client) BrokerConfig(ctx context.Context) (map[string]string, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	d, err := c.admin.DescribeCluster(ctx)
	if err != nil || len(d.Nodes) == 0 {
		return nil, c.adminErr("the cluster could not be described", c.Brokers(), err)
	}
	res, err := c.admin.DescribeConfigs(ctx, []kafka.ConfigResource{{Type: kafka.ResourceBroker, Name: strconv.Itoa(d.Nodes[0].ID)}})
	if err == nil && len(res) == 1 && res[0].Error.Code() != kafka.ErrNoError {
		err = res[0].Error
	}
	if err != nil || len(res) != 1 {
		return nil, c.adminErr("the broker's configuration could not be read", fmt.Sprintf("broker %d", d.Nodes[0].ID), err)
	}
	out := make(map[string]string, len(res[0].Config))
	for k, v := range res[0].Config {
		out[k] = v.Value
	}
	return out, nil
}

// versionText words the guess. Brokers that are no release of Apache Kafka match none, and are told by what they say of their features.
func versionText(answer *kmsg.ApiVersionsResponse) string {
	guess := kversion.FromApiVersionsResponse(answer).VersionGuess()
	if v, ok := strings.CutPrefix(guess, "v"); ok {
		return "Kafka " + v
	}
	if v, ok := strings.CutPrefix(guess, "at least v"); ok {
		return "Kafka " + v + " or newer"
	}
	for _, f := range answer.FinalizedFeatures {
		if f.Name == "metadata.version" {
			return fmt.Sprintf("not Apache Kafka by the requests that it knows (metadata.version %d)", f.MaxVersionLevel)
		}
	}
	return "not Apache Kafka by the requests that it knows"
}

// largestAnswer is far above what a broker says about its requests.
const largestAnswer = 1 << 20

func askVersions(conn net.Conn, version int16) (*kmsg.ApiVersionsResponse, error) {
	q := kmsg.NewPtrApiVersionsRequest()
	q.Version, q.ClientSoftwareName, q.ClientSoftwareVersion = version, clientID, "1"
	if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)).AppendRequest(nil, q, 1)); err != nil {
		return nil, err
	}
	var head [8]byte // length, and the number of the question
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 4 || n > largestAnswer {
		return nil, fmt.Errorf("an answer of %d bytes is none", n)
	}
	body := make([]byte, n-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	answer := kmsg.NewPtrApiVersionsResponse()
	answer.Version = version
	if len(body) >= 2 && binary.BigEndian.Uint16(body) != 0 {
		answer.Version = 0
	}
	return answer, answer.ReadFrom(body)
}
