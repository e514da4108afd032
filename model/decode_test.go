package model

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/lapwing-stream/lapwing/model/onnxpb"
)

// change decodes the tiny model's file after a change to it.
func change(t *testing.T, f func(*pb.ModelProto)) (*Model, error) {
	t.Helper()
	return changed(t, tiny(t), f)
}

func changed(t *testing.T, m *Model, f func(*pb.ModelProto)) (*Model, error) {
	t.Helper()
	file, err := unmarshal(encode(t, m))
	if err != nil {
		t.Fatal(err)
	}
	f(file)
	data, err := marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return Decode(data)
}

func node(file *pb.ModelProto, name string) *pb.NodeProto {
	for _, n := range file.Graph.Node {
		if n.Name == name {
			return n
		}
	}
	panic("no node " + name)
}

func constant(file *pb.ModelProto, name string) *pb.TensorProto {
	for _, t := range file.Graph.Initializer {
		if t.Name == name {
			return t
		}
	}
	panic("no constant " + name)
}

func setMeta(file *pb.ModelProto, key, value string) {
	for _, p := range file.MetadataProps {
		if p.Key == key {
			p.Value = value
		}
	}
}

func dims(v *pb.ValueInfoProto) *pb.TensorShapeProto { return v.GetType().GetTensorType().GetShape() }

func sized(n int64) *pb.TensorShapeProto_Dimension {
	return &pb.TensorShapeProto_Dimension{Value: &pb.TensorShapeProto_Dimension_DimValue{DimValue: n}}
}

func named(s string) *pb.TensorShapeProto_Dimension {
	return &pb.TensorShapeProto_Dimension{Value: &pb.TensorShapeProto_Dimension_DimParam{DimParam: s}}
}

