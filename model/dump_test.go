package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	pb "github.com/lapwing-stream/lapwing/model/onnxpb"
)

// maxShown is how many entries of a constant Dump prints.
const maxShown = 8

// Dump prints a model file as text: versions, inputs, nodes, constants with their first entries, outputs,
// metadata. It takes any ONNX file, Lapwing's or not, within the bounds of Decode.
func Dump(data []byte) (string, error) {
	file, err := unmarshal(data)
	if err != nil {
		return "", refusal(err)
	}
	var s strings.Builder
	fmt.Fprintf(&s, "ir %d, producer %q\n", file.GetIrVersion(), file.GetProducerName())
	for _, o := range file.GetOpsetImport() {
		fmt.Fprintf(&s, "opset %d of %s\n", o.GetVersion(), printable(domainName(o.GetDomain())))
	}
	g := file.GetGraph()
	for _, v := range g.GetInput() {
		fmt.Fprintf(&s, "\ninput %s: %s\n", printable(v.GetName()), shapeText(v))
	}
	s.WriteString("\nnodes\n")
	for _, n := range g.GetNode() {
		fmt.Fprintf(&s, "  %s\n", printable(nodeText(n)))
	}
	s.WriteString("\nconstants\n")
	for _, t := range g.GetInitializer() {
		fmt.Fprintf(&s, "  %s: %s %v = %s\n", printable(t.GetName()), strings.ToLower(dataType(t.GetDataType())), t.GetDims(), entries(t))
	}
	s.WriteString("\n")
	for _, v := range g.GetOutput() {
		fmt.Fprintf(&s, "output %s: %s\n", printable(v.GetName()), shapeText(v))
	}
	s.WriteString("\nmetadata\n")
	for _, p := range file.GetMetadataProps() {
		fmt.Fprintf(&s, "  %s = %s\n", printable(p.GetKey()), printable(p.GetValue()))
	}
	return s.String(), nil
}

// entries prints the first entries of a constant's raw data.
func entries(t *pb.TensorProto) string {
	size := elementSize(t.GetDataType())
	if size == 0 || len(t.GetRawData())%size != 0 {
		return "?"
	}
	var shown []string
	n := len(t.GetRawData()) / size
	for i := range min(n, maxShown) {
		raw := t.GetRawData()[i*size:]
		var e string
		switch pb.TensorProto_DataType(t.GetDataType()) {
		case float32s:
			e = strconv.FormatFloat(float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))), 'g', -1, 32)
		case float64s:
			e = strconv.FormatFloat(math.Float64frombits(binary.LittleEndian.Uint64(raw)), 'g', -1, 64)
		case int32s:
			e = strconv.FormatInt(int64(int32(binary.LittleEndian.Uint32(raw))), 10)
		case int64s:
			e = strconv.FormatInt(int64(binary.LittleEndian.Uint64(raw)), 10)
		case bools:
			e = strconv.FormatBool(raw[0] != 0)
		}
		shown = append(shown, e)
	}
	if n > maxShown {
		shown = append(shown, fmt.Sprintf("… %d more", n-maxShown))
	}
	return strings.Join(shown, " ")
}
