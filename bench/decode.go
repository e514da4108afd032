package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/lapwing-stream/lapwing/bench/fleet"
	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
)

// fleetValues are n record values of a generated fleet, with the spec that Lapwing infers for them.
func fleetValues(n int) ([][]byte, model.Spec, error) {
	f, err := fleet.New(fleet.Options{Seed: 1, Cars: 100})
	if err != nil {
		return nil, model.Spec{}, err
	}
	values := make([][]byte, n)
	for i := range values {
		rec, _ := f.Next()
		values[i] = append([]byte(nil), rec.Value...)
	}
	spec, _, err := events.Infer(values[:min(n, 10_000)], events.InferOptions{Format: "json", Key: "car", TimeField: "time"})
	return values, spec, err
}

// Metrics of the decode suite.
const (
	decodeRecords = "records/s"
	decodeBytes   = "bytes/s"
)

func decodeSuite(ctx context.Context, r *run) error {
	values, spec, err := fleetValues(min(100_000, r.Records))
	if err != nil {
		return err
	}
	d, err := events.Compile(spec)
	if err != nil {
		return err
	}
	names, row := spec.Columns(), make([]float32, d.Columns())
	// same answers first
	for i, v := range values[:1000] {
		if got := d.Decode(v, row); got.Outcome != events.OK {
			return fmt.Errorf("record %d: %v %s", i, got.Outcome, got.Reason)
		}
		var m map[string]any
		if err := json.Unmarshal(v, &m); err != nil {
			return err
		}
		for j, name := range names {
			if want := m[name].(float64); math.Abs(float64(row[j])-want) > 1e-6*math.Abs(want) {
				return fmt.Errorf("%w: record %d, field %s: %v, encoding/json says %v", errDiffers, i, name, row[j], want)
			}
		}
	}
	var bytes int
	for _, v := range values {
		bytes += len(v)
	}
	rates := func(values [][]byte, took time.Duration) figures {
		n := 0
		for _, v := range values {
			n += len(v)
		}
		return figures{decodeRecords: float64(len(values)) / took.Seconds(), decodeBytes: float64(n) / took.Seconds()}
	}
	metrics := []metric{{name: decodeRecords, unit: "1/s"}, {name: decodeBytes, unit: "1/s"}}
	m, err := r.measure(ctx, cell{suite: "decode", kase: fmt.Sprintf("JSON, %d fields, %d B", len(names), bytes/len(values))}, metrics,
		subject{name: Ours, once: func(context.Context) (figures, error) {
			start := time.Now()
			for _, v := range values {
				if d.Decode(v, row).Outcome != events.OK {
					return nil, fmt.Errorf("a record did not decode")
				}
			}
			return rates(values, time.Since(start)), nil
		}},
		subject{name: "encoding/json", role: Peer, once: func(context.Context) (figures, error) {
			start := time.Now()
			n := len(values) / 10 // enough: it is slow
			for _, v := range values[:n] {
				var m map[string]any
				if err := json.Unmarshal(v, &m); err != nil {
					return nil, err
				}
				for j, name := range names {
					row[j] = float32(m[name].(float64))
				}
			}
			return rates(values[:n], time.Since(start)), nil
		}})
	if err != nil {
		return err
	}
	r.target("decode of 18-field JSON, bytes/s a core", 1e9, m.value(Ours, decodeBytes), "bytes/s", false)
	return nil
}