// TestDecodeRefuses: whatever differs from what lapwing writes is refused by name.
func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*pb.ModelProto)
		want   []string
	}{
		{"newer format", func(f *pb.ModelProto) { setMeta(f, keyFormat, "2") }, []string{"lapwing.format 2 is newer than 1", "update lapwing"}},
		{"format 0", func(f *pb.ModelProto) { setMeta(f, keyFormat, "0") }, []string{`lapwing.format is "0"`}},
		{"format 01", func(f *pb.ModelProto) { setMeta(f, keyFormat, "01") }, []string{"lapwing.format"}},
		{"newer IR", func(f *pb.ModelProto) { f.IrVersion = 10 }, []string{"IR version is 10", "8"}},
		{"opset 30, Case 5.02", func(f *pb.ModelProto) { f.OpsetImport[0].Version = 30 }, []string{"opset 30 of domain \"ai.onnx\"", "only 17"}},
		{"opset 13, Case 5.02", func(f *pb.ModelProto) { f.OpsetImport[0].Version = 13 }, []string{"opset 13"}},
		{"second domain", func(f *pb.ModelProto) {
			f.OpsetImport = append(f.OpsetImport, &pb.OperatorSetIdProto{Domain: "com.microsoft", Version: 1})
		}, []string{"opset"}},
		{"no opset", func(f *pb.ModelProto) { f.OpsetImport = nil }, []string{"names no opset"}},
		{"no graph", func(f *pb.ModelProto) { f.Graph = nil }, []string{"no graph"}},
		{"function", func(f *pb.ModelProto) { f.Functions = []*pb.FunctionProto{{Name: "Relu"}} }, []string{`function of its own ("Relu")`}},
		{"another producer", func(f *pb.ModelProto) { f.ProducerName = "pytorch" }, []string{`producer is "pytorch"`}},
		{"documentation", func(f *pb.ModelProto) { f.DocString = "made at noon" }, []string{"fields that lapwing does not write"}},

		{"unknown operator", func(f *pb.ModelProto) {
			f.Graph.Node = append(f.Graph.Node, &pb.NodeProto{OpType: "Sin", Name: "wave", Input: []string{"score"}, Output: []string{"wave"}})
		}, []string{"step 'Sin' is not known to this version; update lapwing"}},
		{"unknown step", func(f *pb.ModelProto) {
			for _, n := range f.Graph.Node {
				n.Name = strings.Replace(n.Name, "4.norm/", "4.spectrum/", 1)
			}
		}, []string{"step 'spectrum' is not known to this version; update lapwing"}},
		{"unknown activation", func(f *pb.ModelProto) { node(f, "1.gemm/activation").OpType = "Softplus" }, []string{"activation 'Softplus'", "update lapwing"}},
		{"other operator", func(f *pb.ModelProto) { node(f, "0.map/above").OpType = "Min" }, []string{"0.map/above", "Min", "Max"}},
		{"other domain", func(f *pb.ModelProto) { node(f, "0.map/above").Domain = "x" }, []string{"0.map/above"}},
		{"attribute", func(f *pb.ModelProto) { node(f, "1.gemm/gemm").Attribute[0].I = 0 }, []string{"1.gemm/gemm", "transB 0", "transB 1"}},
		{"more attributes", func(f *pb.ModelProto) {
			n := node(f, "1.gemm/gemm")
			n.Attribute = append(n.Attribute, &pb.AttributeProto{Name: "alpha", Type: pb.AttributeProto_FLOAT, F: 2})
		}, []string{"alpha 2"}},
		{"a graph in a node", func(f *pb.ModelProto) {
			n := node(f, "1.gemm/gemm")
			n.Attribute = append(n.Attribute, &pb.AttributeProto{Name: "body", Type: pb.AttributeProto_GRAPH, G: &pb.GraphProto{}})
		}, []string{"body of type GRAPH"}},
		{"operands exchanged", func(f *pb.ModelProto) { n := node(f, "0.map/offset"); n.Input[0], n.Input[1] = n.Input[1], n.Input[0] }, []string{"0.map/offset"}},
		{"a node too many", func(f *pb.ModelProto) {
			f.Graph.Node = append(f.Graph.Node, &pb.NodeProto{OpType: "Identity", Name: "7.norm/more", Input: []string{"score"}, Output: []string{"7"}})
		}, []string{"step 'Identity' is not known"}},
		{"a node of its step too many", func(f *pb.ModelProto) {
			last := len(f.Graph.Node) - 3
			f.Graph.Node = append(f.Graph.Node[:last:last], append([]*pb.NodeProto{
				{OpType: "Identity", Name: "6.map/more", Input: []string{"6.map"}, Output: []string{"more"}}}, f.Graph.Node[last:]...)...)
		}, []string{"6.map/more"}},
		{"a name of megabytes and lines", func(f *pb.ModelProto) { node(f, "1.gemm/gemm").Input[0] = strings.Repeat("x\n", 1<<20) }, []string{"Gemm"}},
		{"steps out of order", func(f *pb.ModelProto) {
			for _, n := range f.Graph.Node {
				n.Name = strings.Replace(n.Name, "6.map/", "9.map/", 1)
			}
		}, []string{"9.map/rows", "where step 6 begins"}},

		{"constant missing", func(f *pb.ModelProto) { constant(f, "0.map:lo").Name = "lo"; node(f, "0.map/above").Input[1] = "lo" }, []string{`lacks its constant "0.map:lo"`}},
		{"constant unused", func(f *pb.ModelProto) {
			f.Graph.Initializer = append(f.Graph.Initializer, &pb.TensorProto{Name: "more", DataType: int32(float32s)})
			constant(f, "more").RawData = make([]byte, 4)
		}, []string{`constant "more" belongs to no step`}},
		{"constant of another type", func(f *pb.ModelProto) { constant(f, "1.gemm:bias").DataType = int32(int32s) }, []string{`"1.gemm:bias" is INT32`, "FLOAT"}},
		{"constant of unknown type", func(f *pb.ModelProto) { constant(f, "1.gemm:bias").DataType = 10 }, []string{`"1.gemm:bias" is of type FLOAT16`}},
		{"constant not a number", func(f *pb.ModelProto) { copy(constant(f, "1.gemm:bias").RawData, float32Bytes([]float32{inf - inf})) }, []string{"step 1 (gemm): bias 0 is NaN"}},
		{"derived constant", func(f *pb.ModelProto) { constant(f, "0.map:first").RawData[0]++ }, []string{`"0.map:first" does not hold what follows`}},
		{"slope between knots", func(f *pb.ModelProto) { copy(constant(f, "0.map:slope").RawData[24:], float32Bytes([]float32{9})) }, []string{`"0.map:slope" does not hold`}},
		{"knots fall", func(f *pb.ModelProto) { copy(constant(f, "0.map:x").RawData[20:], float32Bytes([]float32{9})) }, []string{"step 0 (map): column 1", "do not rise"}},
		{"no knot", func(f *pb.ModelProto) { copy(constant(f, "0.map:knots").RawData, float32Bytes([]float32{inf})) }, []string{"no knot in column 0"}},
		{"mask of 2", func(f *pb.ModelProto) { copy(constant(f, "0.map:log").RawData, []byte{2}) }, []string{"0.map:log"}},
		{"data beside raw data", func(f *pb.ModelProto) { constant(f, "1.gemm:bias").FloatData = []float32{1, 2} }, []string{"fields that lapwing does not write"}},
		{"float_data in place of raw data", func(f *pb.ModelProto) {
			c := constant(f, "1.gemm:bias")
			c.RawData, c.FloatData = nil, []float32{1, 2}
		}, []string{`"1.gemm:bias" has the shape [2], which needs 8 bytes of raw data; 0 are there`}},
		{"shape beyond the data", func(f *pb.ModelProto) { constant(f, "1.gemm:weight").Dims[0] = 1 << 40 }, []string{`"1.gemm:weight" has the shape [1099511627776 3]`}},
		{"shape that overflows", func(f *pb.ModelProto) { constant(f, "1.gemm:weight").Dims = []int64{1 << 30, 1 << 30, 1 << 30} }, []string{"beyond 2 GB"}},
		{"negative shape", func(f *pb.ModelProto) { constant(f, "1.gemm:weight").Dims = []int64{-2, -3} }, []string{"shape [-2 -3]"}},
		{"empty", func(f *pb.ModelProto) { c := constant(f, "0.map:x"); c.Dims[0], c.RawData = 0, nil }, []string{"tables of 0 entries"}},
		{"no outputs of a Gemm", func(f *pb.ModelProto) {
			for _, name := range []string{"1.gemm:weight", "1.gemm:bias"} {
				c := constant(f, name)
				c.Dims[0], c.RawData = 0, nil
			}
		}, []string{"step 1 (gemm)"}},
		{"weights of another shape", func(f *pb.ModelProto) { constant(f, "1.gemm:weight").Dims = []int64{3, 2} }, []string{"1.gemm:bias"}},

		{"output renamed", func(f *pb.ModelProto) { f.Graph.Output[0].Name = "scores" }, []string{`outputs ["scores" "reconstruction" "contributions"]`}},
		{"output of another type", func(f *pb.ModelProto) { f.Graph.Output[0].GetType().GetTensorType().ElemType = 11 }, []string{`output "score" is double`}},
		{"output of another width", func(f *pb.ModelProto) { dims(f.Graph.Output[1]).Dim[1] = sized(4) }, []string{`output "reconstruction" is float ["N", 4]`}},
		{"an output too many", func(f *pb.ModelProto) { f.Graph.Output = append(f.Graph.Output, shape("0.map", 3)) }, []string{"outputs"}},
		{"score of the wrong width", func(f *pb.ModelProto) { node(f, "output/score").Input[0] = "5.split" }, []string{"score (value 6) has width 3"}},
		{"two inputs", func(f *pb.ModelProto) { f.Graph.Input = append(f.Graph.Input, shape("more", 3)) }, []string{`inputs ["features" "more"]`}},
		{"value_info", func(f *pb.ModelProto) { f.Graph.ValueInfo = append(f.Graph.ValueInfo, shape("0.map", 3)) }, []string{"fields that lapwing does not write"}},

		{"metadata key", func(f *pb.ModelProto) { f.MetadataProps[3].Key = "author" }, []string{"no lapwing.quantiles in metadata"}},
		{"metadata key too many", func(f *pb.ModelProto) {
			f.MetadataProps = append(f.MetadataProps, &pb.StringStringEntryProto{Key: "author"})
		}, []string{`metadata "author" is not known`}},
		{"metadata twice", func(f *pb.ModelProto) { f.MetadataProps = append(f.MetadataProps, f.MetadataProps[0]) }, []string{"holds lapwing.format twice"}},
		{"metadata reordered", func(f *pb.ModelProto) {
			p := f.MetadataProps
			p[2], p[3] = p[3], p[2]
		}, []string{"fields that lapwing does not write"}},
		{"metadata respelled", func(f *pb.ModelProto) { setMeta(f, keyThreshold, " 3.5") }, []string{"lapwing.threshold: not in the form that lapwing writes"}},
		{"metadata with a new field", func(f *pb.ModelProto) { setMeta(f, keySelfTest, `{"rows":[],"scores":[],"tries":1}`) }, []string{`lapwing.selftest`, `"tries"`, "update lapwing"}},
		{"metadata cut short", func(f *pb.ModelProto) { setMeta(f, keyLineage, `{"topic":`) }, []string{"lapwing.lineage", "ends early"}},
		{"metadata of objects", func(f *pb.ModelProto) { setMeta(f, keyLineage, `{"notes":[`+strings.Repeat("{},", 20000)+`{}]}`) }, []string{"lapwing.lineage", "20002 objects"}},
		{"a field twice", func(f *pb.ModelProto) { setMeta(f, keyLineage, `{"topic":"a","topic":"b"}`) }, []string{"lapwing.lineage"}},
		{"quantile of three", func(f *pb.ModelProto) { setMeta(f, keyQuantiles, `[[0,1,2]]`) }, []string{"lapwing.quantiles"}},
		{"threshold null", func(f *pb.ModelProto) { setMeta(f, keyThreshold, `null`) }, []string{"lapwing.threshold"}},
		{"column count", func(f *pb.ModelProto) {
			setMeta(f, keySpec, `{"format":"json","fields":[{"name":"a","type":"number"}]}`)
		}, []string{"makes 1 columns, the program takes 3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := change(t, c.change)
			if err == nil {
				t.Fatal("decoded")
			}
			if len(err.Error()) > 800 || strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
		})
	}
}

