package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/lapwing-stream/lapwing/kernels"
	pb "github.com/lapwing-stream/lapwing/model/onnxpb"
)

// What stands in every file. IR 8 with opset 17 is read by ONNX Runtime from 1.12 on; the newest of both would
// shut out runtimes in use and bring no operator that is needed.
const (
	irVersion = 8
	opset     = 17
	producer  = "lapwing"
	graphName = "lapwing"
	batchDim  = "N" // the free first dimension

	inputName = "features"
)

// Outputs are the names of the graph's outputs: score [N], reconstruction [N, D], contributions [N, D].
var Outputs = []string{"score", "reconstruction", "contributions"}

const (
	float32s = pb.TensorProto_FLOAT
	float64s = pb.TensorProto_DOUBLE
	int32s   = pb.TensorProto_INT32
	int64s   = pb.TensorProto_INT64
	bools    = pb.TensorProto_BOOL
)

// Names. A step is "INDEX.KIND", by its index in the program, and that is also the name of the value it makes.
// Its nodes are "INDEX.KIND/ROLE", its constants "INDEX.KIND:ROLE". The nodes of an output are "output/NAME".

func stepName(i int, kind string) string { return strconv.Itoa(i) + "." + kind }

// splitNode takes the name of a node apart. ok is false where it is no step's.
func splitNode(name string) (index int, kind, role string, ok bool) {
	step, role, ok := strings.Cut(name, "/")
	if !ok {
		return 0, "", "", false
	}
	number, kind, ok := strings.Cut(step, ".")
	if !ok || kind == "" || role == "" {
		return 0, "", "", false
	}
	index, err := strconv.Atoi(number)
	if err != nil || index < 0 || stepName(index, kind) != step {
		return 0, "", "", false
	}
	return index, kind, role, true
}

// builder emits the nodes and constants of one step after another.
type builder struct {
	graph   *pb.GraphProto
	program *kernels.Program
	widths  []int    // of each kernels.Value
	values  []string // name of the tensor that holds it
	step    string   // of the step being emitted
}

// node adds one node to the current step and returns the name of its output: the node's own, or to.
func (b *builder) node(op, role, to string, in []string, attrs ...*pb.AttributeProto) string {
	name := b.step + "/" + role
	if to == "" {
		to = name
	}
	b.graph.Node = append(b.graph.Node, &pb.NodeProto{Name: name, OpType: op, Input: in, Output: []string{to}, Attribute: attrs})
	return to
}

// constant adds one initialiser to the current step and returns its name.
func (b *builder) constant(role string, kind pb.TensorProto_DataType, raw []byte, dims ...int) string {
	t := &pb.TensorProto{Name: b.step + ":" + role, DataType: int32(kind), RawData: raw, Dims: make([]int64, len(dims))}
	for i, d := range dims {
		t.Dims[i] = int64(d)
	}
	b.graph.Initializer = append(b.graph.Initializer, t)
	return t.Name
}

func (b *builder) floats(role string, v []float32, dims ...int) string {
	return b.constant(role, float32s, float32Bytes(v), dims...)
}

// axis adds the constant [1], the axis of columns.
func (b *builder) axis() string {
	return b.constant("axis", int64s, int64Bytes(1), 1)
}

func intAttr(name string, v int64) *pb.AttributeProto {
	return &pb.AttributeProto{Name: name, Type: pb.AttributeProto_INT, I: v}
}

func intsAttr(name string, v ...int64) *pb.AttributeProto {
	return &pb.AttributeProto{Name: name, Type: pb.AttributeProto_INTS, Ints: v}
}

func floatAttr(name string, v float32) *pb.AttributeProto {
	return &pb.AttributeProto{Name: name, Type: pb.AttributeProto_FLOAT, F: v}
}

func castTo(kind pb.TensorProto_DataType) *pb.AttributeProto { return intAttr("to", int64(kind)) }

func int64Bytes(v ...int) []byte {
	raw := make([]byte, 0, 8*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(x))
	}
	return raw
}

func float32Bytes(v []float32) []byte {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return raw
}

// reader finds the nodes and constants of one step after another.
type reader struct {
	constants map[string]*pb.TensorProto
	values    map[string]kernels.Value // by tensor name, of the steps read so far
	nodes     map[string]*pb.NodeProto // of the step being read, by role
	step      string
	next      kernels.Value // what the step makes
}

