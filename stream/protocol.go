package stream

import (
	"context"
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TransactionProtocol says by which rules transactions are kept (KIP-890). The second version gives each transaction an epoch of its
// own, so that a request which was delayed in the network cannot touch a later one. It takes brokers and client.
type TransactionProtocol struct {
	Brokers    int    // transaction.version that the brokers have switched on; 0: none, or they do not say, as before Kafka 4.0
	Client     int    // what this client speaks: 1 or 2
	Unverified string // why the brokers take a record without asking whether its transaction is open; "": they ask, as from Kafka 3.6 on
}

// clientProtocol is what librdkafka speaks: its EndTxn is of version 1, the epoch of its own comes with version 5. To be looked up
// again whenever rdkafkaVersion changes, in rd_kafka_EndTxnRequest.
const clientProtocol = 1

// verifying is the first version of AddPartitionsToTxn by which brokers ask each other whether a transaction is open.
const verifying = 4

// InForce is the version by which this client's transactions are kept, 1 or 2. Levels 0 and 1 of transaction.version differ only in how a
// coordinator writes its log.
func (p TransactionProtocol) InForce() int {
	return max(1, min(p.Brokers, p.Client))
}

func (p TransactionProtocol) String() string {
	brokers := "the brokers do not name one"
	if p.Brokers > 0 {
		brokers = fmt.Sprintf("the brokers have transaction.version %d", p.Brokers)
	}
	_, library := kafka.LibraryVersion()
	verified := "they verify that a record's transaction is open"
	if p.Unverified != "" {
		verified = "they do not verify that a record's transaction is open: " + p.Unverified
	}
	return fmt.Sprintf("transaction protocol v%d is in force: %s, librdkafka %s speaks v%d; %s", p.InForce(), brokers, library, p.Client, verified)
}

// TransactionProtocol asks the brokers, and knows this client.
func (c *Client) TransactionProtocol(ctx context.Context) (TransactionProtocol, error) {
	p := TransactionProtocol{Client: clientProtocol, Unverified: "they are older than Kafka 3.6"}
	answer, err := c.versions(ctx)
	if err != nil {
		return p, err
	}
	for _, f := range answer.FinalizedFeatures {
		if f.Name == "transaction.version" {
			p.Brokers = int(f.MaxVersionLevel)
		}
	}
	for _, k := range answer.ApiKeys {
		if k.ApiKey == kmsg.AddPartitionsToTxn.Int16() && k.MaxVersion >= verifying {
			p.Unverified = ""
		}
	}
	if p.Unverified == "" {
		// It may be switched off. Who may not look is told what is usual.
		if config, err := c.BrokerConfig(ctx); err == nil && config[Verification] == "false" {
			p.Unverified = Verification + " is false"
		}
	}
	return p, nil
}

// Verification is the brokers' setting that switches the question for a record's transaction off.
const Verification = "transaction.partition.verification.enable"