// Case 5.05: the first dimension may have any name, none, or be 1; other shapes are refused with the shape printed.
func TestInputShape_Case5_05(t *testing.T) {
	for _, c := range []struct {
		first *pb.TensorShapeProto_Dimension
		ok    bool
	}{
		{named("N"), true}, {named("batch_size"), true}, {&pb.TensorShapeProto_Dimension{}, true}, {sized(1), true}, {sized(2), false},
	} {
		m, err := change(t, func(f *pb.ModelProto) {
			for _, v := range append(f.Graph.Input, f.Graph.Output...) {
				dims(v).Dim[0] = c.first
			}
		})
		if c.ok {
			if err != nil {
				t.Errorf("%v: %v", c.first, err)
			} else if !bytes.Equal(encode(t, m), encode(t, tiny(t))) {
				t.Errorf("%v: encodes to other bytes", c.first)
			}
		} else if err == nil || !strings.Contains(err.Error(), "float [2, 3]") {
			t.Errorf("%v: %v", c.first, err)
		}
	}
	for _, c := range []struct {
		dims []*pb.TensorShapeProto_Dimension
		want string
	}{
		{[]*pb.TensorShapeProto_Dimension{sized(3)}, "float [3]"},
		{[]*pb.TensorShapeProto_Dimension{named("N"), sized(3), sized(1)}, `float ["N", 3, 1]`},
		{[]*pb.TensorShapeProto_Dimension{named("N"), named("D")}, `float ["N", "D"]`},
		{[]*pb.TensorShapeProto_Dimension{named("N"), {}}, `float ["N", ?]`},
		{[]*pb.TensorShapeProto_Dimension{named("N"), sized(0)}, `float ["N", 0]`},
		{[]*pb.TensorShapeProto_Dimension{named("N"), sized(1 << 50)}, `float ["N", 1125899906842624]`},
		{nil, `float []`},
	} {
		_, err := change(t, func(f *pb.ModelProto) { dims(f.Graph.Input[0]).Dim = c.dims })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.want, err)
		}
	}
	if _, err := change(t, func(f *pb.ModelProto) { f.Graph.Input[0].Type = nil }); err == nil || !strings.Contains(err.Error(), "no shape") {
		t.Error(err)
	}
}

