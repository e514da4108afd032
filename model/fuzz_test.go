package model

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode: no panic, and what decodes encodes to the same bytes: nothing of a file is dropped or read in two
// ways. The same means the same message, since protobuf leaves the order of fields on the wire free, with the
// name of the free dimension set.
func FuzzDecode(f *testing.F) {
	good := encode(f, tiny(f))
	f.Add(good)
	for _, name := range []string{"tiny", "blended", "activated"} {
		golden, err := os.ReadFile("testdata/" + name + ".onnx")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(golden)
	}
	pruned, err := Prune(good, "score")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pruned)
	for i := 1; i < 16; i++ {
		f.Add(good[:i*len(good)/16])
	}
	r := rand.New(rand.NewPCG(10, 11))
	two, three := encode(f, blended(f)), encode(f, activated(f))
	for i := range 128 {
		flipped := bytes.Clone([][]byte{good, two, three}[i%3])
		flipped[r.IntN(len(flipped))] ^= 1 << r.IntN(8)
		f.Add(flipped)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if text, err := Dump(data); err == nil && text == "" {
			t.Error("an empty dump")
		}
		m, err := Decode(data)
		if err != nil {
			return
		}
		again := encode(t, m)
		file, err := unmarshal(data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := checkShapes(file.Graph); err != nil {
			t.Fatal(err)
		}
		same, err := marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, same) {
			t.Error("a decoded file encodes to something else")
		}
	})
}

// FuzzProgram: a valid program is the same after encoding and decoding.
func FuzzProgram(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		p := randomProgram(rand.New(rand.NewPCG(seed, 12)))
		m := tiny(t)
		m.Program, m.Spec = p, numbers(p.Width)
		m.SelfTest = SelfTest{Rows: [][]float32{make([]float32, p.Width)}, Scores: []float32{1}}
		data := encode(t, m)
		back, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, back.Program); diff != "" {
			t.Error(diff)
		}
		if !bytes.Equal(data, encode(t, back)) {
			t.Error("other bytes")
		}
	})
}