// operand is the program's value that input k of a node means.
func (r *reader) operand(role string, k int) (kernels.Value, error) {
	n := r.nodes[role]
	if n == nil {
		return 0, fmt.Errorf("step %q lacks its node '%s/%s'", r.step, r.step, role)
	}
	if k >= len(n.Input) {
		return 0, fmt.Errorf("node %q (%s) has %d inputs; input %d is needed", n.Name, n.OpType, len(n.Input), k)
	}
	v, ok := r.values[n.Input[k]]
	if !ok {
		return 0, fmt.Errorf("node %q (%s): input %d is %q, which is neither the features nor a step's result", n.Name, n.OpType, k, n.Input[k])
	}
	return v, nil
}

// tensor is a constant of the current step, with the wanted rank; its data has the length that its shape says.
func (r *reader) tensor(role string, kind pb.TensorProto_DataType, rank int) (*pb.TensorProto, error) {
	name := r.step + ":" + role
	t := r.constants[name]
	if t == nil {
		return nil, fmt.Errorf("step %q lacks its constant %q", r.step, name)
	}
	if t.DataType != int32(kind) || len(t.Dims) != rank {
		return nil, fmt.Errorf("constant %q is %s %v; %s of rank %d is needed", name, dataType(t.DataType), t.Dims, kind, rank)
	}
	return t, nil
}

// floats is a constant of float32.
func (r *reader) floats(role string, rank int) ([]float32, []int, error) {
	t, err := r.tensor(role, float32s, rank)
	if err != nil {
		return nil, nil, err
	}
	v := make([]float32, len(t.RawData)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.RawData[4*i:]))
	}
	dims := make([]int, rank)
	for i, d := range t.Dims {
		dims[i] = int(d)
	}
	return v, dims, nil
}

// vector is a constant of n float32.
func (r *reader) vector(role string, n int) ([]float32, error) {
	v, _, err := r.floats(role, 1)
	if err == nil && len(v) != n {
		err = fmt.Errorf("constant '%s:%s' has %d entries; %d are needed", r.step, role, len(v), n)
	}
	return v, err
}

func (r *reader) has(role string) bool { return r.constants[r.step+":"+role] != nil }

func dataType(t int32) string { return pb.TensorProto_DataType(t).String() }

// elementSize is in bytes, and 0 for types that no Lapwing file holds.
func elementSize(t int32) int {
	switch pb.TensorProto_DataType(t) {
	case float32s, int32s:
		return 4
	case float64s, int64s:
		return 8
	case bools:
		return 1
	}
	return 0
}

// shapeText prints a declared shape as [N, 30]; ? stands for an unset dimension.
func shapeText(v *pb.ValueInfoProto) string {
	t := v.GetType().GetTensorType()
	if t == nil || t.GetShape() == nil {
		return "no shape"
	}
	var dims []string
	for _, d := range t.GetShape().GetDim() {
		switch d := d.GetValue().(type) {
		case *pb.TensorShapeProto_Dimension_DimValue:
			dims = append(dims, strconv.FormatInt(d.DimValue, 10))
		case *pb.TensorShapeProto_Dimension_DimParam:
			dims = append(dims, strconv.Quote(d.DimParam))
		default:
			dims = append(dims, "?")
		}
	}
	return fmt.Sprintf("%s [%s]", strings.ToLower(dataType(t.GetElemType())), strings.Join(dims, ", "))
}

// shape makes the declaration of a float32 tensor [N] or [N, d].
func shape(name string, d ...int) *pb.ValueInfoProto {
	dims := []*pb.TensorShapeProto_Dimension{{Value: &pb.TensorShapeProto_Dimension_DimParam{DimParam: batchDim}}}
	for _, d := range d {
		dims = append(dims, &pb.TensorShapeProto_Dimension{Value: &pb.TensorShapeProto_Dimension_DimValue{DimValue: int64(d)}})
	}
	return &pb.ValueInfoProto{Name: name, Type: &pb.TypeProto{Value: &pb.TypeProto_TensorType{
		TensorType: &pb.TypeProto_Tensor{ElemType: int32(float32s), Shape: &pb.TensorShapeProto{Dim: dims}},
	}}}
}

// free tells whether a first dimension is free, or 1, which some exporters write and mean any.
func free(d *pb.TensorShapeProto_Dimension) bool {
	v, fixed := d.GetValue().(*pb.TensorShapeProto_Dimension_DimValue)
	return !fixed || v.DimValue == 1
}

func contains(names []string, name string) bool { return slices.Contains(names, name) }
