package model

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/lapwing-stream/lapwing/model/onnxpb"
)

// Bounds on what bytes may ask for. A message of two bytes becomes a struct of hundreds, so the cost of parsing
// is reckoned from the wire before anything is parsed.
const (
	maxDepth    = 12  // messages in messages; a Lapwing file has 6
	messageCost = 320 // bytes: about the largest generated struct of the schema
	maxCost     = 16  // bytes of memory a byte of file
	freeCost    = 1 << 20
)

// unmarshal parses a model file that may be hostile: memory stays within a small factor of its size.
func unmarshal(data []byte) (*pb.ModelProto, error) {
	if len(data) == 0 {
		return nil, errors.New("it is empty")
	}
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("it takes %d bytes; an ONNX file ends at %d", len(data), MaxBytes)
	}
	file := &pb.ModelProto{}
	w := wire{left: maxCost*int64(len(data)) + freeCost}
	if err := w.check(data, file.ProtoReflect().Descriptor(), maxDepth); err != nil {
		return nil, fmt.Errorf("it is not an ONNX file, or was cut short or damaged: %w", err)
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth + 1}).Unmarshal(data, file); err != nil {
		return nil, fmt.Errorf("it is not an ONNX file, or was cut short or damaged: %w", err)
	}
	return file, nil
}

// wire walks bytes along the schema without building anything.
type wire struct{ left int64 }

func (w *wire) check(b []byte, md protoreflect.MessageDescriptor, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%s is nested too deep", md.Name())
	}
	for size := len(b); len(b) > 0; {
		at := size - len(b)
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("byte %d of a %s is no field", at, md.Name())
		}
		field := md.Fields().ByNumber(number)
		if field == nil {
			return fmt.Errorf("field %d of a %s is not in the ONNX schema", number, md.Name())
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(number, kind, b)
		if n < 0 {
			return fmt.Errorf("%s of a %s, at its byte %d, ends early", field.Name(), md.Name(), at)
		}
		value := b[:n]
		b = b[n:]
		if kind != protowire.BytesType {
			if field.IsList() {
				w.left -= 16 // a growing slice
			}
			continue
		}
		value, _ = protowire.ConsumeBytes(value)
		switch field.Kind() {
		case protoreflect.MessageKind:
			w.left -= messageCost
			if err := w.check(value, field.Message(), depth-1); err != nil {
				return err
			}
		case protoreflect.StringKind, protoreflect.BytesKind:
			w.left -= int64(len(value)) + 48 // and a slice that grows by copying
		default:
			w.left -= 16 * int64(len(value)) // packed; a number may take one byte
		}
		if w.left < 0 {
			return errors.New("it holds far more parts than its size allows")
		}
	}
	return nil
}