// Case 5.07: malformed graphs are refused, naming node and tensor.
func TestMalformedGraph_Case5_07(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*pb.ModelProto)
		want   []string
	}{
		{"Gemm with one input", func(f *pb.ModelProto) { n := node(f, "1.gemm/gemm"); n.Input = n.Input[:1] }, []string{`Gemm "1.gemm/gemm" (0.map)`}},
		{"Gemm without inputs", func(f *pb.ModelProto) { node(f, "1.gemm/gemm").Input = nil }, []string{`"1.gemm/gemm" (Gemm) has 0 inputs`}},
		{"unknown tensor", func(f *pb.ModelProto) { node(f, "1.gemm/gemm").Input[0] = "nowhere" }, []string{`"1.gemm/gemm" (Gemm) reads "nowhere", which nothing makes`}},
		{"unnamed tensor", func(f *pb.ModelProto) { node(f, "1.gemm/gemm").Input[0] = "" }, []string{`reads "", which nothing makes`}},
		{"cycle", func(f *pb.ModelProto) { node(f, "1.gemm/gemm").Input[0] = "2.gemm" }, []string{`"1.gemm/gemm" (Gemm) reads "2.gemm" before node "2.gemm/gemm" makes it, or in a cycle`}},
		{"itself", func(f *pb.ModelProto) { node(f, "1.gemm/gemm").Input[0] = "1.gemm/gemm" }, []string{"in a cycle"}},
		{"output twice", func(f *pb.ModelProto) { node(f, "3.diff/sub").Output[0] = "2.gemm" }, []string{`"3.diff/sub" (Sub) makes "2.gemm", which is there already`}},
		{"a constant's name", func(f *pb.ModelProto) { node(f, "3.diff/sub").Output[0] = "2.gemm:bias" }, []string{`makes "2.gemm:bias", which is there already`}},
		{"constant twice", func(f *pb.ModelProto) { constant(f, "2.gemm:bias").Name = "1.gemm:bias" }, []string{`two tensors are named "1.gemm:bias"`}},
		{"output that no node makes", func(f *pb.ModelProto) { node(f, "output/score").Output[0] = "elsewhere" }, []string{`output "score" is made by no node`}},
		{"no nodes", func(f *pb.ModelProto) { f.Graph.Node = nil }, []string{"made by no node"}},
		{"a step's inner tensor", func(f *pb.ModelProto) { node(f, "2.gemm/gemm").Input[0] = "1.gemm/gemm" }, []string{`input 0 is "1.gemm/gemm", which is neither the features nor a step's result`}},
		{"a nameless node", func(f *pb.ModelProto) { node(f, "1.gemm/gemm").Name = "" }, []string{"step 'Gemm' is not known"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := change(t, c.change)
			if err == nil {
				t.Fatal("decoded")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
		})
	}
}

