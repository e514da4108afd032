package server

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/events"
)

// TestTextIsTheLibrarys: what is written by hand for speed is what the standard library writes.
func TestTextIsTheLibrarys(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	times := []int64{minTime, maxTime, 0, -1, 951_782_399_999, 951_782_400_000, 951_868_800_000, -62162035200000, -62162035200001, 4102444800000}
	for day := int64(-720_000); day < 2_900_000; day += 7 {
		times = append(times, day*86_400_000+rng.Int64N(86_400_000))
	}
	var near writtenSecond
	for _, ms := range times {
		for _, ms := range []int64{ms, ms + rng.Int64N(1000), ms - rng.Int64N(1000)} {
			for _, ok := range []bool{true, false, true} {
				if got, want := near.appendTime(nil, ms, ok), appendTime(nil, ms, ok); string(got) != string(want) {
					t.Fatalf("%d ms near the one before: %s, not %s", ms, got, want)
				}
			}
		}
		if ms < minTime || ms > maxTime {
			continue
		}
		want := time.UnixMilli(ms).UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`)
		if got := appendTime(nil, ms, true); string(got) != string(want) {
			t.Fatalf("%d ms: %s, not %s", ms, got, want)
		}
	}
	fixed := func(f float64, digits int) {
		if got, want := appendFixed(nil, f, digits), strconv.AppendFloat(nil, f, 'f', digits, 64); string(got) != string(want) {
			t.Fatalf("%v to %d places: %s, not %s", f, digits, got, want)
		}
	}
	for digits := range 9 {
		for _, f := range []float64{0, math.Copysign(0, -1), 100, 1000, 1000.0625, .5, 1.5, 2.5, .125, 99.99999995, 99.9999999999, 1e-9, 5e-8, 4.99995, -1, 1e9} {
			fixed(f, digits)
		}
		for range 20_000 {
			f := 100 * rng.Float64()
			fixed(f, digits)
			fixed(math.Round(f*1000)/1000, digits)
			fixed(math.Round(f*1024)/1024, digits) // ties among them
		}
	}
	const letters = "abz09-_. \"\\/\x00\x1f\x7f\x80\xc3\xa9\xff\n\t"
	for range 20_000 {
		b := make([]byte, rng.IntN(12))
		for i := range b {
			b[i] = letters[rng.IntN(len(letters))]
		}
		var back string
		want := []rune(string(b)) // bytes that are not UTF-8 become U+FFFD
		if got := events.AppendString(nil, b); json.Unmarshal(got, &back) != nil || back != string(want) {
			t.Fatalf("%q is written as %s", b, got)
		}
	}
}
