// Package onnxpb is the ONNX protobuf schema (onnx.proto3 of https://github.com/onnx/onnx at f7546912,
// Apache-2.0) as generated Go code. Only package model uses it.
//
// To generate it anew (protoc-gen-go comes from the version of google.golang.org/protobuf in go.mod; protoc
// is Debian's protobuf-compiler):
//
//	go build -o "$(go env GOPATH)/bin/" google.golang.org/protobuf/cmd/protoc-gen-go
//	go generate ./model/onnxpb
package onnxpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go_opt=Monnx.proto3=github.com/lapwing-stream/lapwing/model/onnxpb onnx.proto3
