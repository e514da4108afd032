package main

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/lapwing-stream/lapwing/stream"
)

// kafkaProperties are the names offered for a mistyped one. librdkafka decides what exists; a test holds the list
// against it.
var kafkaProperties = strings.Fields(`
	allow.auto.create.topics api.version.request api.version.request.timeout.ms batch.num.messages batch.size
	bootstrap.servers broker.address.family broker.address.ttl broker.version.fallback check.crcs client.dns.lookup
	client.id client.rack compression.codec compression.level compression.type connections.max.idle.ms
	coordinator.query.interval.ms debug delivery.timeout.ms enable.metrics.push enable.sasl.oauthbearer.unsecure.jwt
	enable.ssl.certificate.verification fetch.error.backoff.ms fetch.max.bytes fetch.message.max.bytes fetch.min.bytes
	fetch.queue.backoff.ms fetch.wait.max.ms heartbeat.interval.ms https.ca.location https.ca.pem linger.ms
	log.connection.close max.in.flight.requests.per.connection max.partition.fetch.bytes max.poll.interval.ms
	message.max.bytes message.send.max.retries message.timeout.ms metadata.max.age.ms metadata.recovery.strategy
	queue.buffering.max.kbytes queue.buffering.max.messages queue.buffering.max.ms queued.max.messages.kbytes
	queued.min.messages receive.message.max.bytes reconnect.backoff.max.ms reconnect.backoff.ms request.timeout.ms
	retries retry.backoff.max.ms retry.backoff.ms sasl.kerberos.keytab sasl.kerberos.kinit.cmd sasl.kerberos.principal
	sasl.kerberos.service.name sasl.mechanism sasl.mechanisms sasl.oauthbearer.client.id
	sasl.oauthbearer.client.secret sasl.oauthbearer.config sasl.oauthbearer.extensions sasl.oauthbearer.method
	sasl.oauthbearer.scope sasl.oauthbearer.token.endpoint.url sasl.password sasl.username security.protocol
	session.timeout.ms socket.connection.setup.timeout.ms socket.keepalive.enable socket.max.fails
	socket.nagle.disable socket.receive.buffer.bytes socket.send.buffer.bytes socket.timeout.ms ssl.ca.location
	ssl.ca.pem ssl.certificate.location ssl.certificate.pem ssl.cipher.suites ssl.crl.location ssl.curves.list
	ssl.endpoint.identification.algorithm ssl.engine.location ssl.key.location ssl.key.password ssl.key.pem
	ssl.keystore.location ssl.keystore.password ssl.providers ssl.sigalgs.list sticky.partitioning.linger.ms
	topic.metadata.propagation.max.ms topic.metadata.refresh.interval.ms transaction.timeout.ms`)

// secretFile at the end of a secret property's name means that the value is the name of the file which holds the secret.
const secretFile = ".file"

// secretFiles reads the secrets that stand in files. What ends the file's last line is no part of them.
func (l *loader) secretFiles() {
	for _, k := range slices.Sorted(maps.Keys(l.e.Kafka)) {
		property, ok := strings.CutSuffix(k, secretFile)
		if !ok || !secretProperty(property) {
			continue
		}
		name, where := l.e.Kafka[k], l.e.origin["kafka."+k]
		delete(l.e.Kafka, k)
		delete(l.e.origin, "kafka."+k)
		if _, both := l.e.Kafka[property]; both {
			l.fault(where, "kafka."+property+" is given, and a file for it too: "+name, "keep one of them")
			continue
		}
		data, err := os.ReadFile(name)
		secret := strings.TrimRight(string(data), "\r\n")
		switch {
		case err != nil:
			l.fault(where, "kafka."+k+" cannot be read: "+err.Error(), "name a file that this process may read")
			continue
		case secret == "":
			l.fault(where, "kafka."+k+" names an empty file: "+name, "write the secret into it")
			continue
		}
		l.e.Kafka[property] = secret
		l.e.origin["kafka."+property] = where + ", from " + name
	}
}

// kafka checks the kafka map where it was read, so that its faults carry a line and come with all others.
func (l *loader) kafka() {
	for _, k := range slices.Sorted(maps.Keys(l.e.Kafka)) {
		// Asking librdkafka makes a client, which takes a while; this one takes any text.
		if k == "bootstrap.servers" && l.e.Kafka[k] != "" {
			continue
		}
		o := stream.Options{Properties: map[string]string{k: l.e.Kafka[k]}}
		if k != "bootstrap.servers" {
			o.Properties["bootstrap.servers"] = "localhost:9092"
		}
		err := o.Validate()
		if err == nil {
			continue
		}
		where := l.e.origin["kafka."+k]
		var said *stream.Error
		switch {
		case !errors.As(err, &said):
			l.fault(where, "kafka."+k+": "+err.Error(), "")
		case strings.Contains(said.Where, "No such configuration property"):
			next := "librdkafka's CONFIGURATION.md lists them all"
			if n := nearest(k, kafkaProperties); n != "" {
				next = "did you mean " + n + "?"
			}
			l.fault(where, "kafka."+k+" is no property of the Kafka client", next)
		case said.Where != "":
			l.fault(where, strings.Replace(said.What, "kafka: ", "kafka.", 1)+": "+said.Where, said.Next)
		default:
			l.fault(where, strings.Replace(said.What, "kafka: ", "kafka.", 1), said.Next)
		}
	}
}
