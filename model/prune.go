package model

import (
	"fmt"

	pb "github.com/lapwing-stream/lapwing/model/onnxpb"
)

// Prune keeps only some outputs of a model file, with the nodes and constants that they need: ONNX Runtime
// otherwise computes what nobody asked for. The metadata stays. The result is for other programs; Decode
// refuses it, since the rest of the program is gone.
func Prune(data []byte, outputs ...string) ([]byte, error) {
	if len(outputs) == 0 {
		return nil, fmt.Errorf("prune model: no outputs asked for; there are %q", Outputs)
	}
	for _, o := range outputs {
		if !contains(Outputs, o) {
			return nil, fmt.Errorf("prune model: no output is named %q; there are %q", o, Outputs)
		}
	}
	file, err := unmarshal(data)
	if err != nil {
		return nil, refusal(err)
	}
	if _, err := decode(file); err != nil {
		return nil, refusal(err)
	}
	g := file.Graph
	need := map[string]bool{}
	var kept []*pb.ValueInfoProto
	for _, o := range g.Output {
		if contains(outputs, o.Name) {
			need[o.Name] = true
			kept = append(kept, o)
		}
	}
	g.Output = kept
	var nodes []*pb.NodeProto
	// From the last to the first: whatever reads a tensor stands behind the node that makes it.
	for i := len(g.Node) - 1; i >= 0; i-- {
		if need[g.Node[i].Output[0]] {
			nodes = append(nodes, g.Node[i])
			for _, in := range g.Node[i].Input {
				need[in] = true
			}
		}
	}
	for i, j := 0, len(nodes)-1; i < j; i, j = i+1, j-1 {
		nodes[i], nodes[j] = nodes[j], nodes[i]
	}
	g.Node = nodes
	var constants []*pb.TensorProto
	for _, t := range g.Initializer {
		if need[t.Name] {
			constants = append(constants, t)
		}
	}
	g.Initializer = constants
	return marshal(file)
}
