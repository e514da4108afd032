package main

import (
	"testing"

	"github.com/lapwing-stream/lapwing/stream"
)

// The demo's zeros are worth as much as the count that finds them: each fault must be seen, and only it.
func TestTallySeesEachFault(t *testing.T) {
	began := []stream.Range{{Partition: 0, From: 0, To: 10}, {Partition: 1, From: 0, To: 5}}
	input := []stream.Range{{Partition: 0, From: 0, To: 14}, {Partition: 1, From: 0, To: 6}}
	type at struct {
		partition int32
		offset    int64
	}
	for name, tc := range map[string]struct {
		scores                                []at
		dropped, doubled, outOfOrder, strange int64
	}{
		"as it should be":   {scores: []at{{0, 10}, {1, 5}, {0, 11}, {0, 12}, {0, 13}}},
		"one missing":       {scores: []at{{0, 10}, {1, 5}, {0, 12}, {0, 13}}, dropped: 1},
		"a partition":       {scores: []at{{0, 10}, {0, 11}, {0, 12}, {0, 13}}, dropped: 1},
		"one twice":         {scores: []at{{0, 10}, {0, 11}, {0, 11}, {0, 12}, {0, 13}, {1, 5}}, doubled: 1},
		"an old one again":  {scores: []at{{0, 10}, {0, 11}, {0, 12}, {0, 13}, {0, 10}, {1, 5}}, doubled: 1},
		"two change places": {scores: []at{{0, 10}, {0, 12}, {0, 11}, {0, 13}, {1, 5}}, outOfOrder: 1},
		"of the history":    {scores: []at{{0, 9}, {0, 10}, {0, 11}, {0, 12}, {0, 13}, {1, 5}}, strange: 1},
		"of no record":      {scores: []at{{0, 10}, {0, 11}, {0, 12}, {0, 13}, {0, 14}, {1, 5}}, strange: 1},
		"none":              {dropped: 5},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTally(began, input)
			for _, s := range tc.scores {
				c.score(demoScore{Partition: s.partition, Offset: s.offset, Version: 1})
			}
			if c.in != 5 || c.out != int64(len(tc.scores)) || c.dropped() != tc.dropped || c.doubled != tc.doubled || c.outOfOrder != tc.outOfOrder || c.strange != tc.strange {
				t.Errorf("in %d, out %d, dropped %d, doubled %d, out of order %d, strange %d; want 5, %d, %+v",
					c.in, c.out, c.dropped(), c.doubled, c.outOfOrder, c.strange, len(tc.scores), tc)
			}
		})
	}
}

func TestScoreHead(t *testing.T) {
	offset, version, err := scoreHead([]byte(`{"v":1,"model":"cars","version":12,"topic":"cars","partition":3,"offset":1234,"key":"car-17"}`))
	if err != nil || offset != 1234 || version != 12 {
		t.Errorf("%d, %d, %v", offset, version, err)
	}
	if _, _, err := scoreHead([]byte(`{"v":1}`)); err == nil {
		t.Error("a score without offset and version was read")
	}
}

// Keys must meet where Java's producer puts them. The hashes are those that Kafka's own tests of murmur2 expect.
func TestPartitionOfIsKafkas(t *testing.T) {
	for key, hash := range map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829, "abc": 479470107} {
		for _, n := range []int{1, 6, 1000} {
			if got, want := partitionOf(key, n), (hash&0x7fffffff)%int32(n); got != want {
				t.Errorf("%s of %d partitions: %d, want %d", key, n, got, want)
			}
		}
	}
}