// Case 5.08: data in other files is refused always; nothing is opened.
func TestExternalData_Case5_08(t *testing.T) {
	for _, where := range []string{"../../x", "/etc/hostname", "weights.bin"} {
		for name, f := range map[string]func(*pb.TensorProto){
			"location": func(c *pb.TensorProto) {
				c.DataLocation = pb.TensorProto_EXTERNAL
				c.RawData = nil
				c.ExternalData = []*pb.StringStringEntryProto{{Key: "location", Value: where}}
			},
			"location beside raw data": func(c *pb.TensorProto) {
				c.ExternalData = []*pb.StringStringEntryProto{{Key: "location", Value: where}}
			},
		} {
			_, err := change(t, func(file *pb.ModelProto) { f(constant(file, "1.gemm:weight")) })
			if err == nil || !strings.Contains(err.Error(), `"1.gemm:weight" keeps its data in another file ("`+where+`")`) {
				t.Errorf("%s %s: %v", name, where, err)
			}
		}
	}
}

// Case 5.11: metadata lost, not text, or megabytes of it.
func TestLostMetadata_Case5_11(t *testing.T) {
	if _, err := change(t, func(f *pb.ModelProto) { f.MetadataProps = nil }); err == nil || !strings.Contains(err.Error(), "no feature spec in metadata") {
		t.Error(err)
	}
	if _, err := change(t, func(f *pb.ModelProto) { setMeta(f, keySpec, strings.Repeat("x", maxMetadata+1)) }); err == nil || !strings.Contains(err.Error(), "at most 4194304 are allowed") {
		t.Error(err)
	}
	data := encode(t, tiny(t))
	at := bytes.Index(data, []byte(`"topic":"cars"`))
	data[at+10] = 0xff
	if _, err := Decode(data); err == nil || !strings.Contains(err.Error(), "invalid UTF-8") {
		t.Error(err)
	}
}

