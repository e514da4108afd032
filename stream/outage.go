package stream

import (
	"context"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

const (
	watchEvery  = 2 * time.Second        // between two signs of life
	watchAgain  = 500 * time.Millisecond // between two tries while there is none
	watchTry    = time.Second            // one try
	watchMisses = 3                      // tries that a broker which holds its connection may leave without an answer
)

// Watch asks the cluster for a sign of life until ctx ends, and keeps since when there is none: see Silent. It logs an outage when
// it begins, every foldFor while it lasts, and its end. It asks by itself, since what a reader or a producer sees tells too little:
// an idle connection may be closed by the broker, and a frozen broker closes none.
func (c *Client) Watch(ctx context.Context) {
	misses := 0
	var first, said time.Time
	for {
		asked := time.Now()
		_, err := c.admin.GetMetadata(nil, false, int(watchTry.Milliseconds()))
		if ctx.Err() != nil {
			return
		}
		since := c.Silent()
		wait := watchEvery
		switch {
		case err == nil:
			misses = 0
			if !since.IsZero() {
				c.silent.Store(0)
				c.log.Info("the broker answers again", "brokers", c.Brokers(), "silent_ms", time.Since(since).Milliseconds())
			}
		default:
			if misses++; misses == 1 {
				first = asked
			}
			wait = watchAgain
			switch {
			case !since.IsZero():
				if time.Since(said) >= foldFor {
					said = time.Now()
					c.log.Warn("the broker still does not answer; trying on", "brokers", c.Brokers(), "silent_ms", time.Since(since).Milliseconds())
				}
			case code(err) == kafka.ErrTransport || misses >= watchMisses: // no connection; or one that nothing comes over
				said = time.Now()
				c.silent.Store(first.UnixMilli())
				c.log.Warn("broker lost; trying on", "brokers", c.Brokers(), "err", oneLine(c.scrub(err.Error())))
			}
		}
		pauseOr(ctx, c.down, wait)
		if ctx.Err() != nil {
			return
		}
	}
}

// Silent is since when no broker has answered, zero while one does. From what Watch keeps.
func (c *Client) Silent() time.Time {
	if ms := c.silent.Load(); ms != 0 {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}
