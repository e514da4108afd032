package model

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/lapwing-stream/lapwing/kernels"
	pb "github.com/lapwing-stream/lapwing/model/onnxpb"
)

// Decode reads a model file, which may come from anyone. The graph is the authority: the program is read from
// it, written again, and must give the very same graph, so that nothing in the file can mean something else to
// ONNX Runtime than to us. The one freedom is the name of the first dimension, which tools rewrite.
//
// Errors name the node, tensor or metadata key at fault. Memory stays within a small factor of len(data).
func Decode(data []byte) (*Model, error) {
	file, err := unmarshal(data)
	if err != nil {
		return nil, refusal(err)
	}
	m, err := decode(file)
	if err != nil {
		return nil, refusal(err)
	}
	return m, nil
}

// refusal keeps what a hostile file can put into an error to one line of a bounded length.
func refusal(err error) error {
	const most = 700
	text := printable(strings.ReplaceAll(err.Error(), "\n", "; "))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + " …"
	}
	return errors.New("model file: " + text)
}

// printable keeps names and texts of a file from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func decode(file *pb.ModelProto) (*Model, error) {
	if file.Graph == nil {
		return nil, errors.New("it holds no graph")
	}
	if err := checkVersions(file); err != nil {
		return nil, err
	}
	m := &Model{}
	if err := m.setMetadata(file.MetadataProps); err != nil {
		return nil, err
	}
	width, err := checkShapes(file.Graph)
	if err != nil {
		return nil, err
	}
	constants, err := checkConstants(file.Graph)
	if err != nil {
		return nil, err
	}
	if err := checkNodes(file.Graph, constants); err != nil {
		return nil, err
	}
	if m.Program, err = readProgram(file.Graph, constants, width); err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	again, err := m.file()
	if err != nil {
		return nil, err
	}
	if err := same(file, again); err != nil {
		return nil, err
	}
	return m, nil
}

func checkVersions(file *pb.ModelProto) error {
	if file.IrVersion != irVersion {
		return fmt.Errorf("its IR version is %d; lapwing writes and reads %d", file.IrVersion, irVersion)
	}
	if len(file.OpsetImport) == 0 {
		return fmt.Errorf("it names no opset; lapwing writes and reads %d of domain ai.onnx", opset)
	}
	// An operator may mean something else in another opset, though its name exists in both.
	for _, o := range file.OpsetImport {
		if o.GetDomain() != "" || o.GetVersion() != opset || len(file.OpsetImport) > 1 {
			return fmt.Errorf("it uses opset %d of domain %q; lapwing writes and reads only %d of ai.onnx", o.GetVersion(), domainName(o.GetDomain()), opset)
		}
	}
	if len(file.Functions) > 0 {
		return fmt.Errorf("it defines a function of its own (%q); lapwing files have none", file.Functions[0].GetName())
	}
	return nil
}

func domainName(d string) string {
	if d == "" {
		return "ai.onnx"
	}
	return d
}

// checkShapes gives the row width, and sets the free first dimensions to the name that lapwing writes.
func checkShapes(g *pb.GraphProto) (width int, err error) {
	if len(g.Input) != 1 || g.Input[0].GetName() != inputName {
		return 0, fmt.Errorf("its graph has the inputs %q; one named %q is needed", names(g.Input), inputName)
	}
	dims := g.Input[0].GetType().GetTensorType().GetShape().GetDim()
	if len(dims) == 2 {
		if d, ok := dims[1].GetValue().(*pb.TensorShapeProto_Dimension_DimValue); ok && d.DimValue > 0 && d.DimValue <= kernels.MaxWidth {
			width = int(d.DimValue)
		}
	}
	if width == 0 || !free(dims[0]) || !isFloat(g.Input[0]) {
		return 0, fmt.Errorf("input %q is %s; float [%q, D] with D of 1 to %d is needed", inputName, shapeText(g.Input[0]), batchDim, kernels.MaxWidth)
	}
	for i, name := range Outputs {
		if i >= len(g.Output) || g.Output[i].GetName() != name {
			if len(g.Output) < len(Outputs) {
				return 0, fmt.Errorf("its graph has only the outputs %q of %q: it was exported with fewer; take the whole model", names(g.Output), Outputs)
			}
			return 0, fmt.Errorf("its graph has the outputs %q; %q are needed", names(g.Output), Outputs)
		}
		dims := g.Output[i].GetType().GetTensorType().GetShape().GetDim()
		ok := isFloat(g.Output[i]) && len(dims) == min(i, 1)+1 && free(dims[0])
		if i > 0 {
			ok = ok && dims[1].GetDimValue() == int64(width)
		}
		if !ok {
			return 0, fmt.Errorf("output %q is %s, which does not fit input %s", name, shapeText(g.Output[i]), shapeText(g.Input[0]))
		}
	}
	if len(g.Output) != len(Outputs) {
		return 0, fmt.Errorf("its graph has the outputs %q; %q are needed", names(g.Output), Outputs)
	}
	for _, v := range append(slices.Clip(g.Input), g.Output...) {
		v.GetType().GetTensorType().GetShape().GetDim()[0].Value = &pb.TensorShapeProto_Dimension_DimParam{DimParam: batchDim}
	}
	return width, nil
}