// Case 5.06: 10,000 mutations of a good model give errors or a model that encodes again, and never a panic.
func TestMutations_Case5_06(t *testing.T) {
	good := [][]byte{encode(t, tiny(t)), encode(t, blended(t)), encode(t, activated(t))}
	r := rand.New(rand.NewPCG(8, 9))
	n := 10000
	if testing.Short() {
		n = 1000
	}
	decoded := 0
	for i := range n {
		data := bytes.Clone(good[i%len(good)])
		switch r.IntN(4) {
		case 0:
			data = data[:r.IntN(len(data))]
		case 1:
			for range 1 + r.IntN(4) {
				data[r.IntN(len(data))] ^= 1 << r.IntN(8)
			}
		case 2: // a length blown up
			at := r.IntN(len(data))
			data = append(protowire.AppendVarint(data[:at:at], r.Uint64()>>r.IntN(40)), data[at:]...)
		case 3: // a piece again
			at, to := r.IntN(len(data)), r.IntN(len(data))
			data = append(data[:max(at, to):max(at, to)], data[min(at, to):]...)
		}
		if m, err := Decode(data); err == nil {
			decoded++
			encode(t, m)
		}
	}
	t.Logf("%d of %d mutations were still models: other weights, scores or texts", decoded, n)
}

// Bytes that ask for much more memory than they take are refused before they are parsed.
func TestMemoryIsBounded_Case5_06(t *testing.T) {
	message := func(number protowire.Number, content []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
	}
	deep := []byte{}
	for range 5000 { // graph → node → attribute → graph …
		deep = message(7, message(1, message(5, message(6, deep))))
	}
	for name, data := range map[string][]byte{
		"empty":         {},
		"text":          []byte("id,value\n1,2\n"),
		"nodes":         message(7, bytes.Repeat(message(1, nil), 1<<20)),
		"names":         message(7, message(1, bytes.Repeat(message(1, nil), 1<<20))),
		"metadata":      bytes.Repeat(message(14, nil), 1<<20),
		"packed":        message(7, message(5, message(7, make([]byte, 1<<20)))),
		"not packed":    message(7, message(5, bytes.Repeat([]byte{7 << 3, 1}, 1<<20))),
		"deep":          deep,
		"unknown field": message(999, nil),
		"group":         {7<<3 | 3, 7<<3 | 4},
		"long varint":   bytes.Repeat([]byte{0xff}, 100),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(data)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: decoded", name)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 2*maxCost*uint64(len(data))+4<<20 {
			t.Errorf("%s: %d bytes took %d of memory (%v)", name, len(data), used, err)
		}
	}
}

