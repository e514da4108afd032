//go:build e2e

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lapwing-stream/lapwing/bench/fleet"
)

// Five million records of 18 fields are 360 MB of rows; a training of 128 MiB and what stands beside it stays below 328.
func TestTrainMemory_Case8_07(t *testing.T) {
	f := embedded(t)
	f.trainWithin(12*time.Minute, 5_000_000, 128<<20, "--epochs", "1")
}

// Fifty million, 1 GiB, defaults, and a broker that keeps them on disk.
func TestSoakTraining(t *testing.T) {
	realKafka(t).trainWithin(4*time.Hour, 50_000_000, 1<<30)
}

// trainWithin fills a topic, trains on it as a process of its own and watches that process's peak of resident memory.
func (f *flow) trainWithin(limit time.Duration, records int, memory int64, more ...string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), limit)
	defer cancel()
	f.ctx = ctx
	const partitions = 6
	topic := "fleet" + f.suffix
	begun := time.Now()
	f.fillFleet(topic, partitions, records)
	f.t.Logf("%d records written in %v", records, time.Since(begun).Round(time.Second))

	begun = time.Now()
	var out, stderr bytes.Buffer
	cmd := f.command(append([]string{"train", "--json", "--topic", topic, "--model", topic, "--key", "car", "--time", "time",
		"--max-memory", strconv.FormatInt(memory, 10), "--spill-dir", f.dir}, more...)...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	peak, err := peakResident(cmd.Process.Pid, ended)
	if err != nil {
		f.t.Fatalf("%v\n%s", err, stderr.String())
	}
	var r struct {
		Rows struct {
			Used int `json:"used"`
		} `json:"rows"`
		Spilled   int64 `json:"spilled_bytes"`
		Published bool  `json:"published"`
	}
	lastJSON(f.t, out.String(), &r)
	f.t.Logf("peak resident memory %d MiB, of %d allowed; %d MiB spilled; %v", peak>>20, (memory+trainBeside)>>20, r.Spilled>>20, time.Since(begun).Round(time.Second))
	if r.Rows.Used != records || !r.Published {
		f.t.Errorf("%d rows used of %d, published %v", r.Rows.Used, records, r.Published)
	}
	if r.Spilled < int64(records)*18*4-memory {
		f.t.Errorf("%d bytes were spilled: the rows alone are %d", r.Spilled, records*18*4)
	}
	if peak > memory+trainBeside {
		f.t.Errorf("the peak of resident memory is %d MiB, %d are allowed", peak>>20, (memory+trainBeside)>>20)
	}
	if left, err := os.ReadDir(f.dir); err != nil || len(left) != 0 {
		f.t.Errorf("left behind: %v, %v", left, err)
	}
}

// fillFleet writes records of a generated fleet; what is made once is written again and again, since making takes longer.
func (f *flow) fillFleet(topic string, partitions, records int) {
	f.t.Helper()
	f.run(nil, "generate", "cars", "--count", "1", "--topic", topic, "--partitions", strconv.Itoa(partitions), "--json")
	fl, err := fleet.New(fleet.Options{Seed: 1, Cars: 100, Interval: 10 * time.Second})
	if err != nil {
		f.t.Fatal(err)
	}
	client := f.connect(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(100_000))
	made := make([]fleet.Record, 200_000)
	for i := range made {
		made[i], _ = fl.Next()
	}
	for i := 1; i < records && f.ctx.Err() == nil; i++ {
		rec := &made[i%len(made)]
		client.Produce(f.ctx, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Key: []byte(rec.Key), Value: rec.Value, Timestamp: rec.Time}, func(_ *kgo.Record, err error) {
			if err != nil {
				f.t.Error(err)
			}
		})
	}
	if err := client.Flush(f.ctx); err != nil || f.t.Failed() {
		f.t.Fatalf("writing %d records: %v", records, err)
	}
}

// peakResident follows a process to its end: the highest resident memory that the kernel has seen, bytes.
func peakResident(pid int, ended <-chan error) (peak int64, err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err == nil && peak == 0 {
				err = fmt.Errorf("/proc says nothing of process %d", pid)
			}
			return peak, err
		case <-tick.C:
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			for line := range strings.Lines(string(status)) {
				if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
					kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
					if err != nil {
						return 0, err
					}
					peak = kib << 10
				}
			}
		}
	}
}