func isFloat(v *pb.ValueInfoProto) bool {
	return v.GetType().GetTensorType().GetElemType() == int32(float32s)
}

func names(v []*pb.ValueInfoProto) []string {
	n := []string{}
	for _, v := range v {
		n = append(n, v.GetName())
	}
	return n
}

// checkConstants gives the initialisers by name, each with as much data as its shape says.
func checkConstants(g *pb.GraphProto) (map[string]*pb.TensorProto, error) {
	constants := make(map[string]*pb.TensorProto, len(g.Initializer))
	for _, t := range g.Initializer {
		if t.GetDataLocation() != pb.TensorProto_DEFAULT || len(t.GetExternalData()) > 0 {
			where := ""
			for _, e := range t.GetExternalData() {
				if e.GetKey() == "location" {
					where = e.GetValue()
				}
			}
			return nil, fmt.Errorf("constant %q keeps its data in another file (%q); a model must hold all of its data", t.GetName(), where)
		}
		size := int64(elementSize(t.GetDataType()))
		if size == 0 {
			return nil, fmt.Errorf("constant %q is of type %s, which lapwing does not use", t.GetName(), dataType(t.GetDataType()))
		}
		for _, d := range t.GetDims() {
			// size never passes MaxBytes, and neither does d, so the product fits.
			if d < 0 || d > MaxBytes {
				return nil, fmt.Errorf("constant %q has the shape %v", t.GetName(), t.GetDims())
			}
			if size *= d; size > MaxBytes {
				return nil, fmt.Errorf("constant %q has the shape %v, which is beyond 2 GB", t.GetName(), t.GetDims())
			}
		}
		if int64(len(t.GetRawData())) != size {
			return nil, fmt.Errorf("constant %q has the shape %v, which needs %d bytes of raw data; %d are there", t.GetName(), t.GetDims(), size, len(t.GetRawData()))
		}
		if constants[t.GetName()] != nil || t.GetName() == "" || t.GetName() == inputName {
			return nil, fmt.Errorf("two tensors are named %q", t.GetName())
		}
		constants[t.GetName()] = t
	}
	return constants, nil
}

// checkNodes holds every tensor to be made once and before it is used, so no cycle is left.
func checkNodes(g *pb.GraphProto, constants map[string]*pb.TensorProto) error {
	maker := make(map[string]*pb.NodeProto, len(g.Node))
	for _, n := range g.Node {
		for _, out := range n.GetOutput() {
			if maker[out] != nil || constants[out] != nil || out == inputName || out == "" {
				return fmt.Errorf("node %q (%s) makes %q, which is there already", n.GetName(), n.GetOpType(), out)
			}
			maker[out] = n
		}
	}
	made := make(map[string]bool, len(maker))
	for _, n := range g.Node {
		for _, in := range n.GetInput() {
			switch {
			case in == inputName || constants[in] != nil || made[in]:
			case maker[in] != nil:
				return fmt.Errorf("node %q (%s) reads %q before node %q makes it, or in a cycle", n.GetName(), n.GetOpType(), in, maker[in].GetName())
			default:
				return fmt.Errorf("node %q (%s) reads %q, which nothing makes", n.GetName(), n.GetOpType(), in)
			}
		}
		for _, out := range n.GetOutput() {
			made[out] = true
		}
	}
	for _, o := range g.Output {
		if !made[o.GetName()] {
			return fmt.Errorf("output %q is made by no node", o.GetName())
		}
	}
	return nil
}