// TestDecodeComparesNearest: whatever of the grouped nearest distance or its split is not as this version writes it
// is refused with its name.
func TestDecodeComparesNearest(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(f *pb.ModelProto)
	}{
		{"the farthest", `"8.nearest/least"`, func(f *pb.ModelProto) { node(f, "8.nearest/least").OpType = "ArgMax" }},
		{"the last of equals", `"8.nearest/least"`, func(f *pb.ModelProto) {
			n := node(f, "8.nearest/least")
			n.Attribute = append(n.Attribute, intAttr("select_last_index", 1))
		}},
		{"alpha", "{alpha 1, transB 1}; for this step lapwing writes", func(f *pb.ModelProto) { node(f, "8.nearest/product").Attribute[0].F = 1 }},
		{"half squares", `"8.nearest:half" does not hold what follows`, func(f *pb.ModelProto) { constant(f, "8.nearest:half").RawData[0]++ }},
		{"first rows", `"8.nearest:first" does not hold what follows`, func(f *pb.ModelProto) { constant(f, "8.nearest:first").RawData[8] = 1 }},
		{"groups", "step 8 (nearest): 12 values of prototypes", func(f *pb.ModelProto) {
			c := constant(f, "8.nearest:first")
			c.Dims[0], c.RawData = 3, int64Bytes(0, 1, 2)
		}},
		{"no groups", "0 groups", func(f *pb.ModelProto) {
			c := constant(f, "8.nearest:first")
			c.Dims[0], c.RawData = 0, nil
		}},
		{"rows of another rank", `"8.nearest:rows" is FLOAT [12]`, func(f *pb.ModelProto) { constant(f, "8.nearest:rows").Dims = []int64{12} }},
		{"another operand of its distance", `"8.nearest/rowwise"`, func(f *pb.ModelProto) { node(f, "8.nearest/rowwise").Input[0] = "5.gemm" }},
		{"split of the mean", "step 9 (split)", func(f *pb.ModelProto) { node(f, "9.split/zero").Input[0] = "6.norm" }},
		{"shares of another", `"9.split/safe"`, func(f *pb.ModelProto) { node(f, "9.split/safe").Input[2] = "6.norm" }},
		{"a step that reads the distance", `"10.join/term0"`, func(f *pb.ModelProto) { node(f, "10.join/term0").Input[0] = "8.nearest/distance" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := changed(t, blended(t), c.change); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %s", err, c.want)
			}
		})
	}
}

// TestDecodeRefusesOtherActivations: a slope that kernels do not have, and a GELU that is not whole.
func TestDecodeRefusesOtherActivations(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(f *pb.ModelProto)
	}{
		{"another slope", "for this step lapwing writes LeakyRelu", func(f *pb.ModelProto) { node(f, "2.gemm/activation").Attribute[0].F = 0.2 }},
		{"no slope", "for this step lapwing writes LeakyRelu", func(f *pb.ModelProto) { node(f, "2.gemm/activation").Attribute = nil }},
		{"another alpha", "for this step lapwing writes Elu", func(f *pb.ModelProto) { node(f, "3.gemm/activation").Attribute[0].F = 2 }},
		{"another curve", `"4.gemm:cubic" does not hold what follows`, func(f *pb.ModelProto) { constant(f, "4.gemm:cubic").RawData[0]++ }},
		{"another gate", "for this step lapwing writes Tanh", func(f *pb.ModelProto) { node(f, "4.gemm/tanh").OpType = "Sigmoid" }},
		{"its square", `"4.gemm/activation"`, func(f *pb.ModelProto) { node(f, "4.gemm/activation").Input[1] = "4.gemm/gemm" }},
		{"a product of another layer", `"1.gemm/activation"`, func(f *pb.ModelProto) { node(f, "1.gemm/activation").OpType = "Mul" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := changed(t, activated(t), c.change); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %s", err, c.want)
			}
		})
	}
}

