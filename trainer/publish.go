package trainer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
)

// ErrOvertaken: another trainer published a version of the same model meanwhile; nothing was written, and the
// finished model is kept in a file that the error names.
var ErrOvertaken = registry.ErrOvertaken

// keptError is a failure to publish a finished model.
type keptError struct {
	cause      error
	name, file string
	keeping    error // why the file could not be written
}

func (e *keptError) Error() string {
	if e.keeping != nil {
		return fmt.Sprintf("%v\nthe finished model is lost, as it could not be kept either: %v", e.cause, e.keeping)
	}
	return fmt.Sprintf("%v\nthe finished model is kept in %s", e.cause, e.file)
}
func (e *keptError) Unwrap() error { return e.cause }

// Hint says what to do next.
func (e *keptError) Hint() string {
	if e.keeping != nil {
		return "make room, then train again: the same seed and data give the same model"
	}
	return fmt.Sprintf("lapwing models import %s --model %s", e.file, e.name)
}

// publish encodes the model and hands it to the registry. A finished model is never thrown away: what cannot be
// published is left as a file.
func (j *job) publish(ctx context.Context, r *Report) error {
	data, err := r.Model.Encode()
	if err != nil {
		return fmt.Errorf("the trained model cannot be written as ONNX: %w", err)
	}
	r.Data = data
	j.report(Progress{Stage: "publish"}, true)
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	alias := j.Alias
	if alias == "none" {
		alias = ""
	}
	m, err := j.Registry.Publish(ctx, registry.Publication{
		Name: j.Model, Data: data, Alias: alias, By: j.By, Parent: r.Model.Lineage.Parent, Why: "trained on " + j.Topic,
	})
	if err == nil {
		r.Manifest, r.Published = m, true
		return nil
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return context.Cause(ctx)
	}
	kept := &keptError{cause: err, name: j.Model}
	kept.file = filepath.Join(j.KeepDir, fmt.Sprintf("%s-%s.onnx", j.Model, model.Digest(data)[:8]))
	if kept.keeping = os.WriteFile(kept.file, data, 0o644); kept.keeping == nil {
		r.Kept = kept.file
	}
	return kept
}