// readProgram groups nodes by step and reads one step after another.
func readProgram(g *pb.GraphProto, constants map[string]*pb.TensorProto, width int) (*kernels.Program, error) {
	p := &kernels.Program{Width: width}
	r := &reader{constants: constants, values: map[string]kernels.Value{inputName: kernels.Input}}
	nodes := g.Node
	for len(nodes) > 0 {
		index, kind, _, ok := splitNode(nodes[0].GetName())
		if !ok {
			break
		}
		if index != len(p.Steps) {
			return nil, fmt.Errorf("node %q (%s) stands where step %d begins", nodes[0].GetName(), nodes[0].GetOpType(), len(p.Steps))
		}
		if len(p.Steps) == kernels.MaxSteps {
			return nil, fmt.Errorf("it has more than %d steps", kernels.MaxSteps)
		}
		r.step, r.nodes = stepName(index, kind), map[string]*pb.NodeProto{}
		for len(nodes) > 0 {
			_, _, role, ok := splitNode(nodes[0].GetName())
			if !ok || !strings.HasPrefix(nodes[0].GetName(), r.step+"/") {
				break
			}
			r.nodes[role] = nodes[0]
			nodes = nodes[1:]
		}
		r.next = kernels.Value(len(p.Steps) + 1)
		s, err := r.read(kind)
		if err != nil {
			return nil, err
		}
		p.Steps = append(p.Steps, s)
		r.values[r.step] = r.next
	}
	r.step, r.nodes = "output", map[string]*pb.NodeProto{}
	for _, n := range nodes {
		role, ok := strings.CutPrefix(n.GetName(), "output/")
		if !ok || !contains(Outputs, role) {
			return nil, unknownStep(n.GetOpType())
		}
		r.nodes[role] = n
	}
	for i, to := range []*kernels.Value{&p.Score, &p.Reconstruction, &p.Contributions} {
		v, err := r.operand(Outputs[i], 0)
		if err != nil {
			return nil, err
		}
		*to = v
	}
	return p, nil
}

// same compares the file with what lapwing writes for the model that was read from it.
func same(file, want *pb.ModelProto) error {
	for i, w := range want.Graph.Node {
		if i >= len(file.Graph.Node) {
			return fmt.Errorf("node %q (%s) is missing", w.Name, w.OpType)
		}
		if n := file.Graph.Node[i]; !proto.Equal(n, w) {
			return fmt.Errorf("node %d is %s; for this step lapwing writes %s (update lapwing if a newer one wrote the file)", i, nodeText(n), nodeText(w))
		}
	}
	if n := len(want.Graph.Node); len(file.Graph.Node) > n {
		return fmt.Errorf("node %s belongs to no step", nodeText(file.Graph.Node[n]))
	}
	for i, w := range want.Graph.Initializer {
		if i >= len(file.Graph.Initializer) {
			return fmt.Errorf("constant %q is missing", w.Name)
		}
		t := file.Graph.Initializer[i]
		switch {
		case t.Name != w.Name:
			return fmt.Errorf("constant %d is %q; lapwing writes %q there", i, t.Name, w.Name)
		case t.DataType != w.DataType || !slices.Equal(t.Dims, w.Dims):
			return fmt.Errorf("constant %q is %s %v; its step needs %s %v", t.Name, dataType(t.DataType), t.Dims, dataType(w.DataType), w.Dims)
		case !bytes.Equal(t.RawData, w.RawData):
			return fmt.Errorf("constant %q does not hold what follows from the step's other constants", t.Name)
		}
	}
	if n := len(want.Graph.Initializer); len(file.Graph.Initializer) > n {
		return fmt.Errorf("constant %q belongs to no step", file.Graph.Initializer[n].Name)
	}
	if file.ProducerName != producer {
		return fmt.Errorf("its producer is %q; only files that lapwing wrote are read", file.ProducerName)
	}
	// A lineage may say more than this version knows; setMetadata has checked it.
	for _, w := range want.MetadataProps {
		for _, p := range file.MetadataProps {
			if w.Key == keyLineage && p.GetKey() == keyLineage {
				w.Value = p.Value
			}
		}
	}
	// What is left is order of metadata, documentation texts, value_info and the like.
	if !proto.Equal(file, want) {
		return errors.New("it holds fields that lapwing does not write; another program rewrote it: take the one that lapwing wrote")
	}
	return nil
}

// nodeText prints a node in one line: Min "0.map/within" (a, b) → c {axis 0}.
func nodeText(n *pb.NodeProto) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %q (%s) → %s", n.GetOpType(), n.GetName(), strings.Join(n.GetInput(), ", "), strings.Join(n.GetOutput(), ", "))
	if len(n.GetAttribute()) > 0 {
		var attrs []string
		for _, a := range n.GetAttribute() {
			attrs = append(attrs, attrText(a))
		}
		fmt.Fprintf(&s, " {%s}", strings.Join(attrs, ", "))
	}
	return s.String()
}

func attrText(a *pb.AttributeProto) string {
	switch a.GetType() {
	case pb.AttributeProto_INT:
		return fmt.Sprintf("%s %d", a.GetName(), a.GetI())
	case pb.AttributeProto_FLOAT:
		return fmt.Sprintf("%s %v", a.GetName(), a.GetF())
	case pb.AttributeProto_INTS:
		return fmt.Sprintf("%s %v", a.GetName(), a.GetInts())
	}
	return fmt.Sprintf("%s of type %s", a.GetName(), a.GetType())
}
