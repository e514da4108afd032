package stream

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

var (
	// ErrNoTopic: a topic does not exist. The error that wraps it names the nearest one that does.
	ErrNoTopic = errors.New("no such topic")
	// ErrFenced: a newer producer with the same transactional.id has taken over.
	ErrFenced = errors.New("fenced by a newer producer")
	// ErrNotMember: the group moved on while offsets were being committed. Nothing is lost: the partitions' next
	// owner reads from the last commit.
	ErrNotMember = errors.New("not a member of this generation of the group")
	// ErrClosed: the reader or producer was closed.
	ErrClosed = errors.New("closed")
)

// Error is a fault that a user can act on. It prints as at most three lines.
type Error struct {
	What  string // what happened
	Where string // to what: address, topic, partition, offset
	Next  string // what to do about it
	Err   error  // the cause; may be nil
}

func (e *Error) Error() string {
	lines := []string{oneLine(e.What)}
	for _, l := range []string{e.Where, e.Next} {
		if l != "" {
			lines = append(lines, "  "+oneLine(l))
		}
	}
	return strings.Join(lines, "\n")
}

func (e *Error) Unwrap() error { return e.Err }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// LostError: a bounded read could not reach its end.
type LostError struct {
	Topic     string
	Partition int32
	At, To    int64 // next offset to be read, and where the range ends
	Records   int64 // records of this partition read so far
	Err       error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the history of %s is incomplete\n  partition %d: stopped at offset %d of %d after %d records: %s\n"+
		"  nothing was kept of this run; check the broker and start again", e.Topic, e.Partition, e.At, e.To, e.Records, oneLine(errText(e.Err)))
}

func (e *LostError) Unwrap() error { return e.Err }

// RecreatedError: a followed topic was deleted and made anew, or its log was cut; reading goes on at its beginning.
type RecreatedError struct {
	Topic string
	Why   string
}

func (e *RecreatedError) Error() string {
	return fmt.Sprintf("topic %s was recreated (%s): reading it again from its beginning", e.Topic, e.Why)
}

// Unanswered tells whether an error is that no broker answered in time: what was asked may be asked again.
func Unanswered(err error) bool {
	switch code(err) {
	case kafka.ErrTimedOut, kafka.ErrTransport, kafka.ErrRequestTimedOut, kafka.ErrAllBrokersDown:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

func errText(err error) string {
	if err == nil {
		return "no reason given"
	}
	return err.Error()
}

func code(err error) kafka.ErrorCode {
	var ke kafka.Error
	if errors.As(err, &ke) {
		return ke.Code()
	}
	return kafka.ErrNoError
}

// fromProducer gives producer errors their meaning for callers of this package.
func fromProducer(err error) error {
	switch code(err) {
	case kafka.ErrFenced, kafka.ErrProducerFenced, kafka.ErrInvalidProducerEpoch:
		return fmt.Errorf("%w: %v", ErrFenced, err)
	}
	return err
}

var secretName = regexp.MustCompile(`(?i)password|secret|\.pem$|oauthbearer\.config|token|basic\.auth`)

// scrubber replaces the values of secret properties wherever they would show.
func scrubber(props map[string]string) func(string) string {
	var pairs []string
	for k, v := range props {
		if v != "" && secretName.MatchString(k) {
			pairs = append(pairs, v, "***")
		}
	}
	if pairs == nil {
		return func(s string) string { return s }
	}
	return strings.NewReplacer(pairs...).Replace
}
