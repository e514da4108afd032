package events

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/model"
)

// BenchmarkDecodeNext is a record of 18 numbers, without windows and with windows of so many records.
func BenchmarkDecodeNext(b *testing.B) {
	for _, n := range []int{0, 10, 100} {
		b.Run(fmt.Sprintf("rolling=%d", n), func(b *testing.B) {
			spec := model.Spec{Format: "json", Rolling: n}
			var record strings.Builder
			for i := range 18 {
				name := fmt.Sprintf("sensor_%d", i)
				spec.Fields = append(spec.Fields, model.Field{Name: name, Type: model.Number})
				fmt.Fprintf(&record, `,"%s":%d.%d`, name, 10+i, i)
			}
			value := []byte("{" + record.String()[1:] + "}")
			d := compiled(b, spec)
			w := NewWindows(d, 1000)
			row := make([]float32, d.Columns())
			keys := make([][]byte, 100)
			for i := range keys {
				keys[i] = fmt.Appendf(nil, "car-%d", i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.DecodeNext(w, keys[i%len(keys)], value, row)
			}
		})
	}
}
