package model

import (
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// large is a model of about 5 MB.
func large(b *testing.B) *Model {
	var columns []kernels.Column
	for range 64 {
		columns = append(columns, column(0, 1))
	}
	m := tiny(b)
	m.Program = kernels.Autoencoder(columns, []int{1024, 1024}, []kernels.Activation{kernels.Tanh, kernels.ReLU})
	kernels.Initialise(m.Program, 1)
	m.Spec = numbers(64)
	m.SelfTest = SelfTest{Rows: [][]float32{make([]float32, 64)}, Scores: []float32{1}}
	return m
}

func BenchmarkEncode(b *testing.B) {
	m := large(b)
	b.SetBytes(int64(len(encode(b, m))))
	b.ReportAllocs()
	for b.Loop() {
		encode(b, m)
	}
}

func BenchmarkDecode(b *testing.B) {
	data := encode(b, large(b))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
