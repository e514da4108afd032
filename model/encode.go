package model

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/lapwing-stream/lapwing/kernels"
	pb "github.com/lapwing-stream/lapwing/model/onnxpb"
)

// Encode writes the model as an ONNX file. The same model gives the same bytes. It fails, before it builds
// anything, where the model is not valid or its file would be beyond MaxBytes.
//
// An inverse Map's Impute, Lo and Hi are not written, since nothing uses them.
func (m *Model) Encode() ([]byte, error) {
	if m.Program == nil {
		return nil, errors.New("encode model: it has no program")
	}
	if size := Size(m.Program); size > MaxBytes {
		return nil, fmt.Errorf("encode model: its weights take %.1f GB, and an ONNX file ends at 2 GB; use fewer or narrower layers", float64(size)/1e9)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("encode model: %w", err)
	}
	file, err := m.file()
	if err != nil {
		return nil, fmt.Errorf("encode model: %w", err)
	}
	data, err := marshal(file)
	if err != nil {
		return nil, fmt.Errorf("encode model: %w", err)
	}
	return data, nil
}

func marshal(file *pb.ModelProto) ([]byte, error) {
	if size := proto.Size(file); size > MaxBytes {
		return nil, fmt.Errorf("it takes %d bytes; an ONNX file ends at %d", size, MaxBytes)
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(file)
}

// Digest is the model's identity: SHA-256 of its bytes, in hexadecimal.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// file builds the whole file of a valid model.
func (m *Model) file() (*pb.ModelProto, error) {
	props, err := m.metadata()
	if err != nil {
		return nil, err
	}
	return &pb.ModelProto{
		IrVersion:     irVersion,
		ProducerName:  producer,
		OpsetImport:   []*pb.OperatorSetIdProto{{Version: opset}},
		Graph:         buildGraph(m.Program),
		MetadataProps: props,
	}, nil
}

// buildGraph writes a valid program as a graph.
func buildGraph(p *kernels.Program) *pb.GraphProto {
	b := &builder{graph: &pb.GraphProto{Name: graphName}, program: p, widths: p.Widths(), values: []string{inputName}}
	b.graph.Input = []*pb.ValueInfoProto{shape(inputName, p.Width)}
	b.graph.Output = []*pb.ValueInfoProto{shape(Outputs[0]), shape(Outputs[1], p.Width), shape(Outputs[2], p.Width)}
	for i, s := range p.Steps {
		b.step = stepName(i, s.Kind())
		b.emit(s)
		b.values = append(b.values, b.step)
	}
	// A step's result is [N, width] and has one name, so outputs get nodes of their own: a program may give one
	// value out twice, or its input.
	b.step = "output"
	b.node("Squeeze", Outputs[0], Outputs[0], []string{b.values[p.Score], b.axis()})
	b.node("Identity", Outputs[1], Outputs[1], []string{b.values[p.Reconstruction]})
	b.node("Identity", Outputs[2], Outputs[2], []string{b.values[p.Contributions]})
	return b.graph
}
