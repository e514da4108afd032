package stream

import (
	"errors"
	"strings"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Right is what one ACL grants: operations on a resource.
type Right struct {
	Kind       string   // topic, group or transactional-id, as kafka-acls.sh calls it
	Name       string   // of the resource
	Prefix     bool     // Name is how the resources' names begin
	Operations []string // READ, WRITE, CREATE, ALTER, …
}

func (r Right) String() string {
	s := strings.Join(r.Operations, " and ") + " " + r.Kind + " " + r.Name
	if r.Prefix {
		s += "*"
	}
	return s
}

// Grant is the line that gives a right, at these brokers.
func (r Right) Grant(brokers string) string {
	var b strings.Builder
	b.WriteString("kafka-acls.sh --bootstrap-server " + brokers + " --add --allow-principal User:NAME")
	for _, o := range r.Operations {
		b.WriteString(" --operation " + strings.ToLower(o))
	}
	b.WriteString(" --" + r.Kind + " " + r.Name)
	if r.Prefix {
		b.WriteString(" --resource-pattern-type prefixed")
	}
	return b.String()
}

// lackError marks an error that has been told by its right: whoever is nearest to the request knows best.
type lackError struct{ error }

func (e *lackError) Unwrap() error { return e.error }

// Lacks says which right an error is for want of. The broker says only of what kind the resource is; who asked knows the rest. An
// error for another reason, of another kind or whose right has been named is given back as it is.
func Lacks(brokers string, err error, r Right) error {
	var named *lackError
	if err == nil || errors.As(err, &named) {
		return err
	}
	kind := ""
	switch code(err) {
	case kafka.ErrTopicAuthorizationFailed, kafka.ErrClusterAuthorizationFailed: // the latter: CREATE of a topic, to older brokers
		kind = "topic"
	case kafka.ErrGroupAuthorizationFailed:
		kind = "group"
	case kafka.ErrTransactionalIDAuthorizationFailed:
		kind = "transactional-id"
	}
	if kind != r.Kind {
		return err
	}
	return &Error{What: "this client may not " + r.String(), Where: oneLine(code(err).String()), Next: r.Grant(brokers), Err: &lackError{err}}
}

// lacks is Lacks at this client's brokers.
func (c *Client) lacks(err error, kind, name string, operations ...string) error {
	return Lacks(c.Brokers(), err, Right{Kind: kind, Name: name, Operations: operations})
}

// NotAllowed tells whether the broker refused for want of rights, or by a policy of its operator.
func NotAllowed(err error) bool {
	switch code(err) {
	case kafka.ErrTopicAuthorizationFailed, kafka.ErrGroupAuthorizationFailed, kafka.ErrClusterAuthorizationFailed, kafka.ErrPolicyViolation:
		return true
	}
	return false
}

// NoTransactionRight tells whether the broker refused for want of rights on a transactional id.
func NoTransactionRight(err error) bool {
	return code(err) == kafka.ErrTransactionalIDAuthorizationFailed
}