// TestDecodeTakesUnknownLineage: a newer version may say more about a model's origin; what is known here must
// still be as it was written.
func TestDecodeTakesUnknownLineage(t *testing.T) {
	want, err := canonicalJSON(tiny(t).Lineage)
	if err != nil {
		t.Fatal(err)
	}
	lineage := func(change ...string) string {
		text := strings.NewReplacer(change...).Replace(want)
		if text == want {
			t.Fatalf("%q is not in %s", change, want)
		}
		return text
	}
	for name, text := range map[string]string{
		"last":        lineage(`"topic":"cars"`, `"topic":"cars","era":{"from":1,"to":[2,{"a":null}]}`),
		"first":       lineage(`{"cluster"`, `{"a":[],"cluster"`),
		"in rows":     lineage(`"used":97`, `"used":97,"sampled":5`),
		"in the list": lineage(`"records":98`, `"records":98,"deleted":true`),
		"at the end":  want[:len(want)-1] + `,"stages":{"trim":200}}`,
	} {
		m, err := change(t, func(f *pb.ModelProto) { setMeta(f, keyLineage, text) })
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got, err := canonicalJSON(m.Lineage); err != nil || got != want {
			t.Errorf("%s: lineage %s, want %s (%v)", name, got, want, err)
		}
	}
	for name, text := range map[string]string{
		"spaces":         lineage(`"topic":"cars"`, `"topic":"cars", "new":1`),
		"twice":          lineage(`"topic":"cars"`, `"topic":"c","topic":"cars"`),
		"another case":   lineage(`"topic":"cars"`, `"topic":"cars","TOPIC":"bikes"`),
		"order":          lineage(`"topic":"cars"`, `"new":1`, `"engine":`, `"topic":"cars","engine":`),
		"kind":           lineage(`"topic":"cars"`, `"topic":["cars"],"new":1`),
		"number's form":  lineage(`"seed":1`, `"new":0,"seed":1.0`),
		"cut":            lineage(`"topic":"cars"`, `"topic":"cars","new":[1`),
		"list of others": lineage(`"partitions":[`, `"new":1,"partitions":[null,`),
		"after the end":  want + `{"new":1}`,
		"no object":      `[` + want + `]`,
	} {
		if _, err := change(t, func(f *pb.ModelProto) { setMeta(f, keyLineage, text) }); err == nil || !strings.Contains(err.Error(), keyLineage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDumpTakesAnyONNX(t *testing.T) {
	file := &pb.ModelProto{Graph: &pb.GraphProto{
		Node:        []*pb.NodeProto{{OpType: "Sin", Attribute: []*pb.AttributeProto{{Name: "a", Type: pb.AttributeProto_FLOAT}}}},
		Initializer: []*pb.TensorProto{{Name: "half", DataType: 10}, {Name: "short", DataType: 1, RawData: []byte{1}}, {Name: "d", DataType: 11, RawData: make([]byte, 8)}},
		Input:       []*pb.ValueInfoProto{{Name: "x"}},
	}}
	data, err := proto.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Dump(data)
	if err != nil || !strings.Contains(text, "half: float16 [] = ?") || !strings.Contains(text, "Sin") {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := Dump([]byte("x")); err == nil {
		t.Error("dumped garbage")
	}
}
